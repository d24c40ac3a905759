"""Loops: does a later stretch of the clip show again what an earlier one showed? No weights.

Frames are described by a 12 x 20 mean-Lab grid minus the clip's mean (3 kB per frame). T frames, V values per frame.
"""

from collections.abc import Iterator
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
_BLOCK = 64
_STILL_RMS = 0.5 / 255  # windows closer than half a grey level are the same still picture


def repeat_ratio(frames_TV: np.ndarray) -> float:
    """Smallest distance to an earlier stretch, relative to how much the clip moves anyway.

    Windows of 8 frames slide by 2. For each one: the RMS distance to the nearest window that starts at least 16 frames
    earlier, over the distance to the window 8 frames earlier; the minimum over the clip. Natural clips 0.96 and 1.24;
    an exact repeat 0; below 0.3 is a loop. Windows in which nothing moves say nothing; a clip of only such windows
    returns 1.
    """
    values_TV = (frames_TV - frames_TV.mean(0)).astype(np.float32)
    step, apart = WINDOW // STRIDE, APART // STRIDE
    ratios = []
    for first, distances in _window_distances(values_TV):
        for window, row in enumerate(distances, first):
            moved = row[window - step] if window >= apart else 0.0
            if moved > _STILL_RMS:
                ratios.append(row[: window - apart + 1].min() / moved)
    return float(min(ratios)) if ratios else 1.0


def _window_distances(values_TV: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """RMS distances of blocks of windows to all windows, as (first window of the block, distances).

    Squared frame distances come from one matrix product per block and are summed along diagonals, so memory grows with
    T and not with its square.
    """
    starts = np.arange(0, len(values_TV) - WINDOW + 1, STRIDE)
    norms = (values_TV**2).sum(1)
    for first in range(0, len(starts), _BLOCK):
        block = starts[first : first + _BLOCK]
        rows = slice(block[0], block[-1] + WINDOW)
        dots = values_TV[rows] @ values_TV.T
        squared = np.maximum(norms[rows, None] + norms[None] - 2 * dots, 0)
        total = sum(squared[np.ix_(block - block[0] + k, starts + k)] for k in range(WINDOW))
        yield first, np.sqrt(total / (WINDOW * values_TV.shape[1]))


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
