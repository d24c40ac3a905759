"""Plots with matplotlib, as figures that a script can save and as SVG text that a page can hold."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helios.extras import load_extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEAST_AXES = 3


def _figure(width: float, height: float) -> "Figure":
    load_extra("matplotlib", extra="bench")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def drift_curves(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str) -> "Figure":
    """One line per clip or model: statistic over frames.

    Args:
        curves: (frame numbers, values) by label.
    """
    figure = _figure(5.2, 2.6)
    axes = figure.add_subplot()
    for label, (frames, values) in curves.items():
        axes.plot(frames, values, marker=".", linewidth=1.2, label=label)
    axes.set_xlabel("frame")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    if 1 < len(curves) <= 8:
        axes.legend(fontsize=7)
    return figure


def bars(rows: Mapping[str, Mapping[str, float | None]], title: str, *, top: float | None = 10) -> "Figure":
    """Grouped bars: one group per metric, one bar per model; a missing value leaves a gap."""
    metrics = list(dict.fromkeys(name for row in rows.values() for name in row))
    figure = _figure(max(5.2, 0.9 * len(metrics)), 3.2)
    axes = figure.add_subplot()
    width = 0.8 / max(1, len(rows))
    for place, (model, row) in enumerate(rows.items()):
        there = {i + place * width: value for i, name in enumerate(metrics) if (value := row.get(name)) is not None}
        axes.bar(list(there), list(there.values()), width, label=model)
    axes.set_xticks([i + 0.4 - width / 2 for i in range(len(metrics))])
    axes.set_xticklabels([name.replace("_", "\n") for name in metrics], fontsize=7)
    axes.set_title(title, fontsize=10)
    if top is not None:
        axes.set_ylim(0, top)
    if len(rows) > 1:
        axes.legend(fontsize=7)
    return figure


def radar(rows: Mapping[str, Mapping[str, float | None]], title: str) -> "Figure | None":
    """Ratings 0 to 10 on a ring, over the metrics that every model has; None when fewer than three are left."""
    import math

    metrics = [
        name for name in next(iter(rows.values()), {}) if all(row.get(name) is not None for row in rows.values())
    ]
    if len(metrics) < _LEAST_AXES:
        return None
    angles = [2 * math.pi * i / len(metrics) for i in range(len(metrics))]
    figure = _figure(5.6, 4.2)
    axes = figure.add_subplot(projection="polar")
    for model, row in rows.items():
        values = [row[name] or 0.0 for name in metrics]
        axes.plot([*angles, angles[0]], [*values, values[0]], linewidth=1.2, label=model)
        axes.fill(angles, values, alpha=0.12)
    axes.set_xticks(angles)
    axes.set_xticklabels([name.replace("_", "\n") for name in metrics], fontsize=7)
    axes.set_ylim(0, 10)
    axes.tick_params(axis="x", pad=14)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_title(title, fontsize=10)
    if len(rows) > 1:
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.1, 1.0))
    return figure


def save(figure: "Figure", path: str | Path) -> Path:
    """Write a figure; the suffix chooses the format (png, svg, pdf)."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return Path(path)


def svg(figure: Any) -> str:
    """A figure as an ``<svg>`` element, without the XML head."""
    out = io.StringIO()
    figure.savefig(out, format="svg")
    text = out.getvalue()
    return text[text.index("<svg") :]
