"""Which VAE, text encoder or transformer made something: latents and states of another one are noise to a model."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helios.checkpoints import CheckpointInfo
from helios.checkpoints.layout import TEXT_ENCODER, TOKENIZER, TRANSFORMER, VAE
from helios.checkpoints.tensor_files import TensorEntry

_SAMPLE_BYTES = 1024
_TOKENIZER_FILES = ("tokenizer.json", "spiece.model")
LATENT_PARTS = ("encoder", "quant_conv")  # modules of a VAE that latents depend on


@dataclass(frozen=True, kw_only=True)
class Identities:
    """16 hexadecimal digits each, which change with the configuration and, practically, with any weights.

    They do not depend on the transformer, nor on how tensors are spread over files; on their precision they do.
    """

    vae: str
    text_encoder: str


def identities(info: CheckpointInfo) -> Identities:
    """Identities of a checkpoint's VAE and text encoder (with its tokenizer); reads a few kilobytes per tensor."""
    vae, text = (_of(config, info.tensors[name]) for name, config in _parts(info))
    for name in _TOKENIZER_FILES:
        file = info.path / TOKENIZER / name
        if file.is_file():
            text.update(file.read_bytes())
    return Identities(vae=vae.hexdigest()[:16], text_encoder=text.hexdigest()[:16])


def latents_identity(info: CheckpointInfo) -> str:
    """16 digits of what latents depend on: the VAE's encoder and the latents' statistics. Its decoder may change."""
    entries = {name: entry for name, entry in info.tensors[VAE].items() if name.split(".")[0] in LATENT_PARTS}
    return _of(info.vae_config, entries).hexdigest()[:16]


def transformer_identity(info: CheckpointInfo) -> str:
    """16 digits of a checkpoint's transformer; reads a few kilobytes per tensor."""
    return _of(info.transformer_config, info.tensors[TRANSFORMER]).hexdigest()[:16]


def _parts(info: CheckpointInfo) -> list[tuple[str, Mapping[str, Any]]]:
    return [(VAE, info.vae_config), (TEXT_ENCODER, info.text_encoder_config)]


def _of(config: Mapping[str, Any], entries: Mapping[str, TensorEntry]) -> Any:
    settings = {key: value for key, value in config.items() if not key.startswith("_") and "version" not in key}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, entry in sorted(entries.items()):
        digest.update(f"{name} {entry.dtype} {entry.shape}".encode())
        digest.update(_sample(entry.file, entry.offset, entry.size))
    return digest


def _sample(file: Path, offset: int, size: int) -> bytes:
    """The first, the middle and the last kilobyte of a tensor."""
    parts = []
    with file.open("rb") as stream:
        for start in (0, size // 2, max(0, size - _SAMPLE_BYTES)):
            stream.seek(offset + start)
            parts.append(stream.read(min(_SAMPLE_BYTES, size - start)))
    return b"".join(parts)
