"""What training reads: clips of encoded video with their captions.

C channels, T latent frames (9 per chunk), H W latent height and width, S text tokens, E width of the text encoder,
F pixel frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from helios.errors import InputError
from helios.shapes import Geometry


@dataclass(frozen=True, kw_only=True)
class LatentClip:
    """One clip, encoded chunk by chunk (33 frames each, on their own), and its caption.

    A clip of :mod:`helios.data` (``PreparedClip``) serves as well.

    Attributes:
        latents_CTHW: normalised latents of whole chunks, any float dtype.
        captions: what it shows, in one wording or several; one is drawn each time the clip is used.
        texts_SE: the encoding of every wording, without padding, where it was computed beforehand.
        stills_TCHW: for every chunk after the first, the picture that an image-to-video request would give: the last
            frame before the chunk, as [anchor, newest] latents, [2 * (chunks - 1), C, H, W]; None without.
        script: wordings for each chunk, of a clip whose description changes on the way; None where it does not.
    """

    latents_CTHW: Tensor
    captions: tuple[str, ...]
    texts_SE: tuple[Tensor, ...] | None = None
    stills_TCHW: Tensor | None = None
    script: tuple[tuple[str, ...], ...] | None = None

    def __post_init__(self) -> None:
        if self.latents_CTHW.dim() != 4:
            raise InputError(f"clip latents of shape {tuple(self.latents_CTHW.shape)} are not [C, T, H, W]")
        if not self.captions or not all(caption.strip() for caption in self.captions):
            raise InputError("a clip has no caption: write one sentence about what it shows")

    def chunks(self, geometry: Geometry) -> int:
        """Whole chunks in the clip.

        Raises: InputError when its latents do not fit the checkpoint (pixel sizes passed as latent sizes, K20).
        """
        channels, frames = self.latents_CTHW.shape[:2]
        if channels != geometry.latent_channels:
            raise InputError(f"clip latents have {channels} channels: this model reads {geometry.latent_channels}")
        count, rest = divmod(frames, geometry.chunk_latent_frames)
        if count == 0 or rest:
            wanted = geometry.chunk_latent_frames
            raise InputError(f"a clip has {frames} latent frames: give whole chunks, a multiple of {wanted}")
        return count


def wordings(clip: LatentClip, chunk: int) -> tuple[str, ...]:
    """What can be said about a chunk of a clip."""
    script = getattr(clip, "script", None)
    return clip.captions if script is None else script[chunk]


@dataclass(frozen=True, kw_only=True)
class PixelClip:
    """One window of video frames for training the VAE: uint8 RGB, [F, H, W, 3] with pixel height and width."""

    frames_FHWC: Tensor


class Dataset(Protocol):
    """Items by number, and the bucket of each: items of one bucket have equal shapes and can share a batch."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> object: ...

    def buckets(self) -> Sequence[object]:
        """The bucket of every item, without loading it."""
        ...


@dataclass(frozen=True)
class InMemory:
    """A data set that is already loaded."""

    clips: tuple[LatentClip | PixelClip, ...]

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> LatentClip | PixelClip:
        return self.clips[index]

    def buckets(self) -> list[object]:
        """Shape of each clip's tensor."""
        return [
            tuple((clip.latents_CTHW if isinstance(clip, LatentClip) else clip.frames_FHWC).shape)
            for clip in self.clips
        ]
