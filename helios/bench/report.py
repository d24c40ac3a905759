"""One HTML page about one or more models: scores, drift over time, contact sheets, and the published table beside ours.

Everything is inside the file (SVG plots, pictures as data URIs): it can be mailed, and opens without a network.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

import helios
from helios.bench.anchors import Anchor, beside_published
from helios.bench.compare import TOTAL, Comparison, cell, compare_folders, table_columns
from helios.bench.metrics.drift import PARTS
from helios.bench.plots import bars, drift_curves, radar, svg
from helios.bench.results import OFFLINE_FILE, RUN_FILE

CURVES = ("luma_mean", "saturation", "sharpness", "noise", "lab_shift", "hist_drift", "layout_drift")
_MOST_CLIPS = 12
_MOST_CURVES = 3
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#1b1f24;background:#fff}
table{border-collapse:collapse;margin:1em 0;font-size:13px}td,th{border:1px solid #d0d7de;padding:3px 8px;text-align:right}
td:first-child,th:first-child{text-align:left}tr.ours{background:#fff6d6;font-weight:600}
img{max-width:100%;display:block;border-radius:4px}figure{margin:.6em 0}figcaption{font-size:13px;color:#57606a}
.plots{display:flex;flex-wrap:wrap;gap:12px}.plots svg{max-width:100%;height:auto}.note{color:#57606a}.scroll{overflow-x:auto}
"""


def write_report(
    folders: Mapping[str, str | Path] | Sequence[str | Path],
    path: str | Path,
    *,
    title: str = "HeliosBench report",
    fps: Mapping[str, float] | None = None,
    sizes: Mapping[str, str] | None = None,
) -> Path:
    """Write the page.

    Args:
        folders: results folders, by model name or as a list.
        path: the HTML file.
        fps, sizes: measured frames per second and model size by model, for our rows in the published table.
    Raises: InputError when a folder has no merged results.
    """
    comparison = compare_folders(folders)
    places = dict(folders) if isinstance(folders, Mapping) else {Path(folder).name: folder for folder in folders}
    runs = {name: ResultsFolder(Path(folder)) for name, folder in places.items()}
    sections = [
        _scores(comparison),
        _state(comparison, runs),
        _offline(comparison),
        _drift(runs),
        _sheets(runs),
        _published(comparison, fps or {}, sizes or {}),
    ]
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f'<p class="note">helios {helios.__version__}. Official numbers are comparable with published ones only where the '
        f"state below says so; the offline tier is this project's own.</p>{''.join(sections)}</body></html>"
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


class ResultsFolder:
    """What a results folder holds besides the merged file; parts that are not there are empty."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.facts = _json(folder / RUN_FILE)
        self.rows = _json(folder / OFFLINE_FILE).get("per_video_results", [])

    def sheet(self, row: dict[str, Any]) -> str | None:
        path = self.folder / "sheets" / f"{row['video_name']}.jpg"
        if not path.is_file():
            return None
        return "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _scores(comparison: Comparison) -> str:
    ratings, raw = comparison.official("rating"), comparison.official("raw")
    without_total = {name: {k: v for k, v in row.items() if k != TOTAL} for name, row in ratings.items()}
    if not any(without_total.values()):
        return "<h2>Official tier</h2><p>No official metric has been measured.</p>"
    ring = radar(without_total, "ratings")
    plots = svg(bars(without_total, "ratings, 1 to 10")) + (svg(ring) if ring else "")
    return (
        f"<h2>Official tier</h2><h3>Ratings</h3>{_table(ratings)}<h3>Raw scores</h3>{_table(raw)}"
        f'<div class="plots">{plots}</div>'
    )


def _state(comparison: Comparison, runs: Mapping[str, ResultsFolder]) -> str:
    items = []
    for name, merged in comparison.models.items():
        because = "; ".join(merged.get("partial_because", []))
        facts = runs[name].facts
        parts = [f"official total: {merged.get('total_status', 'unknown')}" + (f" ({because})" if because else "")]
        parts += [f"missing {metric}: {reason}" for metric, reason in facts.get("missing", {}).items()]
        parts += [f"failed {video}: {'; '.join(why.values())}" for video, why in facts.get("failed", {}).items()]
        parts += [f"left out {file}: {reason}" for file, reason in facts.get("skipped", {}).items()]
        lines = "".join(f"<li>{escape(part)}</li>" for part in parts)
        items.append(f"<li>{escape(name)}, {_reading(facts)}<ul>{lines}</ul></li>")
    return f"<h2>State of the numbers</h2><ul>{''.join(items)}</ul>"


def _reading(facts: Mapping[str, Any]) -> str:
    sizes = ", ".join(f"{count} at {size}" for size, count in facts.get("frame_sizes", {}).items())
    return escape(
        f"{len(facts.get('videos', []))} videos ({sizes}), frames read with {facts.get('frames_backend', '?')}"
    )


def _offline(comparison: Comparison) -> str:
    rows = comparison.offline()
    ratings = {name: (merged.get("offline") or {}).get("ratings", {}) for name, merged in comparison.models.items()}
    if not any(ratings.values()):
        return ""
    return (
        "<h2>Offline tier</h2><p>No weights needed; thresholds and the clips they were set on are in docs/heliosbench.md."
        f'</p>{_table(rows)}<div class="plots">{svg(bars(ratings, "offline ratings, 1 to 10"))}</div>'
    )


def _drift(runs: Mapping[str, ResultsFolder]) -> str:
    plots = []
    for statistic in CURVES:
        curves = curves_of(runs, statistic)
        if curves:
            plots.append(svg(drift_curves(curves, statistic)))
    return f'<h2>Drift over time</h2><div class="plots">{"".join(plots)}</div>' if plots else ""


def curves_of(runs: Mapping[str, ResultsFolder], statistic: str) -> dict[str, tuple[list[float], list[float]]]:
    """(frame numbers, values) of a statistic by label, for :func:`helios.bench.plots.drift_curves`.

    Args:
        runs: results folders by model.
    """
    return {label: curve for name, run in runs.items() for label, curve in _curves(name, run, statistic).items()}


def _curves(model: str, run: ResultsFolder, statistic: str) -> dict[str, tuple[list[float], list[float]]]:
    """One curve per clip of a small run; of a larger one the mean, part by part, over its clips of ten parts."""
    rows = [row for row in run.rows if statistic in row.get("curves", {})]
    if len(rows) <= _MOST_CURVES:
        return {f"{model}: {row['video_name']}": (row["curve_frames"], row["curves"][statistic]) for row in rows}
    whole = [row for row in rows if len(row["curve_frames"]) == PARTS]
    if not whole:
        return {}
    frames, values = (
        [fmean(part) for part in zip(*lists)]
        for lists in (
            [row["curve_frames"] for row in whole],
            [row["curves"][statistic] for row in whole],
        )
    )
    return {f"{model}: mean of {len(whole)} clips": (frames, values)}


def _sheets(runs: Mapping[str, ResultsFolder]) -> str:
    figures = []
    for name, run in runs.items():
        for row in run.rows[:_MOST_CLIPS]:
            picture = run.sheet(row)
            if picture:
                caption = escape(
                    f"{name}: {row['video_name']}, offline drift rating {cell(row['offline_drift'], 2) or '–'}"
                )
                figures.append(f'<figure><img src="{picture}" alt="frames"><figcaption>{caption}</figcaption></figure>')
    return f"<h2>Contact sheets</h2>{''.join(figures)}" if figures else ""


def _published(comparison: Comparison, fps: Mapping[str, float], sizes: Mapping[str, str]) -> str:
    ours = our_rows(comparison, fps, sizes)
    body = "".join(
        f"<tr{' class=ours' if row.ours else ''}><td>{escape(row.model)}</td><td>{escape(row.size)}</td>"
        + "".join(f"<td>{_published_cell(row, name)}</td>" for name in ("fps", "short_total", "long_total"))
        + "</tr>"
        for row in beside_published(ours)
    )
    return (
        "<h2>Beside the published table</h2><p>One H100, 384x640; long totals without throughput. † from summaries, the "
        "others read off charts. Our row has a total only when all official metrics were measured.</p>"
        f"<table><tr><th>model</th><th>size</th><th>FPS</th><th>short</th><th>long</th></tr>{body}</table>"
    )


def our_rows(comparison: Comparison, fps: Mapping[str, float], sizes: Mapping[str, str]) -> list[Anchor]:
    """Our models as rows of the published table; a partial total that was not asked for is empty."""
    rows = []
    for name, merged in comparison.models.items():
        total, short = merged["summary"].get(TOTAL), merged.get("mode") == "short"
        rows.append(
            Anchor(
                model=name,
                size=sizes.get(name, ""),
                fps=fps.get(name),
                short_total=total if short else None,
                long_total=None if short else total,
                ours=True,
            )
        )
    return rows


def _published_cell(row: Anchor, name: str) -> str:
    value = getattr(row, name)
    return "" if value is None else f"{value:.2f}{'†' if name in row.second_hand else ''}"


def _table(rows: Mapping[str, Mapping[str, float | None]]) -> str:
    columns = table_columns(rows)
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        f"<tr><td>{escape(model)}</td>{''.join(f'<td>{cell(row.get(name))}</td>' for name in columns)}</tr>"
        for model, row in rows.items()
    )
    return f'<div class="scroll"><table><tr><th>model</th>{head}</tr>{body}</table></div>'
