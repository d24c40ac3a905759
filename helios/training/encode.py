"""Procedural worlds as latents on disk: clips are drawn, encoded and stored without video files in between.

For videos of one's own there is ``helios data prepare``. Here a source draws clip after clip by number; shards that
exist stay, so an interrupted command goes on, and several processes can share the work.

C channels, F pixel frames, T latent frames (9 per chunk), H W latent height and width unless pixels.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from helios.errors import InputError
from helios.models.vae import HeliosVAE
from helios.noise import Address, AddressedNoise, Purpose
from helios.shapes import Geometry
from helios.training.clips import LatentClip
from helios.training.methods.vae import to_signed


@dataclass(frozen=True, kw_only=True)
class DrawnClip:
    """A clip as a source draws it.

    Attributes:
        frames_FHWC: uint8 RGB, whole chunks of pixel frames.
        captions: wordings.
        script: wordings per chunk where the description changes, or None.
    """

    frames_FHWC: Tensor
    captions: tuple[str, ...]
    script: tuple[tuple[str, ...], ...] | None = None


class Source(Protocol):
    """Draws clip number ``index``, the same one for ever."""

    def __call__(self, index: int) -> DrawnClip: ...


@dataclass(frozen=True, kw_only=True)
class EncodeSettings:
    """What is stored.

    Args:
        count: clips.
        per_shard: clips per file.
        stills: share of the files in which, for every chunk after the first, the frame before it is also encoded as a
            request's picture (image to video), which costs nearly as much again.
        seed: of the posterior samples.
        dtype: of the stored latents; float16 keeps three digits.
    """

    count: int
    per_shard: int = 128
    stills: float = 1.0
    seed: int = 0
    dtype: str = "float16"

    def __post_init__(self) -> None:
        if self.count < 1 or self.per_shard < 1:
            raise InputError(f"count={self.count}, per_shard={self.per_shard}: use 1 or more")
        if not 0 <= self.stills <= 1:
            raise InputError(f"stills={self.stills} is not a share: use 0 to 1")
        if self.dtype not in ("float32", "float16", "bfloat16"):
            raise InputError(f"dtype={self.dtype!r} is unknown: use float32, float16 or bfloat16")

    def with_stills(self, shard: int) -> bool:
        """Whether a file holds them; they are spread evenly."""
        return int((shard + 1) * self.stills) > int(shard * self.stills)

    @property
    def shards(self) -> int:
        """Files."""
        return -(-self.count // self.per_shard)


def encode_source(
    source: Source,
    vae: HeliosVAE,
    geometry: Geometry,
    settings: EncodeSettings,
    folder: Path,
    *,
    part: tuple[int, int] = (0, 1),
    show: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Encode what is not there yet.

    Args:
        source: of clips; all must have one size and length.
        part: (index, of) when several processes share the work.
        show: told (clips done, clips in all) after every file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(part[0], settings.shards, part[1]):
        path = _path(folder, shard)
        if not path.is_file():
            first = shard * settings.per_shard
            last = min(first + settings.per_shard, settings.count)
            _write_shard(
                path,
                [
                    _encode(source(i), i, vae, geometry, settings, settings.with_stills(shard))
                    for i in range(first, last)
                ],
            )
        show(min((shard + 1) * settings.per_shard, settings.count), settings.count)


def all_encoded(folder: Path, settings: EncodeSettings) -> bool:
    """Whether every file is there."""
    return all(_path(folder, shard).is_file() for shard in range(settings.shards))


class EncodedClips:
    """The clips of a folder as a data set, read through memory maps.

    Args:
        folder: of :func:`encode_source`.
    Raises: InputError when there are none.
    """

    def __init__(self, folder: Path):
        self.files = sorted(folder.glob("shard-*.safetensors"))
        if not self.files:
            raise InputError(f"{folder} holds no encoded clips: encode them with the VAE first")
        self._open = [safe_open(file, framework="pt") for file in self.files]
        self._texts = [json.loads(file.metadata()["clips"]) for file in self._open]
        self._places = [(shard, row) for shard, texts in enumerate(self._texts) for row in range(len(texts))]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> LatentClip:
        shard, row = self._places[index]
        file, text = self._open[shard], self._texts[shard][row]
        script = text["script"] and tuple(map(tuple, text["script"]))
        stills = file.get_slice("stills")[row] if text["stills"] else None
        return LatentClip(
            latents_CTHW=file.get_slice("latents")[row],
            captions=tuple(text["captions"]),
            stills_TCHW=stills,
            script=script,
        )

    def buckets(self) -> list[object]:
        """All clips have one size."""
        return [0] * len(self._places)

    def captions(self) -> Iterator[str]:
        """Every wording of every clip; latents are not read."""
        for text in (text for texts in self._texts for text in texts):
            yield from text["captions"]
            for words in text["script"] or ():
                yield from words


def _encode(
    clip: DrawnClip, index: int, vae: HeliosVAE, geometry: Geometry, settings: EncodeSettings, with_stills: bool
) -> tuple[Tensor, Tensor | None, dict]:
    frames, per_chunk = clip.frames_FHWC, geometry.chunk_frames
    chunks = len(frames) // per_chunk
    if len(frames) != chunks * per_chunk or not chunks:
        raise InputError(f"a drawn clip has {len(frames)} frames: draw whole chunks of {per_chunk}")
    noise, dtype = AddressedNoise((settings.seed * 1_000_003 + index,)), getattr(torch, settings.dtype)
    windows = frames.split(per_chunk)
    latents = [
        _posterior(vae, w, noise, Address(Purpose.HISTORY_POSTERIOR, k), geometry) for k, w in enumerate(windows)
    ]
    stills = None
    if with_stills and chunks > 1:
        stills = torch.cat([_still(vae, w[-1:], noise, k, geometry) for k, w in enumerate(windows[:-1])]).to(dtype)
    words = {"captions": list(clip.captions), "script": clip.script and [list(w) for w in clip.script]}
    return torch.cat(latents, dim=1).to(dtype), stills, words | {"stills": stills is not None}


def _still(vae: HeliosVAE, frame_1HWC: Tensor, noise: AddressedNoise, chunk: int, geometry: Geometry) -> Tensor:
    """[2, C, H, W]: the picture alone, and the last latent of the picture held for a chunk."""
    anchor = _posterior(vae, frame_1HWC, noise, Address(Purpose.ANCHOR_POSTERIOR, chunk), geometry)
    held = frame_1HWC.expand(geometry.chunk_frames, -1, -1, -1)
    newest = _posterior(vae, held, noise, Address(Purpose.HISTORY_POSTERIOR, chunk, 1), geometry)
    return torch.stack([anchor[:, 0], newest[:, -1]])


def _posterior(vae: HeliosVAE, frames_FHWC: Tensor, noise: AddressedNoise, address: Address, geometry: Geometry):
    """[C, T, H, W] of one window, a sample of its posterior."""
    count, height, width = frames_FHWC.shape[:3]
    rows, columns = geometry.latent_size(height, width)
    shape = (1, geometry.latent_channels, geometry.latent_frames(count), rows, columns)
    pixels = to_signed(frames_FHWC[None]).to(vae.device)
    return vae.encode(pixels, noise.normal(address, shape).to(vae.device))[0].cpu()


def _write_shard(path: Path, clips: list[tuple[Tensor, Tensor | None, dict]]) -> None:
    tensors = {"latents": torch.stack([latents for latents, _, _ in clips])}
    if clips[0][1] is not None:
        tensors["stills"] = torch.stack([stills for _, stills, _ in clips])
    unfinished = path.with_suffix(".unfinished")
    save_file(tensors, unfinished, metadata={"clips": json.dumps([words for _, _, words in clips])})
    os.replace(unfinished, path)


def _path(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}.safetensors"
