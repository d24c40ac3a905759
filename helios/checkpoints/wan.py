"""Wan2.1-T2V as the start of training: one tensor renamed, six added and initialised from the loaded ones.

Helios keeps the architecture of the bidirectional Wan2.1-T2V-14B and adds the patch embeddings of its history (paper
arXiv 2603.04379, section 3). The published training code initialised those inside the constructor, from random
weights, before Wan's were loaded; here they are initialised after.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from helios.checkpoints.export import save
from helios.checkpoints.layout import (
    MEMORY_PATCHES,
    TEXT_ENCODER,
    TOKENIZER,
    TRANSFORMER,
    VAE,
    WEIGHT_STEM,
    Variant,
    complete_transformer_config,
    published_scheduler,
    transformer_shapes,
)
from helios.checkpoints.load import load_entries, weightless
from helios.checkpoints.report import LoadReport, compare
from helios.checkpoints.tensor_files import TensorEntry, read_headers, read_json, weight_files
from helios.errors import InputError
from helios.schedulers.config import SchedulerConfig

RENAMED = {"scale_shift_table": "norm_out.scale_shift_table"}
ADDED = tuple(f"{patch}.{name}" for patch in MEMORY_PATCHES for name in ("weight", "bias"))
# Wan's own keys that say how its rotary table is stored, not what the weights are.
_NOT_OURS = {"rope_max_seq_len", "pos_embed_seq_len", "image_dim"}


@dataclass(frozen=True, kw_only=True)
class WanReport:
    """What became of Wan's tensors.

    Attributes:
        loaded: how many were taken over.
        renamed: Wan's name -> Helios' name.
        initialised: tensors that Wan does not have.
    """

    loaded: int
    renamed: Mapping[str, str]
    initialised: tuple[str, ...]


def load_wan_transformer(
    path: str | Path, device: torch.device | str, dtype: torch.dtype
) -> tuple[nn.Module, WanReport]:
    """A Helios transformer with the weights of a Wan2.1-T2V checkpoint in the Diffusers layout.

    Args:
        path: the checkpoint, or its ``transformer/`` folder.
        device, dtype: where the weights go; the float32 exceptions of Helios stay float32.
    Returns: the transformer in evaluation mode, history patches initialised, and a report.
    Raises: InputError when the files are not those of a text-to-video Wan 2.1, are damaged or do not fit.
    """
    from helios.models.transformer.model import HeliosTransformer3DModel
    from helios.models.transformer.precision import keeps_float32

    folder = _transformer_folder(Path(path))
    config = helios_config(read_json(folder / "config.json"))
    stored = read_headers(weight_files(folder, WEIGHT_STEM[TRANSFORMER]))
    entries: dict[str, TensorEntry] = {RENAMED.get(name, name): entry for name, entry in stored.items()}
    report = compare(transformer_shapes(config), {name: entry.shape for name, entry in entries.items()})
    _check_only_patches_missing(report, folder)
    with weightless():
        model = HeliosTransformer3DModel(**config)
    load_entries(model, entries, device, dtype, keep_float32=keeps_float32, strict=False)
    initialise_memory_patches(model)
    return model.eval(), WanReport(loaded=len(stored), renamed=RENAMED, initialised=report.missing)


def export_wan_start(path: str | Path, target: str | Path, *, overwrite: bool = False) -> WanReport:
    """Write a Base checkpoint to start training from: Wan's weights with history patches, Wan's VAE and text encoder.

    Args:
        path: a whole Wan2.1-T2V checkpoint in the Diffusers layout.
        target: directory to make.
        overwrite: replace a checkpoint of that name.
    Raises: InputError as :func:`load_wan_transformer` and :func:`helios.checkpoints.save`.
    """
    path = Path(path)
    model, report = load_wan_transformer(path, "cpu", torch.float32)
    save(
        target,
        variant=Variant.BASE,
        scheduler=SchedulerConfig.from_dict(published_scheduler(Variant.BASE)),
        transformer=model,
        vae=path / VAE,
        text_encoder=path / TEXT_ENCODER,
        tokenizer=path / TOKENIZER,
        overwrite=overwrite,
    )
    return report


@torch.no_grad()
def initialise_memory_patches(model: nn.Module) -> None:
    """Give the history patches the weights of ``patch_embedding``, tiled over their larger kernels and averaged.

    The kernel is repeated as a whole (index y of the large one is y mod 2 of the small one) and divided by the number
    of repetitions, so each token is the mean of the tokens that ``patch_embedding`` makes of the area it covers.
    Replaces the parameters, so the model may have been built without weights.
    """
    source = model.get_submodule("patch_embedding")
    kernel, bias = source.weight.detach().float(), source.bias.detach()
    for name, size in MEMORY_PATCHES.items():
        times = [large // small for large, small in zip(size, kernel.shape[2:], strict=True)]
        tiled = kernel.repeat(1, 1, *times) / (times[0] * times[1] * times[2])
        patch = model.get_submodule(name)
        patch.weight = nn.Parameter(tiled.to(source.weight.dtype))
        patch.bias = nn.Parameter(bias.clone())


def helios_config(wan: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the Helios transformer that a Wan transformer's weights fit.

    Raises: InputError for another model than a text-to-video Wan 2.1.
    """
    if wan.get("_class_name") != "WanTransformer3DModel":
        raise InputError(f"{wan.get('_class_name')} is not a Wan transformer: pass a Wan2.1-T2V Diffusers checkpoint")
    for key in ("image_dim", "added_kv_proj_dim"):
        if wan.get(key) is not None:
            raise InputError(f"this Wan checkpoint is made for image input ({key}={wan[key]}): pass a Wan2.1-T2V one")
    channels = (wan.get("in_channels", 16), wan.get("out_channels") or 16)
    if channels[0] != channels[1]:
        raise InputError(f"this Wan checkpoint takes {channels[0]} channels and gives {channels[1]}: pass a T2V one")
    given = {key: value for key, value in wan.items() if key not in _NOT_OURS}
    head = wan.get("attention_head_dim", 128)
    side = head // 6 * 2  # Wan gives each spatial axis two sixths of a head, rounded down to even, and time the rest
    return complete_transformer_config({**given, "rope_dim": [head - 2 * side, side, side]})


def _transformer_folder(path: Path) -> Path:
    if (path / TRANSFORMER / "config.json").is_file():
        return path / TRANSFORMER
    if (path / "config.json").is_file():
        return path
    raise InputError(f"{str(path)!r} is not a Wan checkpoint: it has no transformer/config.json")


def _check_only_patches_missing(report: LoadReport, folder: Path) -> None:
    wrong = LoadReport(
        total=report.total,
        missing=tuple(name for name in report.missing if name not in ADDED),
        unexpected=report.unexpected,
        misshapen=report.misshapen,
    )
    wrong.require_complete(folder)
