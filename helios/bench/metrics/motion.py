"""Motion amplitude by Farneback flow, official form and true length. No weights.

The official number is the absolute value of the mean over time, positions and *both signed components*: opposite motions
cancel, and so do opposite signs of the two axes (a pan up-right scores 0). It is kept as it is for comparison; the mean
flow length stands beside it. Letters: H height, W width.
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from helios.bench.frames.source import Frame
from helios.bench.metrics.base import Clip, Fields, Tier, require_frames
from helios.bench.vision import opencv

GRID_WIDTH = 16
REFERENCE_WIDTH = 640
MOVING_PX = 0.5


def farneback(before_HW: np.ndarray, after_HW: np.ndarray) -> np.ndarray:
    """Dense flow float32 [H, W, 2] in pixels per frame, with the benchmark's parameters."""
    return opencv().calcOpticalFlowFarneback(
        before_HW, after_HW, None, pyr_scale=0.5, levels=3, winsize=15, iterations=3, poly_n=5, poly_sigma=1.2, flags=0
    )


def shrunk_flow(flow_HW2: np.ndarray) -> np.ndarray:
    """A flow field at width 16 by area interpolation, height ``int(H * 16 / W)`` (9 x 16 for 368x640)."""
    height, width = flow_HW2.shape[:2]
    size = (GRID_WIDTH, max(1, int(height * (GRID_WIDTH / width))))
    return opencv().resize(flow_HW2, size, interpolation=opencv().INTER_AREA)


def signed_amplitude(flow_sum: np.ndarray, pairs: int) -> float:
    """``|mean|`` over positions and components of the mean shrunk flow; float32 as in the published code."""
    return float(abs(np.mean(flow_sum / np.float32(pairs))))


@dataclass(frozen=True, kw_only=True)
class MotionAmplitude:
    """Official motion amplitude (``motion_fb``) with the true length beside it.

    Args:
        zero_when_too_short: the published behaviour for clips of one frame; otherwise they are refused by name.
        threads: flows computed at a time. Flow at the benchmark's size is nearly the whole cost of the offline tier
            (45 ms per pair at 320x640), so a lone process should give it its cores. The result does not depend on it.

    Fields: ``motion_fb``; ``flow_mag`` mean flow length in pixels per frame at 640 wide; ``dynamic_frac`` share of pixels
    that move more than 0.5 px per frame (at 640 wide).
    """

    zero_when_too_short: bool = False
    threads: int = 1
    name: str = "motion_amplitude"
    tier: Tier = "official"
    version: str = "1"

    def check(self) -> None:
        opencv()

    def begin(self, clip: Clip) -> "_Flow":
        if not self.zero_when_too_short:
            require_frames(clip, 2, self.name)
        return _Flow(self.threads)


class _Flow:
    """Adds up flows in the order of the frames; at most two per thread are on their way."""

    def __init__(self, threads: int):
        self._threads = threads
        self._waiting: deque[Future[np.ndarray]] = deque()
        self._previous: np.ndarray | None = None
        self._sum = np.zeros(1, np.float32)
        self._pairs = 0
        self._length = 0.0
        self._moving = 0.0

    def add(self, frame: Frame) -> None:
        grey = frame.scaled_grey
        if self._previous is not None:
            self._waiting.append(_pool(self._threads).submit(farneback, self._previous, grey))
            self._drain(2 * self._threads)
        self._previous = grey

    def _drain(self, left: int) -> None:
        while len(self._waiting) > left:
            self._add_flow(self._waiting.popleft().result())

    def _add_flow(self, flow_HW2: np.ndarray) -> None:
        self._sum = self._sum + shrunk_flow(flow_HW2)
        length = np.hypot(flow_HW2[..., 0], flow_HW2[..., 1]) * (REFERENCE_WIDTH / flow_HW2.shape[1])
        self._length += float(length.mean())
        self._moving += float((length > MOVING_PX).mean())
        self._pairs += 1

    def finish(self) -> Fields:
        self._drain(0)
        if not self._pairs:
            return {"motion_fb": 0.0, "flow_mag": 0.0, "dynamic_frac": 0.0}
        return {
            "motion_fb": signed_amplitude(self._sum, self._pairs),
            "flow_mag": self._length / self._pairs,
            "dynamic_frac": self._moving / self._pairs,
        }


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="flow")
