"""One record per video: what was measured, with which version, from which bytes. The memory that makes runs resumable."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FORMAT = 1


@dataclass
class Measured:
    """Fields of one metric for one video, and the version that made them."""

    version: str
    fields: dict[str, Any]


@dataclass
class Record:
    """Everything known about one video.

    Attributes:
        name, id: of the video.
        sha256: its fingerprint; another fingerprint voids the record.
        reading: back end, size rule and chunk length; another reading voids the record.
        metrics: by metric name.
        failures: reason by metric name, or under ``clip`` when the video could not be read.
        info: frames, size, rate and back end of the clip.
        seconds: wall time of the last scoring.
    """

    name: str
    id: int | None
    sha256: str
    reading: str
    metrics: dict[str, Measured] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def fields(self, metric: str) -> dict[str, Any] | None:
        found = self.metrics.get(metric)
        return found.fields if found else None


def record_path(folder: Path, name: str) -> Path:
    """Where the record of a video lies inside a results folder."""
    return Path(folder) / "records" / f"{name}.json"


def write_json(path: Path, content: Any) -> None:
    """Write a file in one step, indented by two like the published result files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    part.replace(path)


def save_record(folder: Path, record: Record) -> None:
    write_json(record_path(folder, record.name), {"format": FORMAT, **asdict(record)})


def load_record(folder: Path, name: str) -> Record | None:
    """The record of a video, or None when there is none that can be read (it is then made anew)."""
    try:
        content = json.loads(record_path(folder, name).read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            return None
        content["metrics"] = {key: Measured(**value) for key, value in content["metrics"].items()}
        return Record(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
