"""Safetensors files on disk: headers without the data, shard indexes, atomic sharded writing.

The format is 8 bytes of header length, a JSON header (name -> dtype, shape, byte range) and the data.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helios.errors import InputError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
MAX_SHARD_BYTES = 10_000_000_000
_MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """Where one tensor lies: ``size`` bytes at ``offset`` from the start of ``file``."""

    file: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    size: int


def read_header(file: Path) -> dict[str, TensorEntry]:
    """The tensors of one safetensors file, without reading their data.

    Raises: InputError, naming the file, when it is missing, truncated or not safetensors.
    """
    try:
        total = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            text = stream.read(min(length, _MAX_HEADER_BYTES))
    except OSError as error:
        raise InputError(f"cannot read {str(file)!r} ({error.strerror}): download the checkpoint again") from error
    if total < 8 + length and length <= _MAX_HEADER_BYTES:
        raise InputError(f"{str(file)!r} is cut off inside its header at {total} bytes: download it again")
    try:
        header = json.loads(text)
        entries = {name: _entry(file, name, value, 8 + length) for name, value in header.items() if name[:2] != "__"}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{str(file)!r} is not a safetensors file or is damaged: download it again") from error
    end = max((entry.offset + entry.size for entry in entries.values()), default=8 + length)
    if total < end:
        raise InputError(f"{str(file)!r} is truncated, it has {total} of {end} bytes: download it again")
    return entries


def _entry(file: Path, name: str, value: dict[str, Any], data_start: int) -> TensorEntry:
    begin, end = value["data_offsets"]
    dtype, shape = DTYPES[value["dtype"]], tuple(value["shape"])
    if begin < 0 or end - begin != prod(shape) * dtype.itemsize:
        raise ValueError(f"byte range of {name} does not match its shape")
    return TensorEntry(file=file, name=name, dtype=dtype, shape=shape, offset=data_start + begin, size=end - begin)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a checkpoint. Raises: InputError, naming the file, when it is missing or not an object."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {str(file)!r} ({error.strerror}): the checkpoint is incomplete") from error
    except ValueError as error:
        raise InputError(f"{str(file)!r} is not valid JSON: download it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{str(file)!r} does not hold a JSON object: download it again")
    return value


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object the way the published checkpoints do: two spaces, sorted keys, a newline at the end."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def weight_files(folder: Path, stem: str) -> list[Path]:
    """The safetensors files of one component: those its index names, or the single unsharded file.

    Raises: InputError when there are none, or when a shard that the index names is missing.
    """
    index, single = folder / f"{stem}.safetensors.index.json", folder / f"{stem}.safetensors"
    if index.is_file():
        names = sorted(set(_weight_map(index).values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise InputError(
                f"{str(folder)!r} lacks {missing[0]!r} ({len(missing)} of {len(names)} shards are missing): "
                "download the checkpoint again"
            )
        return [folder / name for name in names]
    if single.is_file():
        return [single]
    raise InputError(f"{str(folder)!r} holds no weights: expected {single.name!r} or {index.name!r}")


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{str(index)!r} has no weight_map: download it again")
    return weight_map


def read_headers(files: list[Path]) -> dict[str, TensorEntry]:
    """The tensors of all files together. Raises: InputError when two files hold the same name."""
    entries: dict[str, TensorEntry] = {}
    for file in files:
        for name, entry in read_header(file).items():
            if name in entries:
                raise InputError(f"{name!r} is in {entries[name].file.name!r} and in {file.name!r}: remove one of them")
            entries[name] = entry
    return entries


def write_tensors(
    folder: Path, stem: str, tensors: Mapping[str, Tensor], *, max_shard_bytes: int = MAX_SHARD_BYTES
) -> list[Path]:
    """Write tensors as one safetensors file, or as shards with an index when they exceed ``max_shard_bytes``.

    Returns: the files written, in order.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    shards = _split(tensors, max_shard_bytes)
    names = [f"{stem}.safetensors"]
    if len(shards) > 1:
        names = [f"{stem}-{index:05d}-of-{len(shards):05d}.safetensors" for index in range(1, len(shards) + 1)]
        weight_map = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        size = sum(tensor.nbytes for tensor in tensors.values())
        write_json(
            folder / f"{stem}.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": weight_map}
        )
    for name, shard in zip(names, shards, strict=True):
        on_host = {key: tensor.detach().to("cpu").contiguous() for key, tensor in shard.items()}
        save_file(on_host, folder / name, metadata={"format": "pt"})
    return [folder / name for name in names]


def _split(tensors: Mapping[str, Tensor], max_shard_bytes: int) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for key, tensor in tensors.items():
        if shards[-1] and filled + tensor.nbytes > max_shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][key] = tensor
        filled += tensor.nbytes
    return shards
