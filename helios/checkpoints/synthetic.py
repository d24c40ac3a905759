"""Models without files: the released sizes or small ones, random weights made on the device, no text encoder.

They do the work of a real model and serve to measure speed and to plan memory before anything is downloaded; their
videos are noise. B batch, S text tokens, E width of the text encoder.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from helios.checkpoints.info import CheckpointInfo
from helios.checkpoints.layout import (
    TEXT_ENCODER,
    TRANSFORMER,
    VAE,
    VAE_DEFAULTS,
    Shape,
    Variant,
    complete_transformer_config,
    published_scheduler,
    transformer_shapes,
)
from helios.checkpoints.load import weightless
from helios.checkpoints.presets import OwnSettings, preset_for
from helios.checkpoints.random import PRESETS, distribution, text_encoder_shapes
from helios.checkpoints.tensor_files import TensorEntry
from helios.errors import InputError
from helios.models.text_encoder import prompt_tokens
from helios.schedulers.config import SchedulerConfig
from helios.shapes import Geometry

_RELEASED_TEXT_ENCODER = {
    "model_type": "umt5",
    "d_model": 4096,
    "d_ff": 10240,
    "d_kv": 64,
    "num_heads": 64,
    "num_layers": 24,
    "relative_attention_num_buckets": 32,
    "vocab_size": 256384,
}
_SMALL_VAE = VAE_DEFAULTS | {"base_dim": 8, "dim_mult": [1, 2, 2, 2], "num_res_blocks": 1}
_MARK = "-random"
_PROMPT_TOKENS = 40


@dataclass(frozen=True, kw_only=True)
class SyntheticInfo(CheckpointInfo):
    """Describes a model without files; load it with the functions of this module."""


@dataclass(frozen=True, kw_only=True)
class _Size:
    """Configurations of one size."""

    transformer: dict[str, Any]
    vae: dict[str, Any]
    text_encoder: dict[str, Any]
    own: OwnSettings


def _small(name: str) -> _Size:
    preset = PRESETS[name]
    text = _RELEASED_TEXT_ENCODER | {
        "d_model": preset.text_dim,
        "d_ff": 2 * preset.text_dim,
        "d_kv": preset.text_dim // 4,
        "num_heads": 4,
        "num_layers": 2,
        "relative_attention_num_buckets": 8,
        "vocab_size": 200,
    }
    return _Size(transformer=preset.transformer_config(), vae=_SMALL_VAE, text_encoder=text, own=preset.own)


_SIZES: dict[str, Callable[[], _Size]] = {
    "tiny": lambda: _small("tiny"),
    "small": lambda: _small("small"),
    "14b": lambda: _Size(
        transformer=complete_transformer_config({}),
        vae=dict(VAE_DEFAULTS),
        text_encoder=_RELEASED_TEXT_ENCODER,
        own=OwnSettings(random_weights=True),
    ),
}


def is_synthetic(name: str) -> bool:
    """Whether a model's name means one without files: ``14b-random``, ``small-random-base``, ..."""
    return _MARK in name and not Path(name).exists()


def synthetic_info(name: str) -> SyntheticInfo:
    """What :func:`helios.checkpoints.inspect` would say of a model that has no files.

    Args:
        name: ``SIZE-random`` or ``SIZE-random-VARIANT``; sizes 14b, small and tiny; Distilled if no variant is named.
    Raises: InputError for another name.
    """
    size, _, variant = name.partition(_MARK)
    variant = variant.removeprefix("-") or Variant.DISTILLED.value
    if size not in _SIZES or variant not in {known.value for known in Variant}:
        sizes, variants = " or ".join(_SIZES), ", ".join(known.value for known in Variant)
        raise InputError(f"model={name!r} is unknown: SIZE-random or SIZE-random-VARIANT, of {sizes} and {variants}")
    return _info(name, _SIZES[size](), Variant(variant))


def _info(name: str, size: _Size, variant: Variant) -> SyntheticInfo:
    scheduler = SchedulerConfig.from_dict(published_scheduler(variant))
    shapes = {
        TRANSFORMER: transformer_shapes(size.transformer),
        VAE: _vae_shapes(size.vae),
        TEXT_ENCODER: text_encoder_shapes(size.text_encoder),
    }
    published = preset_for(variant, levels=scheduler.levels, zero_star=variant is Variant.MID)
    return SyntheticInfo(
        path=Path(name),
        variant=variant,
        scheduler=scheduler,
        transformer_config=size.transformer,
        vae_config=size.vae,
        text_encoder_config=size.text_encoder,
        text_tokens=prompt_tokens(inf),
        preset=size.own.applied_to(published),
        random_weights=True,
        geometry=Geometry(levels=scheduler.levels),
        tensors={component: _entries(found) for component, found in shapes.items()},
        identity=name,
    )


def _entries(shapes: dict[str, Shape]) -> dict[str, TensorEntry]:
    """As in a float32 file that nobody can open."""
    return {
        name: TensorEntry(
            file=Path(),
            name=name,
            dtype=torch.float32,
            shape=shape,
            offset=0,
            size=torch.float32.itemsize * prod(shape),
        )
        for name, shape in shapes.items()
    }


def _vae_shapes(config: dict[str, Any]) -> dict[str, Shape]:
    return {name: tuple(value.shape) for name, value in _empty_vae(config).state_dict().items()}


def _empty_vae(config: dict[str, Any]) -> nn.Module:
    from diffusers import AutoencoderKLWan

    with weightless():
        return AutoencoderKLWan.from_config(config)


def load_transformer(info: CheckpointInfo, device: torch.device | str, dtype: torch.dtype) -> nn.Module:
    """The transformer of a synthetic model; its float32 exceptions are float32. Normal numbers, not zeros, which
    accelerators multiply faster.
    """
    from helios.models.transformer.model import HeliosTransformer3DModel
    from helios.models.transformer.precision import keeps_float32

    with weightless():
        model = HeliosTransformer3DModel(**info.transformer_config)
    return _fill(model, device, lambda name: torch.float32 if keeps_float32(name) else dtype)


def load_rounded_transformer(
    info: CheckpointInfo, device: torch.device | str, dtype: torch.dtype
) -> tuple[nn.Module, float]:
    """As :func:`helios.checkpoints.load.load_rounded_transformer`; the exact weights are made first, all of them."""
    from helios.models.transformer.rounding import Rounding

    model = load_transformer(info, device, dtype)
    rounding = Rounding(model)
    rounding.take_all()
    return model, rounding.relative_error


def load_vae(info: CheckpointInfo, device: torch.device | str, dtype: torch.dtype = torch.float32):
    """The VAE of a synthetic model, as :class:`helios.models.vae.HeliosVAE`."""
    from helios.models.vae import HeliosVAE

    return HeliosVAE(_fill(_empty_vae(info.vae_config), device, lambda name: dtype))


def load_prompt_encoder(info: CheckpointInfo, device: torch.device | str, dtype: torch.dtype) -> "SyntheticPrompts":
    """What stands for tokenizer and text encoder."""
    return SyntheticPrompts(info.transformer_config["text_dim"], device, dtype, max_tokens=info.text_tokens)


def _fill(model: nn.Module, device: torch.device | str, dtype_of: Callable[[str], torch.dtype]) -> nn.Module:
    device, state = torch.device(device), {}
    generator = None if device.type == "meta" else torch.Generator(device).manual_seed(0)
    for name, value in model.state_dict().items():
        centre, spread = distribution(name, tuple(value.shape))
        state[name] = torch.empty(value.shape, dtype=dtype_of(name), device=device).normal_(
            centre, spread, generator=generator
        )
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


class SyntheticPrompts:
    """Stands where a :class:`helios.models.text_encoder.PromptEncoder` does: random states, the same for a prompt.

    Args:
        width: E.
        max_tokens: S; the states beyond a short prompt's length are zeros, as behind a real text encoder.
    """

    loaded = False

    def __init__(self, width: int, device: torch.device | str, dtype: torch.dtype, *, max_tokens: int) -> None:
        self.width, self.device, self.dtype, self.max_tokens = width, device, dtype, max_tokens

    def check(self, prompt: str, *, allow_empty: bool = False) -> int:
        return _PROMPT_TOKENS

    def encode(self, prompts: Sequence[str]) -> Tensor:
        states_BSE = torch.zeros(len(prompts), self.max_tokens, self.width)
        for row_SE, prompt in zip(states_BSE, prompts):
            row_SE[:_PROMPT_TOKENS].normal_(generator=torch.Generator().manual_seed(zlib.crc32(prompt.encode())))
        return states_BSE.to(self.device, self.dtype)

    def release(self) -> None: ...

    def forget(self) -> None: ...
