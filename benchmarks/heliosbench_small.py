"""HeliosBench of the small models: Base, Mid and Distilled, short clips and a minute, into docs/.

python benchmarks/heliosbench_small.py

Prompts and seeds are those of `helios bench quality --prompts toy`. A second run makes only the videos that are new.
"""

import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from helios import Helios
from helios.bench.compare import compare_folders, to_markdown
from helios.bench.maker import HeliosMaker
from helios.bench.plots import bars, drift_curves, save
from helios.bench.quality import Progress, QualityConfig, run
from helios.bench.report import ResultsFolder, curves_of, write_report
from helios.bench.speed.machine import cpu_line
from helios.bench.toy import toy_prompts
from helios.bench.videos import from_model

DOCS = Path(__file__).parents[1] / "docs"
MODELS = ("small-base", "small-mid", "small-distilled")
CURVES = ("lab_shift", "saturation", "sharpness")


@dataclass(frozen=True, kw_only=True)
class VideoSet:
    """Videos of one length.

    Args:
        title: of its section.
        num_frames: of every video.
        count: of videos per model.
    """

    title: str
    num_frames: int
    count: int


SETS = {
    "short": VideoSet(title="Four seconds", num_frames=99, count=6),
    "minute": VideoSet(title="One minute", num_frames=1452, count=1),
}


def main(
    scores: Annotated[Path, typer.Option(help="Results folders, kept for the next run.")] = Path("outputs/heliosbench"),
    page: Annotated[Path, typer.Option(help="The Markdown page; plots and HTML go beside it.")] = (
        DOCS / "heliosbench-small.md"
    ),
) -> None:
    """Make the videos, score them, write the page."""
    sections, report = [], {}
    for name, videos in SETS.items():
        folders = {model: scores / name / model for model in MODELS}
        for model, folder in folders.items():
            score(model, videos, folder)
        sections.append(section(name, videos, folders, page.parent / "images"))
        report |= {f"{model}, {videos.title.lower()}": folder for model, folder in folders.items()}
    write_report(report, page.with_suffix(".html"), title="HeliosBench of the small models")
    page.write_text(HEAD.format(machine=cpu_line(threads=1), html=page.with_suffix(".html").name) + "\n".join(sections))
    typer.echo(f"written: {page}")


def score(model: str, videos: VideoSet, folder: Path) -> None:
    """Drive one model through the prompts of one set."""
    loaded = Helios.from_pretrained(model, device="cpu", dtype="float32")
    prompts = toy_prompts()
    chosen = list(prompts.prompts.values())[: videos.count]
    listing = from_model(HeliosMaker(loaded, name=model), chosen, num_frames=videos.num_frames, seed=0)
    began = time.perf_counter()

    def show(progress: Progress) -> None:
        typer.echo(
            f"{model}, {videos.num_frames} frames: {progress.done} of {progress.total} {progress.state}, "
            f"{time.perf_counter() - began:.0f} s {progress.message}",
            err=True,
        )

    outcome = run(listing, QualityConfig(out=folder, tier="offline", mode="long", prompts=prompts), show)
    if outcome.exit_code:
        sys.exit(f"{model}: {outcome.failed or outcome.skipped}")


def section(name: str, videos: VideoSet, folders: Mapping[str, Path], images: Path) -> str:
    """Table, plots and one contact sheet per model."""
    comparison = compare_folders(folders)
    values = {
        model: row | {key: value for key, value in merged["offline"]["averages"].items() if key.endswith("_acc")}
        for (model, row), merged in zip(comparison.offline().items(), comparison.models.values(), strict=True)
    }
    by_value = {key: {model: row[key] for model, row in values.items()} for key in next(iter(values.values()))}
    table = to_markdown(by_value, digits=3).replace("| model |", "| value |", 1)
    ratings = {model: merged["offline"]["ratings"] for model, merged in comparison.models.items()}
    images.mkdir(parents=True, exist_ok=True)
    save(bars(ratings, f"{videos.title}: offline ratings, 1 to 10"), images / f"heliosbench-{name}.png")
    runs = {model: ResultsFolder(folder) for model, folder in folders.items()}
    plural = "" if videos.count == 1 else "s"
    lines = [
        f"## {videos.title}",
        "",
        f"{videos.count} video{plural} of {videos.num_frames} frames per model.",
        "",
        table,
    ]
    lines += [f"![Ratings](images/heliosbench-{name}.png)", ""]
    if videos.num_frames > SETS["short"].num_frames:
        for statistic in CURVES:
            picture = images / f"heliosbench-{name}-{statistic}.png"
            save(drift_curves(curves_of(runs, statistic), f"{statistic} over time"), picture)
            lines += [f"![{statistic} over time](images/{picture.name})", ""]
    for model, folder in folders.items():
        sheet = folder / "sheets" / f"{runs[model].rows[0]['video_name']}.jpg"
        picture = images / f"heliosbench-{name}-{model}{sheet.suffix}"
        shutil.copyfile(sheet, picture)
        lines += [f"{model}, first prompt:", "", f"![{model}](images/{picture.name})", ""]
    return "\n".join(lines)


HEAD = """# HeliosBench of the small models

Made by one command, `python benchmarks/heliosbench_small.py`; do not edit. Every model runs with the steps and the
guidance of its own preset (Base 50 steps; Mid and Distilled three levels) on the first prompts of
`--prompts toy`, offline tier only: no published weights were at hand, so no official number is printed.
What each value means and where its rating begins: [heliosbench.md](heliosbench.md).
The same with curves and contact sheets of every clip: [{html}]({html}).

{machine}; the benchmark drives a model with one thread.

"""


if __name__ == "__main__":
    typer.run(main)
