"""Loops: does a later stretch of the clip show again what an earlier one showed? No weights.

Frames are described by a 12 x 20 mean-Lab grid minus the clip's mean (3 kB per frame). T frames, V values per frame.
"""

from dataclasses import dataclass, field

import numpy as np

from helios.bench.frames.source import Frame
from helios.bench.metrics.base import Clip, Fields, Tier, require_frames
from helios.bench.metrics.statistics import lab_grid
from helios.bench.vision import opencv

WINDOW = 8
STRIDE = 2
APART = 16
LOOP_BELOW = 0.3
_STILL_RMS = 0.5 / 255  # windows closer than half a grey level are the same still picture


def repeat_ratio(frames_TV: np.ndarray) -> float:
    """Smallest distance to an earlier stretch, relative to how much the clip moves anyway.

    Windows of 8 frames slide by 2. For each one: the RMS distance to the nearest window that starts at least 16 frames
    earlier, over the distance to the window 8 frames earlier; the minimum over the clip. Natural clips 0.96 and 1.24;
    an exact repeat 0; below 0.3 is a loop. Windows in which nothing moves say nothing; a clip of only such windows
    returns 1.
    """
    distance = _window_distances(frames_TV - frames_TV.mean(0))
    ratios = []
    step, apart = WINDOW // STRIDE, APART // STRIDE
    for window in range(apart, len(distance)):
        moved = distance[window, window - step]
        if moved > _STILL_RMS:
            ratios.append(distance[window, : window - apart + 1].min() / moved)
    return float(min(ratios)) if ratios else 1.0


def _window_distances(frames_TV: np.ndarray) -> np.ndarray:
    """RMS distance between all windows: squared frame distances from one matrix product, summed along diagonals."""
    values = frames_TV.astype(np.float32)
    norms = (values**2).sum(1)
    squared = np.maximum(norms[:, None] + norms[None] - 2 * values @ values.T, 0)
    starts = np.arange(0, len(values) - WINDOW + 1, STRIDE)
    total = sum(squared[np.ix_(starts + k, starts + k)] for k in range(WINDOW))
    return np.sqrt(total / (WINDOW * values.shape[1]))


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Loop detector. Fields: ``repeat_ratio`` and ``loops`` (whether it is below 0.3)."""

    name: str = "repeats"
    tier: Tier = "offline"
    version: str = "1"

    def check(self) -> None:
        opencv()

    def begin(self, clip: Clip) -> "_Grids":
        require_frames(clip, WINDOW + APART, self.name)
        return _Grids()


@dataclass
class _Grids:
    grids: list[np.ndarray] = field(default_factory=list)

    def add(self, frame: Frame) -> None:
        self.grids.append(lab_grid(frame.lab, 12, 20).ravel())

    def finish(self) -> Fields:
        ratio = repeat_ratio(np.stack(self.grids))
        return {"repeat_ratio": ratio, "loops": ratio < LOOP_BELOW}
