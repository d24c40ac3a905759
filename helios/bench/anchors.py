"""Published HeliosBench results, so that ours can stand beside them (paper arXiv 2603.04379 and its project page).

All speeds: one H100, 384x640, end to end. Long totals are the weighted sums without the throughput term.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """One row of the table.

    Attributes:
        model, size: as published.
        fps: frames per second.
        short_total, long_total: weighted ratings; None where no number is known.
        second_hand: names of the fields that are known only from summaries; the others were read off charts.
    """

    model: str
    size: str
    fps: float | None = None
    short_total: float | None = None
    long_total: float | None = None
    second_hand: tuple[str, ...] = ()
    ours: bool = False


def _row(model, size, fps=None, short=None, long=None, *second_hand) -> Anchor:
    return Anchor(model=model, size=size, fps=fps, short_total=short, long_total=long, second_hand=second_hand)


PUBLISHED: tuple[Anchor, ...] = (
    _row("Helios-Base", "14B", 0.54, 6.35, 6.57),
    _row("Helios-Mid", "14B", 1.05, None, None, "fps"),
    _row("Helios-Distilled", "14B", 19.53, 6.00, 6.34),
    _row("LongLive", "1.3B", 18.05, None, 6.22),
    _row("Reward Forcing", "1.3B", 22.13, None, 6.18),
    _row("Rolling Forcing", "1.3B", 19.47, None, 6.16),
    _row("SANA-Video Long", "2B", 13.24, None, 5.53),
    _row("Dummy Forcing Long", "1.3B", 20.10, None, 5.44),
    _row("Self Forcing", "1.3B", 21.20, 5.75, 4.30, "short_total"),
    _row("Krea realtime", "14B", 6.74, 5.95, 3.80, "short_total"),
    _row("Causal Forcing", "1.3B", 20.98, None, 3.61),
    _row("InfinityStar", "8B", 3.38, None, 2.43),
    _row("CausVid", "1.3B", 24.41, 4.50, None, "fps", "short_total"),
    _row("HunyuanVideo 1.5", "8B", 0.24, 6.90),
    _row("Wan 2.2", "14B", 0.33, 6.35),
    _row("LongCat-Video", "14B", 0.33, 6.30),
    _row("Wan 2.1", "14B", 0.33, 6.15),
    _row("LTX-Video 2", "19B", 3.84, 6.00),
    _row("SkyReels-V2-DF", "14B", 0.12, 5.55),
    _row("FastVideo Wan 2.1", "14B", 5.37, 5.25),
    _row("CogVideoX 1.5", "5B", 1.47, 5.15),
    _row("TurboDiffusion Wan 2.1", "14B", 10.15, 5.10),
)
WITH_THROUGHPUT = {"Helios-Distilled": 6.94, "Reward Forcing": 6.88}
"""Long totals with the throughput term, second-hand."""


def beside_published(ours: Iterable[Anchor]) -> list[Anchor]:
    """Our rows inside the published table, by long total, then short total; rows without either come last."""
    rows = [*ours, *PUBLISHED]
    return sorted(rows, key=lambda row: (-(row.long_total or -1), -(row.short_total or -1)))


def markdown(ours: Iterable[Anchor] = ()) -> str:
    """The table in Markdown; our rows are bold, second-hand numbers carry a dagger."""
    lines = ["| model | size | FPS | short total | long total |", "| --- | --- | --- | --- | --- |"]
    for row in beside_published(ours):
        cells = [_cell(row, name) for name in ("fps", "short_total", "long_total")]
        name = f"**{row.model}**" if row.ours else row.model
        lines.append(f"| {name} | {row.size} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(row: Anchor, name: str) -> str:
    value = getattr(row, name)
    return "" if value is None else f"{value:.2f}{'†' if name in row.second_hand else ''}"
