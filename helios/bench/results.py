"""From records to result files: the published names, keys and indent for official metrics, one file for the offline tier."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import helios
from helios.bench.ratings import offline_drift, offline_total, rate_offline
from helios.bench.records import Record, write_json

OFFLINE_FILE = "offline_results.json"
RUN_FILE = "run.json"
_LISTS = ("seam_ratios", "curves", "curve_frames", "caption_curve", "caption_frames")


@dataclass(frozen=True, kw_only=True)
class OfficialFile:
    """One published result file.

    Attributes:
        name: ``{name}_results.json``.
        metric: whose fields it takes.
        label: what the file calls itself.
        score: per-video field that is averaged.
        fields: per-video fields, in file order.
        description: of a drifting file.
    """

    name: str
    metric: str
    score: str
    fields: tuple[str, ...]
    label: str = ""
    description: str = ""

    @property
    def path(self) -> str:
        return f"{self.name}_results.json"


def _basic(metric: str, *extra: str) -> OfficialFile:
    return OfficialFile(name=metric, metric=metric, score=f"{metric}_score", fields=(*extra, f"{metric}_score"))


def _drifting(metric: str, what: str, before: tuple[str, ...] = (), after: tuple[str, ...] = ()) -> OfficialFile:
    fields = tuple(f"{part}_{metric}_score" for part in ("drift", "start", "end"))
    return OfficialFile(
        name=f"drifting_{metric}",
        metric=metric,
        score=fields[0],
        fields=(*before, *fields, *after),
        description=f"Start-end contrast of {what} (first/last 15% frames)",
    )


OFFICIAL_FILES = (
    _basic("aesthetic"),
    OfficialFile(
        name="motion_amplitude",
        metric="motion_amplitude",
        label="motion_fb",
        score="motion_fb",
        fields=("motion_fb", "flow_mag", "dynamic_frac"),
    ),
    _basic("motion_smoothness"),
    _basic("semantic", "prompt"),
    OfficialFile(
        name="naturalness",
        metric="naturalness",
        score="naturalness_score",
        fields=("naturalness_score", "raw_score"),
    ),
    _drifting("aesthetic", "aesthetic"),
    _drifting("motion_smoothness", "motion smoothness"),
    _drifting("semantic", "semantic consistency", before=("prompt",)),
    _drifting("naturalness", "naturalness", after=("start_raw_score", "end_raw_score")),
)


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What is true of a whole run and is written into every file of it.

    Attributes:
        asked: metrics that were asked for and could run here.
        missing: reason by metric that could not run.
        facts: extra top-level keys (back end, device, prompts' hash, ...).
        per_metric: extra top-level keys of one metric's files (weights' hashes, judge).
    """

    asked: tuple[str, ...]
    missing: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    per_metric: dict[str, dict[str, Any]] = field(default_factory=dict)


def write_results(folder: Path, records: list[Record], run: RunFacts) -> None:
    """Write the result files of a run and ``run.json``.

    Files of metrics that this run did not ask for stay as they are; a metric that was asked for and scored no video has
    no file: it is missing.
    """
    for file in OFFICIAL_FILES:
        if file.metric in run.asked:
            content = official_content(file, records, run)
            if content is None:
                (folder / file.path).unlink(missing_ok=True)
            else:
                write_json(folder / file.path, content)
    write_json(folder / OFFLINE_FILE, offline_content(records, run))
    write_json(folder / RUN_FILE, run_content(records, run))


def run_content(records: list[Record], run: RunFacts) -> dict[str, Any]:
    """What a run did and could not do, for people and for the report."""
    return {
        **run.facts,
        "tool_version": helios.__version__,
        "metrics": list(run.asked),
        "missing": run.missing,
        "failed": {record.name: record.failures for record in records if record.failures},
        "videos": [
            {"id": record.id, "video_name": record.name, "sha256": record.sha256, "seconds": record.seconds}
            for record in records
        ],
    }


def official_content(file: OfficialFile, records: list[Record], run: RunFacts) -> dict[str, Any] | None:
    """A result file in the published layout, or None when no video has the metric."""
    rows = []
    for record in records:
        fields = record.fields(file.metric)
        if fields is not None and file.score in fields:
            chosen = {name: fields[name] for name in file.fields if name in fields}
            rows.append({"id": record.id, "video_name": record.name, **chosen})
    if not rows:
        return None
    mean_key = "average_drift_score" if file.description else "average_score"
    return {
        "metric": file.label or file.name,
        **({"description": file.description} if file.description else {}),
        mean_key: fmean(row[file.score] for row in rows),
        "num_videos": len(rows),
        **run.per_metric.get(file.metric, {}),
        "num_failed": len(failed(records, file.metric)),
        "failed": failed(records, file.metric),
        "tool_version": helios.__version__,
        **run.facts,
        "per_video_results": rows,
    }


def failed(records: Iterable[Record], metric: str) -> dict[str, str]:
    """Reason by video name, of videos that this metric could not score."""
    found = {}
    for record in records:
        reason = record.failures.get("clip") or record.failures.get(metric)
        if reason:
            found[record.name] = reason
    return found


def offline_values(record: Record) -> dict[str, float]:
    """All plain offline numbers of a video, whatever metric they come from."""
    values: dict[str, float] = {}
    for name in ("motion_amplitude", "smoothness_dis", "drift", "temporal", "repeats", "captions"):
        for key, value in (record.fields(name) or {}).items():
            if key != "motion_fb" and isinstance(value, (int, float)):
                values[key] = float(value)
    return values


def offline_content(records: list[Record], run: RunFacts) -> dict[str, Any]:
    """Means, ratings, offline drift and total, and per video the same with its curves."""
    rows = [_offline_row(record) for record in records if offline_values(record)]
    keys = dict.fromkeys(key for row in rows for key in row["values"])
    means = {key: fmean(row["values"][key] for row in rows if key in row["values"]) for key in keys}
    ratings = rate_offline(means)
    return {
        "tier": "offline",
        "num_videos": len(rows),
        "num_failed": sum(bool(record.failures) for record in records),
        "failed": {record.name: record.failures for record in records if record.failures},
        "tool_version": helios.__version__,
        **run.facts,
        "averages": means,
        "num_videos_per_value": {key: sum(key in row["values"] for row in rows) for key in keys},
        "ratings": ratings,
        "offline_drift": offline_drift(ratings),
        "offline_total": offline_total(ratings),
        "per_video_results": rows,
    }


def _offline_row(record: Record) -> dict[str, Any]:
    values = offline_values(record)
    ratings = rate_offline(values)
    lists: dict[str, Any] = {}
    for name in ("drift", "temporal", "captions"):
        lists |= {key: value for key, value in (record.fields(name) or {}).items() if key in _LISTS}
    return {
        "id": record.id,
        "video_name": record.name,
        "info": record.info,
        "values": values,
        "ratings": ratings,
        "offline_drift": offline_drift(ratings),
        **lists,
    }
