"""What a checkpoint is, read from its JSON files and tensor headers alone; contradictions are refused here.

The files decide the variant, never a flag: the pipeline class, the two marks in ``model_index.json`` and the scheduler
must agree, and the sizes of transformer, VAE and text encoder must fit each other.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from helios.checkpoints.layout import (
    COMPONENTS,
    MODEL_INDEX,
    SCHEDULER,
    SCHEDULER_CONFIG,
    TEXT_ENCODER,
    TOKENIZER,
    TRANSFORMER,
    VAE,
    VAE_DEFAULTS,
    WEIGHT_STEM,
    Variant,
    complete_transformer_config,
    transformer_shapes,
)
from helios.checkpoints.presets import Preset, preset_for, read_own_settings
from helios.checkpoints.report import compare
from helios.checkpoints.tensor_files import TensorEntry, read_headers, read_json, weight_files
from helios.errors import InputError
from helios.models.text_encoder import prompt_tokens
from helios.models.vae.vae import geometry_of
from helios.schedulers.config import SchedulerConfig
from helios.shapes import Geometry

_PIPELINES = {variant.pipeline_class for variant in Variant}
_CLASSES = {
    TRANSFORMER: "HeliosTransformer3DModel",
    VAE: "AutoencoderKLWan",
    TEXT_ENCODER: "UMT5EncoderModel",
}
_SAMPLE_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """A checkpoint that has been checked and can be loaded.

    Attributes:
        path: its directory.
        variant: Base, Mid or Distilled.
        scheduler: solver, levels and shift.
        transformer_config: all 20 keys.
        vae_config: with the defaults for absent keys.
        text_encoder_config: as stored.
        text_tokens: what prompts are padded to.
        preset: recommended size, length, steps and guidance.
        random_weights: nothing was trained (a checkpoint for tests and demonstrations); videos are noise.
        geometry: pixels to latents to tokens.
        tensors: per component with weights, where every tensor lies.
        identity: 16 hexadecimal digits that change with any configuration and, practically, with any weights.
    """

    path: Path
    variant: Variant
    scheduler: SchedulerConfig
    transformer_config: dict[str, Any]
    vae_config: dict[str, Any]
    text_encoder_config: dict[str, Any]
    text_tokens: int
    preset: Preset
    random_weights: bool
    geometry: Geometry
    tensors: Mapping[str, Mapping[str, TensorEntry]]
    identity: str

    def parameters(self, component: str) -> int:
        """How many numbers a component (``"transformer"``, ``"vae"``, ``"text_encoder"``) stores."""
        return sum(entry.size // entry.dtype.itemsize for entry in self.tensors[component].values())

    def stored_bytes(self, component: str) -> int:
        """Size of a component's weights on disk, in bytes."""
        return sum(entry.size for entry in self.tensors[component].values())


def inspect(path: str | Path) -> CheckpointInfo:
    """Read and check a checkpoint directory without reading its weights.

    Raises: InputError, one sentence that names the file or value, when the directory is not a checkpoint, lacks a
        part, has a truncated or damaged weight file, or contradicts itself.
    """
    path = Path(path)
    index = _read_index(path)
    scheduler_config = read_json(path / SCHEDULER / SCHEDULER_CONFIG)
    _check_scheduler_class(index, scheduler_config)
    scheduler = SchedulerConfig.from_dict(scheduler_config)
    variant = variant_of(index, scheduler)
    configs = {component: _read_config(path, component) for component in _CLASSES}
    transformer_config = complete_transformer_config(configs[TRANSFORMER])
    vae_config = VAE_DEFAULTS | configs[VAE]
    _check_widths(transformer_config, vae_config, configs[TEXT_ENCODER])
    text_tokens = _read_text_tokens(path / TOKENIZER)
    tensors = {name: read_headers(weight_files(path / name, WEIGHT_STEM[name])) for name in _CLASSES}
    _check_transformer_tensors(path, tensors[TRANSFORMER], transformer_config)
    published = preset_for(variant, levels=scheduler.levels, zero_star=bool(index.get("is_cfg_zero_star")))
    own = read_own_settings(path)
    return CheckpointInfo(
        path=path,
        variant=variant,
        scheduler=scheduler,
        transformer_config=transformer_config,
        vae_config=vae_config,
        text_encoder_config=configs[TEXT_ENCODER],
        text_tokens=text_tokens,
        preset=own.applied_to(published),
        random_weights=own.random_weights,
        geometry=_geometry(scheduler, vae_config),
        tensors=tensors,
        identity=_identity([index, scheduler_config, *configs.values()], tensors),
    )


def variant_of(index: Mapping[str, Any], scheduler: SchedulerConfig) -> Variant:
    """The variant that ``model_index.json`` and the scheduler agree on.

    Raises: InputError when they contradict each other.
    """
    pipeline = index.get("_class_name")
    marks = {name: bool(index.get(name, False)) for name in ("is_distilled", "is_cfg_zero_star")}
    if pipeline == Variant.BASE.pipeline_class:
        _check_base(marks, scheduler)
        return Variant.BASE
    if scheduler.levels == 1:
        raise InputError(
            "the checkpoint contradicts itself: HeliosPyramidPipeline needs a scheduler with several stages, this one "
            "has 1; take the scheduler of the Mid or Distilled model, or name HeliosPipeline in model_index.json"
        )
    if all(marks.values()):
        raise InputError(
            "the checkpoint contradicts itself: is_distilled and is_cfg_zero_star are both true in model_index.json, "
            "but a distilled model runs without guidance; set is_cfg_zero_star to false"
        )
    distilled = scheduler.solver == "distilled"
    if distilled != marks["is_distilled"]:
        said = "true" if marks["is_distilled"] else "false"
        raise InputError(
            f"the checkpoint contradicts itself: is_distilled is {said} in model_index.json but its scheduler runs the "
            f"{scheduler.solver} solver; take scheduler/ and model_index.json from the same model"
        )
    return Variant.DISTILLED if distilled else Variant.MID


def _check_base(marks: Mapping[str, bool], scheduler: SchedulerConfig) -> None:
    for name, value in marks.items():
        if value:
            raise InputError(
                f"the checkpoint contradicts itself: {name} is true in model_index.json but HeliosPipeline is the Base "
                "model; name HeliosPyramidPipeline there or remove the mark"
            )
    if scheduler.levels > 1:
        raise InputError(
            f"the checkpoint contradicts itself: HeliosPipeline has one resolution but its scheduler has "
            f"{scheduler.levels} stages; name HeliosPyramidPipeline in model_index.json or take the scheduler of Base"
        )
    if scheduler.solver == "distilled":
        raise InputError(
            "the checkpoint contradicts itself: HeliosPipeline is the Base model but its scheduler runs the distilled "
            "solver; take scheduler/ and model_index.json from the same model"
        )


def _read_index(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise InputError(f"{str(path)!r} is not a directory: pass a checkpoint in the Diffusers layout or a hub id")
    if not (path / MODEL_INDEX).is_file():
        raise InputError(f"{str(path)!r} is not a Helios checkpoint: it has no {MODEL_INDEX}")
    index = read_json(path / MODEL_INDEX)
    pipeline = index.get("_class_name")
    if pipeline not in _PIPELINES:
        raise InputError(
            f"{str(path)!r} is a checkpoint of {pipeline}, not of Helios: "
            f"its {MODEL_INDEX} must name {' or '.join(sorted(_PIPELINES))}"
        )
    for component in COMPONENTS:
        if not (path / component).is_dir():
            raise InputError(
                f"{str(path)!r} has no folder {component!r}: the checkpoint is incomplete, download it again"
            )
    return index


def _check_scheduler_class(index: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    named = (index.get(SCHEDULER) or [None, None])[-1]
    if named is not None and named != config.get("_class_name"):
        raise InputError(
            f"the checkpoint contradicts itself: {MODEL_INDEX} names the scheduler {named} but {SCHEDULER_CONFIG} is "
            f"of {config.get('_class_name')}; take both from the same model"
        )


def _read_config(path: Path, component: str) -> dict[str, Any]:
    config = read_json(path / component / "config.json")
    if component == TEXT_ENCODER:
        found = "UMT5EncoderModel" if config.get("model_type") == "umt5" else config.get("model_type")
    else:
        found = config.get("_class_name")
    if found != _CLASSES[component]:
        raise InputError(
            f"{str(path / component)!r} holds {found}, not {_CLASSES[component]}: this is not a Helios checkpoint"
        )
    return config


def _check_widths(transformer: Mapping[str, Any], vae: Mapping[str, Any], text: Mapping[str, Any]) -> None:
    for key in ("in_channels", "out_channels"):
        if transformer[key] != vae["z_dim"]:
            raise InputError(
                f"the checkpoint contradicts itself: the transformer has {key}={transformer[key]} but the VAE has "
                f"z_dim={vae['z_dim']}; take both from the same model"
            )
    if transformer["text_dim"] != text.get("d_model"):
        raise InputError(
            f"the checkpoint contradicts itself: the transformer has text_dim={transformer['text_dim']} but the text "
            f"encoder has d_model={text.get('d_model')}; take both from the same model"
        )
    if not transformer["has_multi_term_memory_patch"]:
        raise InputError(
            "the transformer has no history patches (has_multi_term_memory_patch=false): it makes no video"
        )


def _read_text_tokens(folder: Path) -> int:
    if not any((folder / name).is_file() for name in ("tokenizer.json", "spiece.model")):
        raise InputError(f"{str(folder)!r} has neither tokenizer.json nor spiece.model: download the checkpoint again")
    settings = folder / "tokenizer_config.json"
    limit = read_json(settings).get("model_max_length") if settings.is_file() else None
    if limit is None:
        return prompt_tokens(inf)
    if not isinstance(limit, int | float) or limit < 1:
        raise InputError(f"{str(settings)!r} has model_max_length={limit!r}: it must be 1 or more; download it again")
    return prompt_tokens(limit)


def _check_transformer_tensors(path: Path, stored: Mapping[str, TensorEntry], config: Mapping[str, Any]) -> None:
    shapes = {name: entry.shape for name, entry in stored.items()}
    compare(transformer_shapes(config), shapes, ignored=("norm_added_q",)).require_complete(path / TRANSFORMER)


def _geometry(scheduler: SchedulerConfig, vae_config: Mapping[str, Any]) -> Geometry:
    vae = geometry_of(vae_config)
    return Geometry(
        levels=scheduler.levels, spatial=vae.spatial, temporal=vae.temporal, latent_channels=vae.latent_channels
    )


def _identity(configs: list[dict[str, Any]], tensors: Mapping[str, Mapping[str, TensorEntry]]) -> str:
    """A hash of configurations, headers and a few kilobytes of each weight file; reading all weights takes minutes."""
    digest = hashlib.sha256()
    for config in configs:
        settings = {key: value for key, value in config.items() if key != "_diffusers_version"}
        digest.update(json.dumps(settings, sort_keys=True).encode())
    for entries in tensors.values():
        for name, entry in sorted(entries.items()):
            digest.update(f"{name} {entry.dtype} {entry.shape}".encode())
        for file in sorted({entry.file for entry in entries.values()}):
            digest.update(_sample(file))
    return digest.hexdigest()[:16]


def _sample(file: Path) -> bytes:
    size = file.stat().st_size
    parts = []
    with file.open("rb") as stream:
        for start in (size // 4, size // 2, 3 * size // 4, size - _SAMPLE_BYTES):
            stream.seek(max(0, start))
            parts.append(stream.read(_SAMPLE_BYTES))
    return b"".join(parts)
