"""Steps on a few latent frames of a chunk, at their own places in time.

A transformer knows a token's time from its rotary position, so any subset of frames is a valid, shorter sequence: without
a history one frame of nine costs a tenth of the chunk and teaches what a picture of it looks like, two or three teach
what moves. Models are trained on pictures before videos for the same reason. A history is always whole, and then the
saving is smaller.

B batch, C channels, T latent frames, H W latent height and width.
"""

from dataclasses import dataclass

from torch import Tensor

from helios.errors import InputError
from helios.training.methods.base import checked_share
from helios.training.seeds import Draws, Purpose


@dataclass(frozen=True, kw_only=True)
class WholeChunks:
    """Every step has all frames."""

    def longest(self, frames: int) -> int:
        """Frames of the longest step, of ``frames`` in a chunk."""
        return frames

    def take(self, x0_BCTHW: Tensor, positions: tuple[int, ...], draws: Draws) -> tuple[Tensor, tuple[int, ...]]:
        """The frames of this step and their time positions."""
        return x0_BCTHW, positions


@dataclass(frozen=True, kw_only=True)
class SparseFrames:
    """How often a step keeps a few frames, and how many.

    Args:
        share: of the steps.
        most: frames that such a step keeps at most; 1 to ``most``, all counts equally often.
    Raises: InputError for a share outside 0 to 1 or no frame.
    """

    share: float
    most: int = 3

    def __post_init__(self) -> None:
        checked_share(share=self.share)
        if self.most < 1:
            raise InputError(f"most={self.most} keeps no frame: use 1 or more")

    def longest(self, frames: int) -> int:
        """Frames of the longest step, of ``frames`` in a chunk."""
        return min(self.most, frames) if self.share == 1 else frames

    def take(self, x0_BCTHW: Tensor, positions: tuple[int, ...], draws: Draws) -> tuple[Tensor, tuple[int, ...]]:
        """The frames of this step and their time positions, the same for all samples and on all ranks."""
        generator = draws.synchronous(Purpose.FRAMES)
        if generator.random() >= self.share:
            return x0_BCTHW, positions
        count = int(generator.integers(1, min(self.most, len(positions)) + 1))
        kept = sorted(generator.choice(len(positions), size=count, replace=False).tolist())
        return x0_BCTHW[:, :, kept], tuple(positions[place] for place in kept)
