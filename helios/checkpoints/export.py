"""Writing checkpoints that Diffusers and the serving engines load: whole or not at all.

What others rely on: Diffusers' class and tensor names with all 20 configuration keys; ``scheduler_type`` "dmd" for
Distilled (one engine tells distilled models by it); ``shared.weight`` and ``tie_word_embeddings: true`` in the text
encoder (with false, as released, one engine makes grey videos); folders that were not trained copied byte for byte
(saving them anew with newer libraries changes class names inside).
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from torch import Tensor, nn

from helios.checkpoints.info import inspect, variant_of
from helios.checkpoints.layout import (
    DIFFUSERS_VERSION,
    MODEL_INDEX,
    SCHEDULER,
    SCHEDULER_CONFIG,
    TEXT_ENCODER,
    TOKENIZER,
    TRANSFORMER,
    VAE,
    WEIGHT_STEM,
    Variant,
    complete_transformer_config,
    published_model_index,
    transformer_shapes,
)
from helios.checkpoints.presets import OwnSettings, write_own_settings
from helios.checkpoints.report import compare
from helios.checkpoints.tensor_files import MAX_SHARD_BYTES, read_json, write_json, write_tensors
from helios.errors import InputError
from helios.schedulers.config import SchedulerConfig


def save(
    path: str | Path,
    *,
    variant: Variant | str,
    scheduler: SchedulerConfig,
    transformer: nn.Module | str | Path,
    vae: Any,
    text_encoder: str | Path,
    tokenizer: str | Path,
    own: OwnSettings = OwnSettings(),
    max_shard_bytes: int = MAX_SHARD_BYTES,
    overwrite: bool = False,
) -> Path:
    """Write a whole checkpoint. It appears under its name when it is complete and has been inspected, not before.

    Args:
        path: directory to make.
        variant: which model it is.
        scheduler: its schedule; must agree with the variant.
        transformer: a Helios transformer, written in the precision it has; or a ``transformer/`` folder.
        vae: a HeliosVAE, an AutoencoderKLWan, or a ``vae/`` folder.
        text_encoder, tokenizer: folders of another checkpoint.
        own: trained size and length, where they are not the released ones.
        max_shard_bytes: weights beyond this are sharded with an index.
        overwrite: replace a checkpoint of that name, once the new one is complete.
    Returns: the directory.
    Raises: InputError when something is there already, a folder is missing, or the parts contradict each other.
    """
    path, variant = Path(path), Variant(variant)
    _check_target(path, overwrite)
    index = published_model_index(variant)
    variant_of(index, scheduler)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(mkdtemp(prefix=f".{path.name}.part-", dir=path.parent))
    try:
        draft.chmod(0o755)  # mkdtemp's directories are private
        write_json(
            draft / SCHEDULER / SCHEDULER_CONFIG, {**scheduler.to_dict(), "_diffusers_version": DIFFUSERS_VERSION}
        )
        _put_transformer(transformer, draft / TRANSFORMER, max_shard_bytes)
        _put_vae(vae, draft / VAE, max_shard_bytes)
        _copy(text_encoder, draft / TEXT_ENCODER)
        _tie_embeddings(draft / TEXT_ENCODER / "config.json")
        _copy(tokenizer, draft / TOKENIZER)
        write_own_settings(draft, own)
        write_json(draft / MODEL_INDEX, index)  # last: without it no loader takes the draft for a checkpoint
        inspect(draft)
        _publish(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return path


def save_transformer(folder: str | Path, transformer: nn.Module, *, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
    """Write ``transformer/`` alone: Diffusers' names, the precision of each tensor as it is.

    Raises: InputError when the module's tensors are not exactly those of a Helios transformer (a wrapper or an
        adapter that was not merged).
    """
    config = complete_transformer_config(transformer.config)
    state = transformer.state_dict()
    report = compare(transformer_shapes(config), {name: tuple(tensor.shape) for name, tensor in state.items()})
    if not report.complete:
        raise InputError(f"this transformer cannot be exported: {report.summary()}; merge adapters and unwrap it first")
    _write_component(Path(folder), "HeliosTransformer3DModel", config, state, WEIGHT_STEM[TRANSFORMER], max_shard_bytes)


def save_vae(folder: str | Path, vae: Any, *, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
    """Write ``vae/`` alone, from a HeliosVAE or an AutoencoderKLWan."""
    module = getattr(vae, "module", vae)
    config = {key: value for key, value in module.config.items() if not key.startswith("_")}
    _write_component(Path(folder), "AutoencoderKLWan", config, module.state_dict(), WEIGHT_STEM[VAE], max_shard_bytes)


def _write_component(
    folder: Path,
    class_name: str,
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    stem: str,
    max_shard_bytes: int,
) -> None:
    header = {"_class_name": class_name, "_diffusers_version": DIFFUSERS_VERSION}
    write_json(folder / "config.json", {**header, **config})
    write_tensors(folder, stem, state, max_shard_bytes=max_shard_bytes)


def _put_transformer(source: nn.Module | str | Path, folder: Path, max_shard_bytes: int) -> None:
    if isinstance(source, nn.Module):
        save_transformer(folder, source, max_shard_bytes=max_shard_bytes)
    else:
        _copy(source, folder)


def _put_vae(source: Any, folder: Path, max_shard_bytes: int) -> None:
    if isinstance(source, str | Path):
        _copy(source, folder)
    else:
        save_vae(folder, source, max_shard_bytes=max_shard_bytes)


def _copy(source: str | Path, target: Path) -> None:
    if not Path(source).is_dir():
        raise InputError(f"{str(source)!r} is not a directory: pass the {target.name!r} folder of a checkpoint")
    shutil.copytree(source, target)


def _tie_embeddings(config_file: Path) -> None:
    """Set ``tie_word_embeddings``; a file that has it already stays as it is, to the byte."""
    config = read_json(config_file)
    if config.get("tie_word_embeddings") is not True:
        config_file.write_text(json.dumps({**config, "tie_word_embeddings": True}, indent=2) + "\n", encoding="utf-8")


def _check_target(path: Path, overwrite: bool) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError(f"{str(path)!r} is a file: choose another name for the checkpoint")
    if any(path.iterdir()) and not overwrite:
        raise InputError(f"{str(path)!r} is not empty: choose another directory or pass overwrite=True")
    if any(path.iterdir()) and not (path / MODEL_INDEX).is_file():
        raise InputError(f"{str(path)!r} is not a checkpoint, so it is not overwritten: choose another directory")


def _publish(draft: Path, path: Path) -> None:
    """Move the draft to its name; a checkpoint that was there is put aside first and deleted after."""
    aside = None
    if path.exists():
        aside = Path(mkdtemp(prefix=f".{path.name}.old-", dir=path.parent))
        os.replace(path, aside)
    try:
        os.replace(draft, path)
    except OSError:
        if aside is not None:
            os.replace(aside, path)
        raise
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)
