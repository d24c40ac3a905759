"""The record of how a video was made: inside an MP4's metadata, and as JSON beside any file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helios.errors import InputError

# The one metadata field that every MP4 tool shows and keeps.
METADATA_KEY = "comment"
_PART = ".part"


def sidecar_path(path: str | Path) -> Path:
    """The JSON file beside a video: ``fox.mp4.json`` for ``fox.mp4``, ``frames.json`` for the folder ``frames``."""
    path = Path(path)
    return path.with_name(path.name + ".json")


def dump_record(record: Mapping[str, Any], *, indent: int | None = None) -> str:
    """The record as JSON text, keys in the order given; the same record is always the same text.

    Raises: TypeError or ValueError when it holds something that JSON cannot (a bug of the caller).
    """
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, indent=indent)
    if any("\ud800" <= letter <= "\udfff" for letter in text):  # bytes of the command line that were no UTF-8
        return json.dumps(record, allow_nan=False, indent=indent)
    return text


def read_record(path: str | Path) -> dict[str, Any]:
    """Read back the record of a video, of an unfinished ``.part``, of a folder of frames, or a JSON record itself.

    The metadata inside an MP4 counts first, as it travels with the file; then the JSON beside it.

    Raises: InputError when there is no such file, or it holds no record.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"there is no file at {path}: check the path")
    if path.is_file() and path.name.removesuffix(_PART).endswith(".json"):
        return _parse(path, _read_text(path))
    if path.is_file() and (embedded := _embedded(path)) is not None:
        return embedded
    for beside in _sidecars(path):
        if beside.is_file():
            return _parse(beside, _read_text(beside))
    raise InputError(f"{path} holds no record of how it was made: give a video that Helios wrote, or its .json")


def _sidecars(path: Path) -> list[Path]:
    finished = path.with_name(path.name.removesuffix(_PART))
    beside = sidecar_path(finished)
    return [beside] if finished == path else [beside.with_name(beside.name + _PART), beside]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a record ({error}): give a video that Helios wrote") from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except ValueError as error:
        raise InputError(
            f"{path} is not a JSON record ({error}): give a video that Helios wrote, or its .json"
        ) from error
    if not isinstance(record, dict):
        raise InputError(f"{path} holds JSON that is no record: give a video that Helios wrote, or its .json")
    return record


def _embedded(path: Path) -> dict[str, Any] | None:
    if path.name.removesuffix(_PART).rpartition(".")[2].lower() not in ("mp4", "m4v", "mov"):
        return None
    from helios.media.decode import open_video

    with open_video(path) as (container, _):
        text = container.metadata.get(METADATA_KEY, "")
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
