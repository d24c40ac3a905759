"""What the files of a Helios checkpoint are called, what they hold, and which variant they make.

A checkpoint is a directory in the Diffusers layout:

    model_index.json  scheduler/  text_encoder/  tokenizer/  transformer/  vae/

The names and shapes below are those of the released weights (Base, Mid, Distilled; paper arXiv 2603.04379), so a
tensor list can be checked, or memory planned, without building a model.
"""

from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from math import prod
from typing import Any

from helios.models.transformer.config import PATCH, TransformerConfig

Shape = tuple[int, ...]

MODEL_INDEX = "model_index.json"
TRANSFORMER, VAE, TEXT_ENCODER, TOKENIZER, SCHEDULER = "transformer", "vae", "text_encoder", "tokenizer", "scheduler"
COMPONENTS = (SCHEDULER, TEXT_ENCODER, TOKENIZER, TRANSFORMER, VAE)
SCHEDULER_CONFIG = "scheduler_config.json"
WEIGHT_STEM = {TRANSFORMER: "diffusion_pytorch_model", VAE: "diffusion_pytorch_model", TEXT_ENCODER: "model"}
DIFFUSERS_VERSION = "0.42.1"

# Kernel and stride of the history patch embeddings; `patch_short` has the kernel of the noisy chunk.
MEMORY_PATCHES: dict[str, Shape] = {"patch_short": (1, 2, 2), "patch_mid": (2, 4, 4), "patch_long": (4, 8, 8)}

# What Diffusers' AutoencoderKLWan assumes for keys absent from `vae/config.json`; the released file lacks the last six.
VAE_DEFAULTS: dict[str, Any] = {
    "base_dim": 96,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "temperal_downsample": [False, True, True],
    "attn_scales": [],
    "latents_mean": [
        *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
        *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
    ],
    "latents_std": [
        *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
        *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.916),
    ],
    "is_residual": False,
    "in_channels": 3,
    "out_channels": 3,
    "patch_size": None,
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 8,
}


class Variant(StrEnum):
    """Which of the three released models a checkpoint is; decided by its files alone."""

    BASE = "base"
    MID = "mid"
    DISTILLED = "distilled"

    @property
    def pipeline_class(self) -> str:
        """The pipeline class that Diffusers and the serving engines know this variant by."""
        return "HeliosPipeline" if self is Variant.BASE else "HeliosPyramidPipeline"

    @property
    def scheduler_class(self) -> str:
        """The scheduler class that Diffusers knows this variant's scheduler by."""
        return "HeliosDMDScheduler" if self is Variant.DISTILLED else "HeliosScheduler"


def complete_transformer_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """All 20 keys of ``transformer/config.json``, with the published defaults for those absent.

    Raises: InputError for values that no code of Helios implements.
    """
    checked = asdict(TransformerConfig.from_dict(dict(config)))
    return {key: list(value) if isinstance(value, tuple) else value for key, value in checked.items()}


def transformer_shapes(config: TransformerConfig | Mapping[str, Any]) -> dict[str, Shape]:
    """Name and shape of every tensor in ``transformer/``.

    The released configuration gives 1101 tensors and 14,312,427,584 numbers.

    Args:
        config: the content of ``transformer/config.json``; absent keys take the published defaults.
    """
    if not isinstance(config, TransformerConfig):
        config = TransformerConfig.from_dict(dict(config))
    shapes = _patch_shapes(config) | _condition_shapes(config)
    for index in range(config.num_layers):
        shapes |= {f"blocks.{index}.{name}": shape for name, shape in _block_shapes(config).items()}
    return shapes | _head_shapes(config)


def _patch_shapes(config: TransformerConfig) -> dict[str, Shape]:
    patches = {"patch_embedding": PATCH} | (MEMORY_PATCHES if config.has_multi_term_memory_patch else {})
    shapes: dict[str, Shape] = {}
    for name, kernel in patches.items():
        shapes |= {f"{name}.weight": (config.width, config.in_channels, *kernel), f"{name}.bias": (config.width,)}
    return shapes


def _condition_shapes(config: TransformerConfig) -> dict[str, Shape]:
    width, prefix = config.width, "condition_embedder"
    return {
        **_linear(f"{prefix}.time_embedder.linear_1", config.freq_dim, width),
        **_linear(f"{prefix}.time_embedder.linear_2", width, width),
        **_linear(f"{prefix}.time_proj", width, 6 * width),
        **_linear(f"{prefix}.text_embedder.linear_1", config.text_dim, width),
        **_linear(f"{prefix}.text_embedder.linear_2", width, width),
    }


def _block_shapes(config: TransformerConfig) -> dict[str, Shape]:
    width = config.width
    shapes: dict[str, Shape] = {"scale_shift_table": (1, 6, width)}
    for attention in ("attn1", "attn2"):
        shapes |= {f"{attention}.norm_q.weight": (width,), f"{attention}.norm_k.weight": (width,)}
        for linear in ("to_q", "to_k", "to_v", "to_out.0"):
            shapes |= _linear(f"{attention}.{linear}", width, width)
    if config.is_amplify_history:
        per_head = config.history_scale_mode == "per_head"
        shapes["attn1.history_key_scale"] = (config.num_attention_heads if per_head else 1,)
    if config.cross_attn_norm:
        shapes |= {"norm2.weight": (width,), "norm2.bias": (width,)}
    return {
        **shapes,
        **_linear("ffn.net.0.proj", width, config.ffn_dim),
        **_linear("ffn.net.2", config.ffn_dim, width),
    }


def _head_shapes(config: TransformerConfig) -> dict[str, Shape]:
    features = config.latent_channels_out * prod(PATCH)
    return {"norm_out.scale_shift_table": (1, 2, config.width), **_linear("proj_out", config.width, features)}


def _linear(name: str, inputs: int, outputs: int) -> dict[str, Shape]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def published_model_index(variant: Variant) -> dict[str, Any]:
    """``model_index.json`` of a released checkpoint."""
    index: dict[str, Any] = {"_class_name": variant.pipeline_class, "_diffusers_version": DIFFUSERS_VERSION}
    if variant is not Variant.BASE:
        index |= {"is_cfg_zero_star": variant is Variant.MID, "is_distilled": variant is Variant.DISTILLED}
    return index | {
        "scheduler": ["diffusers", variant.scheduler_class],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "HeliosTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }


def published_scheduler(variant: Variant, *, gamma: float = 1 / 3) -> dict[str, Any]:
    """``scheduler_config.json`` of a released checkpoint.

    Args:
        variant: which release.
        gamma: correlation of the noise that is added between pyramid levels; 1/3 in the releases.
    """
    pyramid = variant is not Variant.BASE
    config: dict[str, Any] = {
        "_class_name": variant.scheduler_class,
        "_diffusers_version": DIFFUSERS_VERSION,
        "gamma": gamma,
        "num_train_timesteps": 1000,
        "prediction_type": "flow_prediction",
        "shift": 1.0,
        "stage_range": [0, 1 / 3, 2 / 3, 1] if pyramid else [0, 1],
        "stages": 3 if pyramid else 1,
        "time_shift_type": "linear" if variant is Variant.DISTILLED else "exponential",
        "use_dynamic_shifting": True,
        "use_flow_sigmas": True,
    }
    return config | ({"scheduler_type": "dmd"} if variant is Variant.DISTILLED else _multistep_settings())


def _multistep_settings() -> dict[str, Any]:
    return {
        "scheduler_type": "unipc",
        "solver_order": 2,
        "solver_type": "bh2",
        "solver_p": None,
        "predict_x0": True,
        "lower_order_final": True,
        "disable_corrector": [],
        "thresholding": False,
    }
