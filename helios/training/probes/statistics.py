"""Numbers about a rolled-out video: does it go on smoothly, does it keep its colours, does it move?

F pixel frames, H W height and width in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class VideoStatistics:
    """Statistics of one video of several chunks.

    Attributes:
        seam: mean step across chunk borders over mean step inside chunks; 1 is no seam, more is a jump.
        motion: mean absolute difference of neighbouring frames inside chunks, in grey levels of 255.
        means, deviations: of red, green and blue per chunk, [chunks, 3], in grey levels.
    """

    seam: float
    motion: float
    means: np.ndarray
    deviations: np.ndarray

    @property
    def colour_drift(self) -> float:
        """Largest distance of a chunk's mean colour from the first chunk's, in grey levels."""
        return float(np.linalg.norm(self.means - self.means[0], axis=1).max())

    @property
    def contrast_drift(self) -> float:
        """The last chunk's spread of colours over the first's: below 1 it fades, above 1 it burns."""
        return float(self.deviations[-1].mean() / max(self.deviations[0].mean(), 1e-6))


def video_statistics(frames_FHWC: np.ndarray, chunk_frames: int) -> VideoStatistics:
    """Statistics of a uint8 video of whole chunks.

    Args:
        chunk_frames: frames of a chunk, 33 as a rule.
    """
    frames = frames_FHWC.astype(np.float32)
    steps = np.abs(frames[1:] - frames[:-1]).mean((1, 2, 3))
    border = (np.arange(len(steps)) + 1) % chunk_frames == 0
    inside = float(steps[~border].mean())
    seam = float(steps[border].mean() / max(inside, 1e-6)) if border.any() else 1.0
    chunks = frames.reshape(-1, chunk_frames, *frames.shape[1:])
    return VideoStatistics(seam=seam, motion=inside, means=chunks.mean((1, 2, 3)), deviations=chunks.std((1, 2, 3)))


def average(videos: Sequence[VideoStatistics]) -> dict[str, float]:
    """Means over videos, named for the curves."""
    names = ("seam", "motion", "colour_drift", "contrast_drift")
    return {name: float(np.mean([getattr(video, name) for video in videos])) for name in names}
