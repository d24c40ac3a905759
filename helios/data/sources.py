"""Finding videos and what they show: a folder with text files beside the videos, or a list of records.

A record is a row of ``metadata.jsonl``, ``metadata.json`` or ``metadata.csv`` with the file's name, its caption or
captions and, where wanted, the published fields: ``cut`` [first frame, end), ``crop`` [x0, x1, y0, y1] and ``fps``.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from helios.errors import InputError

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".ogv", ".3gp"}
)
METADATA_NAMES = ("metadata.jsonl", "metadata.json", "metadata.csv")
_FILE_KEYS = ("file", "file_name", "path", "video")
_CAPTION_KEYS = ("captions", "caption", "cap", "text", "prompt")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A video, or a cut of one, and what it shows.

    Args:
        file: its path, relative to the folder where it can be, with forward slashes.
        captions: what it shows, in one wording or several.
        cut: first frame and the end (not included), counted in the file's own frames; None for all of it.
        crop: x0, x1, y0, y1 in pixels of the upright picture; None for all of it.
        fps: the rate that ``cut`` counts in; None for the file's own.
    """

    file: str
    captions: tuple[str, ...]
    cut: tuple[int, int] | None = None
    crop: tuple[int, int, int, int] | None = None
    fps: float | None = None

    @property
    def name(self) -> str:
        """How reports call it."""
        return self.file if self.cut is None else f"{self.file} [{self.cut[0]}:{self.cut[1]}]"

    def reason(self, root: Path, error: Exception) -> str:
        """What is wrong with it, without the place of the folder: it will be told after the name."""
        path = str(root / self.file)
        return str(error).removeprefix(f"{path} ").replace(path, self.file)


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A video that is left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a folder or a list of records holds.

    Attributes:
        root: folder that the sources' files are relative to.
        sources: videos with captions, in a fixed order.
        skipped: videos without a caption, missing files, records that cannot be understood.
    """

    root: Path
    sources: tuple[Source, ...]
    skipped: tuple[Skipped, ...]


def find_sources(place: str | Path) -> Found:
    """Look for videos without opening them.

    Args:
        place: a folder, searched with all its subfolders; or a ``.jsonl``, ``.json`` or ``.csv`` list of records,
            whose files are relative to its own folder. In a folder, records of a list named ``metadata`` come first;
            videos that it does not name, and all videos where there is none, have a ``.txt`` of the same name.
    Raises: InputError when there is no such place, it holds no videos, or a list cannot be read.
    """
    place = Path(place)
    if place.is_dir():
        return _find_in_folder(place)
    if place.is_file() and place.suffix.lower() in (".jsonl", ".json", ".csv"):
        return _collect(place.parent, _records(place), [])
    if place.is_file():
        raise InputError(
            f"{place} is no list of videos: give a folder, or a .jsonl, .json or .csv with file and caption"
        )
    raise InputError(f"there is no folder at {place}: check the path")


def _find_in_folder(folder: Path) -> Found:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())
    lists = [folder / name for name in METADATA_NAMES if (folder / name).is_file()]
    if not files and not lists:
        endings = ", ".join(sorted(VIDEO_SUFFIXES))
        raise InputError(f"{folder} holds no videos ({endings}): check the path")
    records = [record for file in lists[:1] for record in _records(file)]
    return _collect(folder, records, files)


def _collect(root: Path, records: Iterable[tuple[str, Mapping[str, Any]]], files: list[Path]) -> Found:
    sources: list[Source] = []
    skipped: list[Skipped] = []
    for where, record in records:
        try:
            sources.append(_from_record(root, record))
        except InputError as error:
            file = _first(record, _FILE_KEYS)
            skipped.append(Skipped(name=Path(str(file)).as_posix() if file else where, reason=str(error)))
    named = {source.file for source in sources} | {skip.name for skip in skipped}
    for path in files:
        name = path.relative_to(root).as_posix()
        captions = () if name in named else _beside(path)
        if captions:
            sources.append(Source(file=name, captions=captions))
        elif name not in named:
            skipped.append(Skipped(name=name, reason=f"no caption: write what it shows into {path.stem}.txt beside it"))
    if not sources and not skipped:
        raise InputError(f"the list in {root} names no videos: write a record with file and caption for each")
    return Found(root=root, sources=tuple(sources), skipped=tuple(skipped))


def _beside(path: Path) -> tuple[str, ...]:
    """Captions in the text file beside a video: paragraphs are wordings of the same thing."""
    file = path.with_suffix(".txt")
    if not file.is_file():
        return ()
    text = file.read_text(encoding="utf-8-sig", errors="replace").replace("\r\n", "\n")
    paragraphs: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line.strip():
            paragraphs[-1].append(line.strip())
        elif paragraphs[-1]:
            paragraphs.append([])
    return tuple(" ".join(lines) for lines in paragraphs if lines)


def _records(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(where it stands, record) of every row."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read ({error}): save it as UTF-8 text") from error
    if file.suffix.lower() == ".csv":
        rows: Iterable[Any] = csv.DictReader(StringIO(text, newline=""))
    elif file.suffix.lower() == ".json":
        rows = _parse(text, str(file))
        if not isinstance(rows, list):
            raise InputError(f"{file} holds no list: write one JSON object per video, in square brackets")
    else:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        rows = [_parse(line, f"{file}, line {number}") for number, line in lines]
    for number, row in enumerate(rows, 1):
        where = f"{file.name}, record {number}"
        if not isinstance(row, Mapping):
            raise InputError(f"{where} is no JSON object: write file and caption of each video in braces")
        yield where, row


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{where} is not JSON ({error}): correct it") from error


def _from_record(root: Path, record: Mapping[str, Any]) -> Source:
    name = _first(record, _FILE_KEYS)
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"no file name: give it as {_FILE_KEYS[0]!r}")
    captions = _captions(_first(record, _CAPTION_KEYS))
    if not (root / name).is_file():
        raise InputError("no such file: check its path in the list")
    return Source(
        file=Path(name).as_posix(),
        captions=captions or _captions_beside(root / name),
        cut=_whole_numbers(record, "cut", 2),
        crop=_whole_numbers(record, "crop", 4),
        fps=_rate(record.get("fps")),
    )


def _captions_beside(path: Path) -> tuple[str, ...]:
    captions = _beside(path)
    if not captions:
        raise InputError(f"no caption: write what it shows as {_CAPTION_KEYS[1]!r} or into {path.stem}.txt beside it")
    return captions


def _first(record: Mapping[str, Any], keys: Iterable[str]) -> Any:
    return next((record[key] for key in keys if record.get(key)), None)


def _captions(value: Any) -> tuple[str, ...]:
    """One string or a list of them; a CSV cell may hold a JSON list."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            pass
    texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    clean = (text.encode("utf-8", "replace").decode().strip() for text in texts if isinstance(text, str))
    return tuple(text for text in clean if text)


def _whole_numbers(record: Mapping[str, Any], key: str, count: int) -> Any:
    value = record.get(key)
    if value in (None, ""):
        return None
    if isinstance(value, str):
        value = _parse(value, key)
    whole = isinstance(value, list) and len(value) == count and all(isinstance(number, int) for number in value)
    if not whole or min(value) < 0 or any(a >= b for a, b in zip(value[::2], value[1::2])):
        meaning = "[first frame, end]" if key == "cut" else "[x0, x1, y0, y1] in pixels"
        raise InputError(f"{key}={value!r} is not understood: give {meaning}, each end above its start")
    return tuple(value)


def _rate(value: Any) -> float | None:
    if value in (None, ""):
        return None
    try:
        rate = float(value)
    except (TypeError, ValueError):
        rate = 0.0
    if not 0.01 <= rate <= 1000:
        raise InputError(f"fps={value!r} is no frame rate: give a number such as 24, or leave it out")
    return rate
