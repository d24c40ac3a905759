"""Files of a data set: each appears under its name when it is whole, and says which plan it belongs to.

OUT/plan.json                     what will be made; written first
OUT/text-00000.safetensors        states of captions, one tensor [S, E] per caption
OUT/latents-00000.safetensors     "000012/latents" [C, T, H, W] and "000012/stills" [2 (chunks - 1), C, H, W]
OUT/unfinished/000012.safetensors a clip whose file is not complete yet
OUT/index.json                    every clip; written last
"""

import errno
import json
import os
import shutil
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from helios.errors import GenerationError

PLAN, INDEX = "plan.json", "index.json"
_META = "helios"
_PART = ".part"
_UNFINISHED = "unfinished"


class FullDisk(GenerationError):
    """There is no room for the next file; the files before it are whole."""


def latent_file(number: int) -> str:
    """Name of a file of clips."""
    return f"latents-{number:05d}.safetensors"


def clip_path(folder: Path, clip: int) -> Path:
    """The file of one clip, until it is joined with its neighbours'."""
    return folder / _UNFINISHED / f"{clip:06d}.safetensors"


def text_file(number: int) -> str:
    """Name of a file of caption states."""
    return f"text-{number:05d}.safetensors"


def latents_name(clip: int) -> str:
    """Name of a clip's latents in its file."""
    return f"{clip:06d}/latents"


def stills_name(clip: int) -> str:
    """Name of a clip's stills in its file."""
    return f"{clip:06d}/stills"


def caption_name(caption: str) -> str:
    """Name of a caption's states in their file."""
    return blake2b(caption.encode(), digest_size=12).hexdigest()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under another name and rename it: readers see all of it or nothing.

    Raises: GenerationError when it cannot be written (:class:`FullDisk` when there is no room).
    """
    part = path.with_name(f".{path.name}.{os.getpid()}{_PART}")
    try:
        path.parent.mkdir(exist_ok=True)
        with part.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        again = "what was finished stays, and the same command goes on from there"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FullDisk(f"the disk is full, {path} could not be written: make room; {again}") from error
        raise GenerationError(f"cannot write {path} ({error.strerror}): {again}") from error


def write_shard(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and what is known of them.

    Raises: as :func:`write_whole`.
    """
    # One metadata entry: the library does not keep the order of several, and equal data sets should be equal bytes.
    write_whole(path, save(dict(tensors), metadata={_META: json.dumps(meta)}))


def read_meta(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """What a finished file of the plan holds; None when there is no such file, or it is damaged or of another plan."""
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads(file.metadata()[_META])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    return meta if meta.get("plan") == fingerprint else None


def readable_json(facts: Mapping[str, Any]) -> str:
    """JSON with one line per entry, and in lists of objects or texts one line per element."""
    return "{\n" + ",\n".join(f"{_line(key)}: {_block(value)}" for key, value in facts.items()) + "\n}\n"


def _block(value: Any) -> str:
    if isinstance(value, (list, tuple)) and value:
        return "[\n  " + ",\n  ".join(map(_line, value)) + "\n]"
    return _line(value)


def _line(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    whole = text.encode("utf-8", "replace").decode() == text  # a file's name may be bytes that are no UTF-8
    return text if whole else json.dumps(value)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a finished file, mapped."""
    with safe_open(path, framework="pt") as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}


def remove_leftovers(folder: Path) -> None:
    """Delete what killed runs left, once everything is finished."""
    shutil.rmtree(folder / _UNFINISHED, ignore_errors=True)
    for part in folder.glob(f".*{_PART}"):
        part.unlink(missing_ok=True)
