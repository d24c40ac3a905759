"""Motion smoothness: how well the frame between two frames can be predicted from them.

Of the frames of a window keep the even ones; predict the halfway frame of every neighbouring pair; compare with the true
odd frame. With m the mean absolute difference (0 to 255) over pixels, channels and pairs, score = (255 - m) / 255.

The official predictor is the network AMT-S. The offline tier predicts by DIS optical flow; on the two reference clips it
gives .98929 and .99504 where AMT-S gives .98968 and .99479 (plain blending of the two frames: .98179 on the first).
Letters: H height, W width.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from helios.bench.frames.samplers import Window, end_windows, halfway_triples
from helios.bench.frames.source import Frame, Pixels
from helios.bench.metrics.base import Clip, Fields, Tier, require_frames
from helios.bench.metrics.motion import MOVING_PX, REFERENCE_WIDTH
from helios.bench.vision import opencv

LEAST_FRAMES = 3
LEAST_WINDOW = 4


class Halfway(Protocol):
    """Predicts the frame between two frames."""

    def between(self, before_HW3: Pixels, after_HW3: Pixels) -> Pixels:
        """uint8 [H, W, 3], truncated."""
        ...


def pair_error(predicted_HW3: Pixels, truth_HW3: Pixels) -> float:
    """Mean absolute difference over pixels and channels, 0 to 255."""
    return float(opencv().absdiff(predicted_HW3, truth_HW3).mean())


def score(mean_error: float) -> float:
    """``(255 - m) / 255``: 1 is perfectly predictable."""
    return (255.0 - mean_error) / 255.0


class DisHalfway:
    """Halfway frame by DIS optical flow (medium preset) in both directions.

    F = flow(a -> b), B = flow(b -> a); halfway flow = (F(x - F/2) - B(x - B/2)) / 2; the prediction is the average of
    a(x - halfway/2) and b(x + halfway/2) with replicated borders. On the way the length of F is averaged: frames are two
    apart, so half of it is pixels per frame, scaled to a width of 640.
    """

    def __init__(self):
        self._flow = opencv().DISOpticalFlow_create(opencv().DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._grid: np.ndarray | None = None
        self._length = self._moving = 0.0
        self._pairs = 0

    @property
    def flow_length(self) -> float:
        """Mean flow length, pixels per frame at 640 wide."""
        return self._length / max(1, self._pairs)

    @property
    def moving_share(self) -> float:
        """Share of pixels that move more than 0.5 px per frame at 640 wide."""
        return self._moving / max(1, self._pairs)

    def between(self, before_HW3: Pixels, after_HW3: Pixels) -> Pixels:
        cv2 = opencv()
        grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (before_HW3, after_HW3)]
        forward = self._flow.calc(grey[0], grey[1], None)
        backward = self._flow.calc(grey[1], grey[0], None)
        self._count(forward)
        halfway = 0.5 * (self._sampled(forward, -0.5 * forward) - self._sampled(backward, -0.5 * backward))
        before = self._sampled(before_HW3, -0.5 * halfway)  # uint8: rounded once here, truncated after the average,
        after = self._sampled(after_HW3, 0.5 * halfway)  # which is what the reference values above were measured with
        return ((before.astype(np.uint16) + after) // 2).astype(np.uint8)

    def _count(self, flow_HW2: np.ndarray) -> None:
        length = np.hypot(flow_HW2[..., 0], flow_HW2[..., 1]) / 2 * (REFERENCE_WIDTH / flow_HW2.shape[1])
        self._length += float(length.mean())
        self._moving += float((length > MOVING_PX).mean())
        self._pairs += 1

    def _sampled(self, picture: np.ndarray, shift_HW2: np.ndarray) -> np.ndarray:
        cv2 = opencv()
        height, width = shift_HW2.shape[:2]
        if self._grid is None or self._grid.shape[:2] != (height, width):
            self._grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
        where = self._grid + shift_HW2
        return cv2.remap(picture, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@dataclass(frozen=True, kw_only=True)
class SmoothnessDis:
    """Offline smoothness on the offline view, whole clip and drift windows, rated with the official thresholds.

    Fields: ``smoothness_dis``, ``start_smoothness_dis``, ``end_smoothness_dis``, ``drift_smoothness_dis``;
    ``flow_mag_dis`` the mean flow length and ``dynamic_frac_dis`` the share of moving pixels (at 640 wide).
    """

    name: str = "smoothness_dis"
    tier: Tier = "offline"
    version: str = "1"

    def check(self) -> None:
        opencv()

    def begin(self, clip: Clip) -> "_DisSmoothness":
        require_frames(clip, 2 * LEAST_WINDOW, self.name)
        return _DisSmoothness(clip.info.num_frames)


class PairErrors:
    """Pair errors of a whole clip and of its two end windows, each pair predicted once however many windows use it.

    Fed frames in order; holds three of them.
    """

    def __init__(self, num_frames: int, halfway: Halfway, *, with_drift: bool = True):
        windows = {"whole": Window(0, num_frames)}
        if with_drift:
            windows["start"], windows["end"] = end_windows(num_frames, at_least=LEAST_WINDOW)
        self._users: dict[int, list[str]] = {}
        for name, window in windows.items():
            for first, _, _ in halfway_triples(window):
                self._users.setdefault(first, []).append(name)
        self._errors: dict[str, list[float]] = {name: [] for name in windows}
        self._recent: list[Pixels] = []
        self._halfway = halfway

    def add(self, index: int, picture: Pixels) -> None:
        self._recent = [*self._recent[-2:], picture]
        users = self._users.get(index - 2, ())
        if users:
            before, truth, after = self._recent
            error = pair_error(self._halfway.between(before, after), truth)
            for name in users:
                self._errors[name].append(error)

    def scores(self) -> dict[str, float]:
        """Score of ``whole`` and, with drift windows, of ``start`` and ``end``; a window without a pair scores 0."""
        return {name: score(float(np.mean(errors))) if errors else 0.0 for name, errors in self._errors.items()}


@dataclass
class _DisSmoothness:
    num_frames: int
    halfway: DisHalfway = field(default_factory=DisHalfway)

    def __post_init__(self):
        self.pairs = PairErrors(self.num_frames, self.halfway)

    def add(self, frame: Frame) -> None:
        self.pairs.add(frame.index, frame.offline)

    def finish(self) -> Fields:
        scores = self.pairs.scores()
        return {
            "smoothness_dis": scores["whole"],
            "start_smoothness_dis": scores["start"],
            "end_smoothness_dis": scores["end"],
            "drift_smoothness_dis": abs(scores["start"] - scores["end"]),
            "flow_mag_dis": self.halfway.flow_length,
            "dynamic_frac_dis": self.halfway.moving_share,
        }
