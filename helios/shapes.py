"""Sizes and frame arithmetic: pixels, latents, tokens, chunks. Plain integers, no tensors.

A chunk is the unit that Helios generates at once: 9 latent frames that decode, on their own, to 33 pixel frames
(paper arXiv 2603.04379, section 3). The clean past is a fixed window of 19 latent frames, split from old to new into
long (16), mid (2) and newest (1); one more latent, the anchor, is the first frame of the whole video.
"""

from dataclasses import dataclass
from math import ceil

from helios.errors import InputError


@dataclass(frozen=True, kw_only=True)
class HistorySizes:
    """How many latent frames of the clean past each history stream holds, oldest stream first."""

    long: int = 16
    mid: int = 2
    newest: int = 1

    @property
    def total(self) -> int:
        """Length of the history window in latent frames (19 in every released model)."""
        return self.long + self.mid + self.newest


@dataclass(frozen=True, kw_only=True)
class FramePositions:
    """Time positions for the rotary embedding; the same for every chunk of every video ("relative RoPE").

    With the default sizes: anchor 0, long 1-16, mid 17-18, newest 19, noisy chunk 20-28. The short stream is the pair
    (anchor, newest).
    """

    history: HistorySizes = HistorySizes()
    chunk_latent_frames: int = 9

    @property
    def anchor(self) -> tuple[int, ...]:
        return (0,)

    @property
    def long(self) -> tuple[int, ...]:
        return tuple(range(1, 1 + self.history.long))

    @property
    def mid(self) -> tuple[int, ...]:
        first = 1 + self.history.long
        return tuple(range(first, first + self.history.mid))

    @property
    def newest(self) -> tuple[int, ...]:
        first = 1 + self.history.long + self.history.mid
        return tuple(range(first, first + self.history.newest))

    @property
    def short(self) -> tuple[int, ...]:
        return self.anchor + self.newest

    @property
    def noisy(self) -> tuple[int, ...]:
        first = 1 + self.history.total
        return tuple(range(first, first + self.chunk_latent_frames))


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How one checkpoint maps pixels to latents to tokens.

    Args:
        levels: resolution levels of the pyramid; 1 for Base, 3 for Mid and Distilled.
        spatial: pixels per latent along height and width (VAE).
        temporal: pixel frames per latent frame after the first (VAE).
        patch: latents per token along height and width (transformer).
        latent_channels: channels of a latent.
        chunk_latent_frames: latent frames generated at once.
        history: the window of clean latents that conditions a chunk.
    """

    levels: int = 1
    spatial: int = 8
    temporal: int = 4
    patch: int = 2
    latent_channels: int = 16
    chunk_latent_frames: int = 9
    history: HistorySizes = HistorySizes()

    @property
    def positions(self) -> FramePositions:
        return FramePositions(history=self.history, chunk_latent_frames=self.chunk_latent_frames)

    @property
    def chunk_frames(self) -> int:
        """Pixel frames of one chunk: 33 with the released VAE."""
        return self.pixel_frames(self.chunk_latent_frames)

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this: 16 for Base, 64 for the three-level pyramid."""
        return self.spatial * self.patch * 2 ** (self.levels - 1)

    def pixel_frames(self, latent_frames: int) -> int:
        """Pixel frames that ``latent_frames`` decode to in one causal pass: the first latent holds one frame."""
        return (latent_frames - 1) * self.temporal + 1

    def latent_frames(self, pixel_frames: int) -> int:
        """Latent frames of a causal encoding of ``pixel_frames`` frames (which must be ``temporal * m + 1``)."""
        return (pixel_frames - 1) // self.temporal + 1

    def chunks_for(self, num_frames: int) -> int:
        """Chunks that have to be generated for ``num_frames`` frames."""
        if num_frames <= 0:
            raise InputError(
                f"num_frames={num_frames} asks for no video: pass 1 or more (a chunk is {self.chunk_frames})"
            )
        return ceil(num_frames / self.chunk_frames)

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        return height // self.spatial, width // self.spatial

    def level_size(self, height: int, width: int, level: int) -> tuple[int, int]:
        """Latent height and width of a pyramid level; level ``levels - 1`` is the full resolution."""
        shrink = 2 ** (self.levels - 1 - level)
        rows, columns = self.latent_size(height, width)
        return rows // shrink, columns // shrink

    def noisy_tokens(self, height: int, width: int, level: int) -> int:
        """Tokens of the noisy chunk at a pyramid level (8640 at 384x640 and full resolution)."""
        rows, columns = self.level_size(height, width, level)
        return self.chunk_latent_frames * (rows // self.patch) * (columns // self.patch)

    def check_size(self, height: int, width: int) -> None:
        """Refuse a frame size that the VAE, the pyramid and the patches cannot take.

        Raises: InputError that names the nearest legal sizes.
        """
        multiple = self.size_multiple
        if height > 0 and width > 0 and height % multiple == 0 and width % multiple == 0:
            return
        near = " or ".join(f"{h}x{w}" for h, w in self.nearest_sizes(height, width))
        raise InputError(f"{height}x{width} (height x width) is not a multiple of {multiple} on both sides: use {near}")

    def nearest_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """The legal sizes just below and just above a wish, nearest first, without repeats."""
        multiple = self.size_multiple
        below = tuple(max(multiple, side // multiple * multiple) for side in (height, width))
        above = tuple(max(multiple, -(-side // multiple) * multiple) for side in (height, width))
        rounded = tuple(max(multiple, round(side / multiple) * multiple) for side in (height, width))
        return list(dict.fromkeys([rounded, below, above]))[:2]
