"""Steps on a part of a chunk: a few latent frames at their own places in time, or less height and width.

A transformer knows from rotary positions how far tokens are apart in time, so any subset of frames is a valid, shorter
sequence: without a history one frame of nine costs a tenth of the chunk and teaches what a picture of it looks like, two
or three teach what moves. Models are trained on pictures before videos for the same reason. Distances alone do not say
at what time of its chunk a frame is, and so not where a moving object has got to; a history does, even an empty one, since
its tokens have fixed places in time. It always has all its frames, and then the saving is smaller.

B batch, C channels, T latent frames, H W latent height and width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from helios.errors import InputError
from helios.schedulers.pairs import latent_pyramid
from helios.training.methods.base import checked_share
from helios.training.noise_levels import LogitNormal, NoiseLaw
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
        adjacent: share of the sparse steps whose frames follow one another, which shows how things move; in the others
            they are anywhere in the chunk.
    Raises: InputError for a share outside 0 to 1 or no frame.
    """

    share: float = 1.0
    most: int = 3
    adjacent: float = 0.0

    def __post_init__(self) -> None:
        checked_share(share=self.share)
        checked_share(adjacent=self.adjacent)
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
        if generator.random() < self.adjacent:
            first = int(generator.integers(0, len(positions) - count + 1))
            kept = list(range(first, first + count))
        else:
            kept = sorted(generator.choice(len(positions), size=count, replace=False).tolist())
        return x0_BCTHW[:, :, kept], tuple(positions[place] for place in kept)


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """What a step of pretraining sees of a chunk.

    Args:
        share: of the steps, beside the other excerpts.
        shrink: height and width are divided by it, by means over 2x2: 1, 2 or 4. Half the size costs a quarter and
            teaches what is where; the levels of stage 2 are made of such latents.
        frames: all, or a few.
        law: distribution of the noise level. Where things are and where they go is decided in near-pure noise, what
            they look like in less of it; and the larger a chunk is, the more noise hides the same thing.
    Raises: InputError for a share outside 0 to 1 or another ``shrink``.
    """

    share: float = 1.0
    shrink: int = 1
    frames: WholeChunks | SparseFrames = WholeChunks()
    law: NoiseLaw = LogitNormal()

    def __post_init__(self) -> None:
        checked_share(share=self.share)
        if self.shrink not in (1, 2, 4):
            raise InputError(f"shrink={self.shrink} is not a level of the pyramid: use 1, 2 or 4")

    def take(self, x0_BCTHW: Tensor, positions: tuple[int, ...], draws: Draws) -> tuple[Tensor, tuple[int, ...]]:
        """The part of this step and its frames' time positions, of those of the chunk."""
        return self.frames.take(self.shrunk(x0_BCTHW), positions, draws)

    def shrunk(self, x0_BCTHW: Tensor) -> Tensor:
        """All frames at its size."""
        return latent_pyramid(x0_BCTHW, self.shrink.bit_length())[0]

    def tokens(self, whole: int, frames: int) -> int:
        """Of the longest step, when a chunk of ``frames`` has ``whole``."""
        return whole * self.frames.longest(frames) // frames // self.shrink**2


def check_excerpts(excerpts: Sequence[Excerpt]) -> None:
    """Their shares are those of all steps.

    Raises: InputError otherwise.
    """
    total = sum(excerpt.share for excerpt in excerpts)
    if abs(total - 1) > 1e-6:
        raise InputError(f"the shares of the excerpts add up to {total:g}: make it 1")


def draw_excerpt(excerpts: Sequence[Excerpt], draws: Draws) -> Excerpt:
    """The one of this step, the same for all samples and on all ranks."""
    place = draws.synchronous(Purpose.COARSE).choice(len(excerpts), p=[excerpt.share for excerpt in excerpts])
    return excerpts[int(place)]
