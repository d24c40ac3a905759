"""How videos become clips: the settings of a preparation."""

from dataclasses import dataclass

from helios.data.buckets import Buckets
from helios.errors import InputError
from helios.media.timing import frame_rate

ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """How videos become clips. All of it decides the bytes that are written.

    Args:
        buckets: frame sizes.
        fps: frames per second that videos are resampled to; None takes every frame of a file as it is, whatever its
            rate (as the published preparation does).
        min_chunks: shorter videos are left out (the published data has at least 3).
        max_chunks: longer ones become several clips (the published data stops at 15).
        stills: for every chunk after the first, also encode the frame before it as a picture that image-to-video
            starts from; about doubles the time.
        text: store the captions' states. Leave it out only to train a text encoder too.
        prefix: put before every caption, such as a name to teach.
        latent_dtype: of the stored latents: float32, float16 or bfloat16.
        text_dtype: of the stored text states.
        seed: of the posterior's samples.
        shard_chunks: chunks per file.
    """

    buckets: Buckets
    fps: float | None = 24.0
    min_chunks: int = 1
    max_chunks: int = 15
    stills: bool = True
    text: bool = True
    prefix: str = ""
    latent_dtype: str = "float32"
    text_dtype: str = "bfloat16"
    seed: int = 0
    shard_chunks: int = 64

    def __post_init__(self) -> None:
        if self.fps is not None:
            frame_rate(self.fps)
        if not 1 <= self.min_chunks <= self.max_chunks:
            raise InputError(f"min_chunks={self.min_chunks} must lie between 1 and max_chunks={self.max_chunks}")
        for name in ("latent_dtype", "text_dtype"):
            if getattr(self, name) not in ITEM_BYTES:
                raise InputError(f"{name}={getattr(self, name)!r} is unknown: use {', '.join(ITEM_BYTES)}")
        if not 0 <= self.seed < 1 << 64:
            raise InputError(f"seed={self.seed} is out of range: use 0 to 2**64 - 1")
        if self.shard_chunks < 1:
            raise InputError(f"shard_chunks={self.shard_chunks} leaves nothing for a file: use 1 or more")
