"""Several models side by side: the collected JSON, a Markdown table, a CSV, and plots."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from helios.bench.merge import MERGED_FILE, RATING_SCALE
from helios.bench.ratings import BASIC, DRIFTING
from helios.bench.records import write_json
from helios.errors import InputError

ScoreType = Literal["raw", "normalized", "rating"]
TOTAL = "total_weighted_rating"
ALL_FILE = "all_models_merged.json"
_FIELD = {"raw": "raw_score", "normalized": "normalized_score", "rating": "rating"}
OFFLINE_COLUMNS = (
    "offline_drift",
    "offline_total",
    "smoothness_dis",
    "flow_mag",
    "flow_mag_dis",
    "flicker",
    "seam_max",
    "repeat_ratio",
    "freeze_frac",
    "lab_shift",
    "hist_drift",
    "layout_drift",
    "drift_sharpness",
    "drift_saturation",
    "drift_noise",
    "all_acc",
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Merged results by model name, in the order they were given."""

    models: Mapping[str, dict[str, Any]]

    def official(self, score_type: ScoreType = "rating") -> dict[str, dict[str, float | None]]:
        """Score by metric by model; the total comes last. Metrics that no model has are left out."""
        found = {name: _scores(merged, score_type) for name, merged in self.models.items()}
        return {name: {metric: row.get(metric) for metric in _columns(found)} for name, row in found.items()}

    def offline(self) -> dict[str, dict[str, float | None]]:
        """Offline value by column by model; columns that no model has are left out."""
        rows = {name: _offline_row(merged.get("offline") or {}) for name, merged in self.models.items()}
        columns = [key for key in OFFLINE_COLUMNS if any(row.get(key) is not None for row in rows.values())]
        return {name: {key: row.get(key) for key in columns} for name, row in rows.items()}


def compare_folders(folders: Mapping[str, str | Path] | Sequence[str | Path]) -> Comparison:
    """Read the merged results of several models.

    Args:
        folders: results folders by model name, or a list of folders named after the models.
    Raises: InputError when a folder has no merged results or two models have one name.
    """
    if not isinstance(folders, Mapping):
        paths = [Path(folder) for folder in folders]
        names = [path.name for path in paths]
        doubled = next((name for name in names if names.count(name) > 1), None)
        if doubled:
            raise InputError(f"two results folders are named {doubled}: give the models names")
        folders = dict(zip(names, paths))
    if not folders:
        raise InputError("no results folders given: pass at least one")
    return Comparison(models={name: _merged(Path(folder)) for name, folder in folders.items()})


def _merged(folder: Path) -> dict[str, Any]:
    path = folder / MERGED_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["summary"]["non_drifting"], content["summary"]["drifting"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: no merged results there; run or merge the benchmark into {folder} first") from error
    return content


def _scores(merged: dict[str, Any], score_type: ScoreType) -> dict[str, float | None]:
    if score_type not in _FIELD:
        raise InputError(f"score type {score_type!r} is unknown: use raw, normalized or rating")
    summary = merged["summary"]
    rows = {**summary["non_drifting"], **summary["drifting"]}
    return {name: row[_FIELD[score_type]] for name, row in rows.items()} | {TOTAL: summary.get(TOTAL)}


def _columns(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    names = {name for row in found.values() for name in row} - {TOTAL}
    return [*sorted(names), TOTAL] if names else []


def _offline_row(offline: dict[str, Any]) -> dict[str, float | None]:
    averages = offline.get("averages") or {}
    return {**averages, "offline_drift": offline.get("offline_drift"), "offline_total": offline.get("offline_total")}


def write_all_models(comparison: Comparison, path: str | Path, score_type: ScoreType = "rating") -> dict[str, Any]:
    """Write ``all_models_merged.json`` in the published layout and return its content."""
    models = comparison.official(score_type)
    metrics = list(next(iter(models.values())))
    content = {
        "num_models": len(models),
        "score_type": score_type,
        "metrics": metrics,
        "models": models,
        "rating_scale": RATING_SCALE,
    }
    write_json(Path(path), content)
    return content


def table_columns(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Spreadsheet order: total, the five basic metrics, the four drifting ones; other columns as they come."""
    there = list(next(iter(rows.values()), {}))
    ordered = [name for name in (TOTAL, *BASIC, *DRIFTING) if name in there]
    return ordered or there


def to_markdown(rows: Mapping[str, Mapping[str, float | None]], digits: int = 4) -> str:
    """A Markdown table, one model per row; what is missing stays empty."""
    columns = table_columns(rows)
    lines = [f"| model | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    for model, row in rows.items():
        lines.append(f"| {model} | {' | '.join(cell(row.get(name), digits) for name in columns)} |")
    return "\n".join(lines) + "\n"


def cell(value: float | None, digits: int = 4) -> str:
    """A number for a table: integers as they are, nothing for None."""
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.{digits}f}"


def to_csv(rows: Mapping[str, Mapping[str, float | None]]) -> str:
    """The same table for a spreadsheet."""
    columns = table_columns(rows)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", *columns])
    for model, row in rows.items():
        writer.writerow([model, *("" if row.get(name) is None else row[name] for name in columns)])
    return out.getvalue()
