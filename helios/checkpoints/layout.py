"""What the files of a Helios checkpoint are called, what they hold, and which variant they make.

A checkpoint is a directory in the Diffusers layout:

    model_index.json  scheduler/  text_encoder/  tokenizer/  transformer/  vae/

The names and shapes below are those of the released weights (Base, Mid, Distilled; paper arXiv 2603.04379), so a
tensor list can be checked, or memory planned, without building a model.
"""

from collections.abc import Mapping
from enum import StrEnum
from math import prod
from typing import Any

from helios.errors import InputError

Shape = tuple[int, ...]

MODEL_INDEX = "model_index.json"
TRANSFORMER, VAE, TEXT_ENCODER, TOKENIZER, SCHEDULER = "transformer", "vae", "text_encoder", "tokenizer", "scheduler"
COMPONENTS = (SCHEDULER, TEXT_ENCODER, TOKENIZER, TRANSFORMER, VAE)
SCHEDULER_CONFIG = "scheduler_config.json"
WEIGHT_STEM = {TRANSFORMER: "diffusion_pytorch_model", VAE: "diffusion_pytorch_model", TEXT_ENCODER: "model"}
DIFFUSERS_VERSION = "0.42.1"

# The constructor defaults of the published class, which are the values of the released 14B models.
TRANSFORMER_DEFAULTS: dict[str, Any] = {
    "patch_size": [1, 2, 2],
    "num_attention_heads": 40,
    "attention_head_dim": 128,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "ffn_dim": 13824,
    "num_layers": 40,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "added_kv_proj_dim": None,
    "rope_dim": [44, 42, 42],
    "rope_theta": 10000.0,
    "guidance_cross_attn": True,
    "zero_history_timestep": True,
    "has_multi_term_memory_patch": True,
    "is_amplify_history": False,
    "history_scale_mode": "per_head",
}

# Kernel and stride of the history patch embeddings; `patch_short` has the kernel of the noisy chunk.
MEMORY_PATCHES: dict[str, Shape] = {"patch_short": (1, 2, 2), "patch_mid": (2, 4, 4), "patch_long": (4, 8, 8)}

# A parameter with one of these names among the dot-separated parts of its key is float32 whatever the model's dtype.
FLOAT32_PARTS = frozenset({"time_embedder", "scale_shift_table", "norm1", "norm2", "norm3", "history_key_scale"})


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


def stays_float32(key: str) -> bool:
    """Whether the transformer parameter of this name keeps float32 when the model is loaded in half precision."""
    return not FLOAT32_PARTS.isdisjoint(key.split("."))


def complete_transformer_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """All 20 keys, with the published defaults for those absent; entries that start with an underscore are dropped.

    Raises: InputError for values that no code of Helios implements.
    """
    given = {key: value for key, value in config.items() if not key.startswith("_")}
    full = {**TRANSFORMER_DEFAULTS, **given}
    full["out_channels"] = full["out_channels"] or full["in_channels"]
    _check_transformer_config(full)
    return full


def _check_transformer_config(config: Mapping[str, Any]) -> None:
    unknown = sorted(set(config) - set(TRANSFORMER_DEFAULTS))
    if unknown:
        raise InputError(
            f"the transformer configuration has the unknown key {unknown[0]!r}: remove it from config.json"
        )
    if tuple(config["patch_size"]) != (1, 2, 2):
        raise InputError(f"patch_size={list(config['patch_size'])} is not supported: Helios transformers use [1, 2, 2]")
    if config["added_kv_proj_dim"] is not None:
        raise InputError(f"added_kv_proj_dim={config['added_kv_proj_dim']} has no effect in Helios: set it to null")
    if config["history_scale_mode"] not in ("per_head", "scalar"):
        raise InputError(f"history_scale_mode={config['history_scale_mode']!r} is unknown: use 'per_head' or 'scalar'")
    head, rope = config["attention_head_dim"], list(config["rope_dim"])
    if len(rope) != 3 or sum(rope) != head or any(width % 2 for width in rope):
        raise InputError(
            f"rope_dim={rope} does not fit attention_head_dim={head}: use three even widths that sum to it"
        )
    if config["freq_dim"] % 2:
        raise InputError(f"freq_dim={config['freq_dim']} is odd: the time embedding needs an even width")


def transformer_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Name and shape of every tensor in ``transformer/``, in the order of the model's state dict.

    The released configuration gives 1101 tensors and 14,312,427,584 numbers.

    Args:
        config: the content of ``transformer/config.json``; absent keys take the published defaults.
    """
    config = complete_transformer_config(config)
    shapes = _patch_shapes(config) | _condition_shapes(config)
    for index in range(config["num_layers"]):
        shapes |= {f"blocks.{index}.{name}": shape for name, shape in _block_shapes(config).items()}
    return shapes | _head_shapes(config)


def transformer_width(config: Mapping[str, Any]) -> int:
    """Model width: heads times head width (5120 in the released models)."""
    return config["num_attention_heads"] * config["attention_head_dim"]


def _patch_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    patches = {"patch_embedding": tuple(config["patch_size"])}
    if config["has_multi_term_memory_patch"]:
        patches |= MEMORY_PATCHES
    width, channels = transformer_width(config), config["in_channels"]
    shapes = {}
    for name, kernel in patches.items():
        shapes |= {f"{name}.weight": (width, channels, *kernel), f"{name}.bias": (width,)}
    return shapes


def _condition_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    width, prefix = transformer_width(config), "condition_embedder"
    return {
        **_linear(f"{prefix}.time_embedder.linear_1", config["freq_dim"], width),
        **_linear(f"{prefix}.time_embedder.linear_2", width, width),
        **_linear(f"{prefix}.time_proj", width, 6 * width),
        **_linear(f"{prefix}.text_embedder.linear_1", config["text_dim"], width),
        **_linear(f"{prefix}.text_embedder.linear_2", width, width),
    }


def _block_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    width = transformer_width(config)
    shapes: dict[str, Shape] = {"scale_shift_table": (1, 6, width)}
    for attention in ("attn1", "attn2"):
        shapes |= {f"{attention}.norm_q.weight": (width,), f"{attention}.norm_k.weight": (width,)}
        for linear in ("to_q", "to_k", "to_v", "to_out.0"):
            shapes |= _linear(f"{attention}.{linear}", width, width)
    if config["is_amplify_history"]:
        heads = config["num_attention_heads"] if config["history_scale_mode"] == "per_head" else 1
        shapes["attn1.history_key_scale"] = (heads,)
    if config["cross_attn_norm"]:
        shapes |= {"norm2.weight": (width,), "norm2.bias": (width,)}
    return {
        **shapes,
        **_linear("ffn.net.0.proj", width, config["ffn_dim"]),
        **_linear("ffn.net.2", config["ffn_dim"], width),
    }


def _head_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    width = transformer_width(config)
    features = config["out_channels"] * prod(config["patch_size"])
    return {"norm_out.scale_shift_table": (1, 2, width), **_linear("proj_out", width, features)}


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
