"""Faults between neighbouring frames: flicker, seams at chunk borders, frozen stretches. No weights.

One number per frame pair is kept. T frames.
"""

from dataclasses import dataclass, field

import numpy as np

from helios.bench.frames.source import Frame
from helios.bench.metrics.base import Clip, Fields, Tier, require_frames
from helios.bench.vision import opencv

FROZEN_BELOW = 0.2 / 255
HARD_CUT_ABOVE = 3.0
NEIGHBOURS = 5
_STILL_FLOOR = 0.02 / 255  # below one grey level in fifty pixels a pair counts as equal


def flicker(luma_T: np.ndarray) -> float:
    """Mean absolute second difference of the mean luma (0 to 1); natural clips .0012 and .0024, +-2 % alternation .03."""
    return float(np.abs(np.diff(luma_T, 2)).mean()) if len(luma_T) >= 3 else 0.0


def seam_ratios(differences: np.ndarray, chunk_frames: int) -> np.ndarray:
    """Frame difference across each chunk border over the median of the five differences either side.

    Args:
        differences: difference of frames t and t + 1 at index t, length T - 1.
        chunk_frames: borders lie before frames ``chunk_frames``, ``2 chunk_frames``, ...
    Returns: one ratio per border; about 1 where a border cannot be seen. A still neighbourhood counts as 0.02 / 255.
    """
    ratios = []
    for border in range(chunk_frames, len(differences) + 1, chunk_frames):
        across = border - 1
        around = np.r_[differences[max(0, across - NEIGHBOURS) : across], differences[border : border + NEIGHBOURS]]
        if len(around):
            ratios.append(differences[across] / max(float(np.median(around)), _STILL_FLOOR))
    return np.array(ratios)


@dataclass(frozen=True, kw_only=True)
class Temporal:
    """Flicker, seams and freezes.

    Fields: ``flicker``; ``seam_ratios`` (list), ``seam_mean``, ``seam_max``, ``hard_cuts`` (borders above 3), absent for
    clips of one chunk; ``freeze_frac`` share of frame pairs whose mean absolute RGB difference is below 0.2 / 255.
    """

    name: str = "temporal"
    tier: Tier = "offline"
    version: str = "1"

    def check(self) -> None:
        opencv()

    def begin(self, clip: Clip) -> "_Differences":
        require_frames(clip, 3, self.name)
        return _Differences(clip.info.chunk_frames)


@dataclass
class _Differences:
    chunk_frames: int
    luma: list[float] = field(default_factory=list)
    lab: list[float] = field(default_factory=list)
    rgb: list[float] = field(default_factory=list)
    _previous: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, frame: Frame) -> None:
        self.luma.append(float(frame.grey.mean()) / 255)
        if self._previous is not None:
            rgb, lab = self._previous
            self.rgb.append(float(opencv().absdiff(rgb, frame.offline).mean()) / 255)
            self.lab.append(float(opencv().absdiff(lab, frame.lab).mean()) / 255)
        self._previous = frame.offline, frame.lab

    def finish(self) -> Fields:
        fields: Fields = {
            "flicker": flicker(np.array(self.luma)),
            "freeze_frac": float(np.mean(np.array(self.rgb) < FROZEN_BELOW)),
        }
        ratios = seam_ratios(np.array(self.lab), self.chunk_frames)
        if len(ratios):
            fields["seam_ratios"] = ratios.tolist()
            fields["seam_mean"] = float(ratios.mean())
            fields["seam_max"] = float(ratios.max())
            fields["hard_cuts"] = int((ratios > HARD_CUT_ABOVE).sum())
        return fields
