"""The small models that come with the package: three transformers that share one VAE, text encoder and tokenizer.

The package holds the shared parts once; a complete checkpoint in the Diffusers layout is put together in the user's
cache when it is first asked for.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch
from safetensors.torch import load_file, save_file

import helios
from helios.checkpoints.layout import COMPONENTS, MODEL_INDEX, SCHEDULER, TRANSFORMER, Variant
from helios.checkpoints.presets import PRESET_FILE
from helios.errors import InputError

EMBEDDED = Path(helios.__file__).parent / "assets" / "small"
SMALL = {f"small-{variant}": variant for variant in Variant}
DEFAULT = f"small-{Variant.DISTILLED}"
_OWN = (SCHEDULER, TRANSFORMER)
_SHARED = tuple(component for component in COMPONENTS if component not in _OWN)
_CARD = "README.md"
_FILES = (MODEL_INDEX, PRESET_FILE)


def embedded_checkpoint(name: str = DEFAULT) -> Path:
    """The directory of a small model.

    Args:
        name: ``small-base``, ``small-mid`` or ``small-distilled``.
    Raises: InputError when the package holds no such model, or the cache cannot be written.
    """
    variant = SMALL[name]
    if not (EMBEDDED / variant / MODEL_INDEX).is_file():
        raise InputError(f"this installation holds no {name}: install the package anew, or name another model")
    path = cache_folder() / f"{name}-{_digest(EMBEDDED)}"
    if not (path / MODEL_INDEX).is_file():
        _assemble(variant, path)
    return path


def cache_folder() -> Path:
    """Where things are kept that can be made again: ``HELIOS_CACHE``, else the user's cache."""
    given = os.environ.get("HELIOS_CACHE")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "helios"


def write_embedded(target: Path, checkpoints: Mapping[Variant, Path], dtype: torch.dtype = torch.float16) -> None:
    """Store checkpoints with their shared parts once and their weights in half precision.

    Args:
        target: folder to make; a folder of that name is replaced, all but its model card.
        checkpoints: one per variant.
        dtype: of the stored weights.
    Raises: InputError when the checkpoints do not share their VAE, text encoder and tokenizer.
    """
    _check_shared(checkpoints)
    draft = Path(mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        draft.chmod(0o755)
        first = next(iter(checkpoints.values()))
        for component in _SHARED:
            _copy_rounded(first / component, draft / component, dtype)
        for variant, source in checkpoints.items():
            for component in _OWN:
                _copy_rounded(source / component, draft / variant / component, dtype)
            for file in _FILES:
                shutil.copy(source / file, draft / variant / file)
        if (target / _CARD).is_file():
            shutil.copy(target / _CARD, draft / _CARD)
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _assemble(variant: Variant, path: Path) -> None:
    """Copy the parts beside the final name and rename: several processes may do this at once."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise InputError(
            f"the cache {str(path.parent)!r} cannot be written ({error.strerror}): set HELIOS_CACHE to a folder that can"
        ) from error
    try:
        draft.chmod(0o755)
        for component in _SHARED:
            shutil.copytree(EMBEDDED / component, draft / component)
        for component in _OWN:
            shutil.copytree(EMBEDDED / variant / component, draft / component)
        for file in _FILES:
            shutil.copy(EMBEDDED / variant / file, draft / file)
        draft.rename(path)
    except OSError:
        if not (path / MODEL_INDEX).is_file():  # otherwise another process was faster
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@cache
def _digest(folder: Path) -> str:
    """Of the names and the bytes of all files: another set of weights gets another place in the cache."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(str(file.relative_to(folder)).encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _check_shared(checkpoints: Mapping[Variant, Path]) -> None:
    first = next(iter(checkpoints.values()))
    for component in _SHARED:
        for other in checkpoints.values():
            if _digest(other / component) != _digest(first / component):
                raise InputError(f"{first} and {other} do not share their {component}: ship models of one recipe")


def _copy_rounded(source: Path, target: Path, dtype: torch.dtype) -> None:
    """Copy a component; tensors in float32 are stored in ``dtype``."""
    shutil.copytree(source, target)
    for file in target.glob("*.safetensors"):
        tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
