"""``helios bench quality`` and ``helios bench compare``: HeliosBench on videos or on a model."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from helios.cli.options import DeviceOption, DtypeOption, JsonOption, parse_steps
from helios.errors import InputError
from helios.extras import load_extra

if TYPE_CHECKING:
    from helios.bench.prompts import PromptSet
    from helios.bench.quality import Outcome, Progress
    from helios.bench.videos import Listing


def quality(
    sources: Annotated[
        list[Path] | None, typer.Argument(help="One folder of `{id}_{target}_ori{true}.mp4`, or video files.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Drive this checkpoint instead; `small` is the small model.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Results folder, one per model.")] = Path("heliosbench"),
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts", help="The official CSV, the Self-Forcing list, `toy`, or `toy-heldout` (200 of one chunk)."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Only the first prompts.")] = None,
    tier: Annotated[str, typer.Option("--tier", help="`offline` needs no weights; `official`; `all`.")] = "all",
    mode: Annotated[str, typer.Option("--mode", help="`long` measures drift too; `short`.")] = "long",
    metrics: Annotated[str | None, typer.Option("--metrics", help="Only these, with commas.")] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="Folder with the official networks' weights, or `hub`.")
    ] = None,
    judge: Annotated[str | None, typer.Option("--judge", help="Address of an OpenAI-compatible endpoint.")] = None,
    judge_instruction: Annotated[
        Path | None, typer.Option("--judge-instruction", help="The official instruction as a text file.")
    ] = None,
    num_frames: Annotated[int | None, typer.Option("--num-frames", "-n", help="Length when driving a model.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the driven model; each prompt adds its id.")] = 0,
    steps: Annotated[str | None, typer.Option("--steps", metavar="2,2,2", help="Of the driven model.")] = None,
    backend: Annotated[str, typer.Option("--frames", help="Decoder: `auto`, `official`, `av` or `cv2`.")] = "auto",
    workers: Annotated[int, typer.Option("--workers", help="Processes; 0 is one per core.")] = 0,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Print totals although something is missing.")
    ] = False,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html beside the results.")] = True,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Score videos: drift, seams, flicker, motion, loops; with weights also the official HeliosBench metrics.

    Runs again measure only what is new. Exit code 1 when a video failed or was left out.

    Example: `helios bench quality --model small --prompts toy --limit 20 --num-frames 99 -o scores/small`
    """
    from helios.bench.judge import JudgeConfig
    from helios.bench.quality import QualityConfig, run
    from helios.bench.report import write_report
    from helios.bench.videos import Reading

    if report:
        load_extra("matplotlib", extra="bench")  # before the measurement, not after it
    texts = _prompts(prompts)
    config = QualityConfig(
        out=out,
        mode=mode,
        tier=tier,
        metrics=tuple(metrics.split(",")) if metrics else None,
        prompts=texts,
        weights=_weights(weights),
        judge=JudgeConfig(base_url=judge, instruction_file=judge_instruction) if judge else None,
        device=device,
        reading=Reading(backend=backend),
        workers=workers,
        allow_partial=allow_partial,
    )
    settings = {"steps": parse_steps(steps)} if steps else {}
    listing = _listing(sources, model, texts, limit, num_frames, seed, settings, device, dtype)
    outcome = run(listing, config, _show)
    if report:
        write_report([out], out / "report.html")
    _tell(outcome, as_json)
    raise typer.Exit(outcome.exit_code)


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Results folders of `helios bench quality`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Write this HTML page.")] = Path("comparison.html"),
) -> None:
    """Set several models side by side: a table here, one HTML page with curves and contact sheets.

    Example: `helios bench compare scores/base scores/distilled -o models.html`
    """
    from helios.bench.compare import compare_folders, to_markdown
    from helios.bench.report import write_report

    comparison = compare_folders(folders)
    typer.echo(to_markdown(comparison.offline()))
    typer.echo(str(write_report(folders, out)))


def _prompts(name: str | None) -> "PromptSet | None":
    from helios.bench.prompts import load_prompts

    if name in ("toy", "toy-heldout"):
        from helios.bench.toy import heldout_prompts, toy_prompts

        return toy_prompts() if name == "toy" else heldout_prompts()
    return load_prompts(name) if name else None


def _weights(source: str | None):
    from helios.bench.networks.weights import NoWeights, WeightFolder, WeightHub

    if source is None:
        return NoWeights()
    return WeightHub() if source == "hub" else WeightFolder(path=Path(source))


def _listing(
    sources: list[Path] | None,
    model: str | None,
    prompts: "PromptSet | None",
    limit: int | None,
    num_frames: int | None,
    seed: int,
    settings: dict,
    device: str,
    dtype: str,
) -> "Listing":
    from helios.bench.videos import from_files, from_folder, from_model

    if model is not None and sources:
        raise InputError("videos and --model were both given: score the videos, or drive the model")
    if model is None:
        if not sources:
            raise InputError("nothing to score: pass a folder, video files, or --model")
        return from_folder(sources[0], prompts) if sources[0].is_dir() else from_files(sources, prompts)
    if prompts is None:
        raise InputError("driving a model needs prompts: pass --prompts with the official CSV, a list, or toy")
    from helios import Helios
    from helios.bench.maker import HeliosMaker

    helios = Helios.from_pretrained(None if model == "small" else model, device=device, dtype=dtype)
    chosen = list(prompts.prompts.values())[:limit]
    return from_model(HeliosMaker(helios, settings), chosen, num_frames=num_frames, seed=seed)


def _show(progress: "Progress") -> None:
    message = f": {progress.message}" if progress.message else ""
    typer.echo(f"{progress.done}/{progress.total}  {progress.name}  {progress.state}{message}", err=True)


def _tell(outcome: "Outcome", as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(outcome.merged))
        return
    for metric, reason in outcome.missing.items():
        typer.echo(f"missing  {metric}: {reason}", err=True)
    for kind in ("failed", "skipped"):
        for name, reason in getattr(outcome, kind).items():
            typer.echo(f"{kind}  {name}: {reason}", err=True)
    from helios.bench.compare import compare_folders, to_markdown

    comparison = compare_folders([outcome.out])
    for rows in (comparison.official("raw"), comparison.offline()):
        if any(rows.values()):
            typer.echo(to_markdown(rows))
    typer.echo(f"{outcome.scored} scored, {outcome.kept} kept, {len(outcome.failed)} failed; results in {outcome.out}")
