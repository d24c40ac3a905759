"""``helios data``: videos with captions into training data.

Exit code 3 of ``prepare``: the data set is finished, and some videos are not in it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from helios.cli.options import DeviceOption, JsonOption, ModelOption, OfflineOption, RevisionOption
from helios.errors import InputError

if TYPE_CHECKING:
    from helios.checkpoints import CheckpointInfo
    from helios.data import Buckets, Plan, Result, Skipped
    from helios.data.look import Progress, Show

data = typer.Typer(help="Make training data: from your own videos, or from the toy world.", no_args_is_help=True)

SOME_LEFT_OUT = 3
_STAGES = {"toy": "drawing videos", "look": "opening videos", "text": "encoding captions", "clips": "encoding chunks"}
_NAMED = 20


@data.callback()
def _data() -> None:
    """Make training data: from your own videos, or from the toy world."""


@data.command()
def prepare(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="A folder of videos with captions, or a .jsonl, .json or .csv list of them."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the data set: new, or begun before.")],
    model: ModelOption = None,
    fps: Annotated[str, typer.Option("--fps", help="Frames per second, or `source`: every frame as it is.")] = "auto",
    sizes: Annotated[
        str,
        typer.Option(
            "--sizes",
            help="`own` (what the checkpoint was trained at), `released` (11 shapes), or a list: `384x640,640x384`.",
        ),
    ] = "own",
    only: Annotated[
        str | None, typer.Option("--only", metavar="HxW", help="Keep the videos whose nearest size is this one.")
    ] = None,
    min_chunks: Annotated[int, typer.Option("--min-chunks", help="Leave out what is shorter (33 frames each).")] = 1,
    max_chunks: Annotated[int, typer.Option("--max-chunks", help="Split what is longer.")] = 15,
    prefix: Annotated[str, typer.Option("--prefix", help="Words before every caption.")] = "",
    stills: Annotated[
        bool, typer.Option("--stills/--no-stills", help="Also encode the pictures that image-to-video starts from.")
    ] = True,
    text: Annotated[bool, typer.Option("--text/--no-text", help="Store the captions' states.")] = True,
    latent_dtype: Annotated[
        str, typer.Option("--latent-dtype", help="`float32`, or `float16` for half the disk.")
    ] = "float32",
    seed: Annotated[int, typer.Option("--seed", help="Of the VAE's samples.")] = 0,
    workers: Annotated[int, typer.Option("--workers", help="Videos decoded together; 0: half the cores.")] = 0,
    part: Annotated[
        str, typer.Option("--part", metavar="I/N", help="Make share I of N; all N may run at once on one file system.")
    ] = "1/1",
    latents_per_part: Annotated[
        int | None, typer.Option("--latents-per-part", help="Encode so many latent frames at a time: less memory.")
    ] = None,
    device: DeviceOption = "auto",
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Open every video, print what it would take, stop.")
    ] = False,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Encode a folder of videos into latents and text states for training. Killed, the same command goes on.

    A caption is the `.txt` beside a video, or a row of `metadata.jsonl`, `.json` or `.csv` in the folder.

    Exit code 3: finished, and some videos were left out (each is named, with the reason).

    Example: `helios data prepare my-videos -o my-data`
    """
    from helios import data as library
    from helios.checkpoints import inspect, resolve

    share = _parse_part(part)
    info = inspect(resolve(model, revision=revision, offline=offline or None))
    config = library.PrepareConfig(
        buckets=_buckets(sizes, only, info),
        fps=_parse_fps(fps, info),
        min_chunks=min_chunks,
        max_chunks=max_chunks,
        stills=stills,
        text=text,
        prefix=prefix,
        latent_dtype=latent_dtype,
        seed=seed,
    )
    workers = workers or _half_the_cores()
    with _progress(quiet=quiet) as show:
        earlier = library.earlier_plan(out)
        plan = library.make_plan(
            library.find_sources(source), info, config, earlier=earlier, workers=workers, show=show
        )
    _announce(plan, quiet=quiet and not dry_run, as_json=as_json, dry_run=dry_run)
    if dry_run:
        return
    with _progress(quiet=quiet) as show:
        result = library.prepare(
            plan, info, out, device=device, workers=workers, part=share, latents_per_part=latents_per_part, show=show
        )
    _conclude(out, result, as_json=as_json)


@data.command()
def show(
    folder: Annotated[Path, typer.Argument(metavar="DATA", help="Folder of a data set.")],
    as_json: JsonOption = False,
) -> None:
    """Say what a data set holds: clips and chunks per size, captions, what was left out.

    Example: `helios data show my-data`
    """
    from helios.data.loader import read_index
    from helios.data.plan import size_in_words

    index = read_index(folder)
    sizes: dict[str, dict[str, int]] = {}
    for clip in index["clips"]:
        counts = sizes.setdefault(f"{clip['height']}x{clip['width']}", {"clips": 0, "chunks": 0})
        counts["clips"] += 1
        counts["chunks"] += clip["chunks"]
    facts = {
        "sizes": sizes,
        "captions": len(index["captions"]),
        "bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        "vae": index["vae"],
        "text_encoder": index["text_encoder"],
        "settings": index["settings"],
        "skipped": index["skipped"],
    }
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for size, counts in sizes.items():
        typer.echo(f"{size}: {counts['clips']} clips, {counts['chunks']} chunks")
    typer.echo(f"{facts['captions']} captions, {size_in_words(facts['bytes'])}")
    _name_skipped([(skip["name"], skip["reason"]) for skip in index["skipped"]], err=False)


@data.command()
def toy(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the videos and their metadata.jsonl.")],
    clips: Annotated[int, typer.Option("--clips", "-n", help="How many videos.")],
    chunks: Annotated[int, typer.Option("--chunks", help="Length of each, in chunks of 33 frames.")] = 4,
    height: Annotated[int, typer.Option("--height", "-H", help="Pixels.")] = 64,
    width: Annotated[int, typer.Option("--width", "-W", help="Pixels.")] = 64,
    split: Annotated[
        str, typer.Option("--split", help="`train`, or `heldout`: combinations and phrasings that training never sees.")
    ] = "train",
    shape: Annotated[
        list[str] | None, typer.Option("--shape", help="Draw only these, such as `heart`, which is not in `train`.")
    ] = None,
    changes: Annotated[
        int, typer.Option("--changes", help="Attributes that change midway: two captions per video. 0: none do.")
    ] = 0,
    complete: Annotated[bool, typer.Option("--complete", help="Captions that say every attribute.")] = False,
    spread: Annotated[
        float, typer.Option("--spread", help="Objects start anywhere (1) or where their motion needs them (near 0).")
    ] = 1.0,
    places: Annotated[int, typer.Option("--places", help="Different sceneries per background.")] = 2**32,
    seed: Annotated[int, typer.Option("--seed", help="Picks the clips.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Draw videos of the toy world with their captions, in the layout that `prepare` reads.

    Example: `helios data toy -o toy-videos --clips 200`. The small models' own world is `--spread 0.12 --places 2`.
    """
    from helios.data.look import Progress
    from helios.data.toy import CHUNK_FRAMES, ToyChanges, ToyClips, Variety, write_dataset

    settings: dict[str, Any] = {"seed": seed, "count": clips, "chunks": chunks, "height": height, "width": width}
    settings |= {"split": split, "complete": complete, "variety": Variety(spread=spread, places=places)}
    if changes and shape:
        raise InputError("--shape and --changes were both given: leave one out")
    if shape:
        settings["shapes"] = tuple(shape)
    world = ToyChanges(**settings, changes=changes) if changes else ToyClips(**settings)
    with _progress(quiet=quiet) as show:
        metadata = write_dataset(
            out,
            world,
            overwrite=force,
            progress=lambda done, total: show(Progress(stage="toy", done=done, total=total)),
        )
    typer.echo(f"{metadata}  ({clips} videos of {chunks * CHUNK_FRAMES} frames)")


def _parse_part(text: str):
    from helios.data import Part

    index, slash, of = text.partition("/")
    if not (slash and index.isdigit() and of.isdigit()):
        raise InputError(f"part={text!r} cannot be read: write share and number of shares, such as 2/8")
    return Part(index=int(index) - 1, of=int(of))


def _parse_fps(text: str, info: "CheckpointInfo") -> float | None:
    if text in ("auto", "source"):
        return info.preset.fps if text == "auto" else None
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"fps={text!r} is no frame rate: use a number such as 24, or source") from error


def _buckets(sizes: str, only: str | None, info: "CheckpointInfo") -> "Buckets":
    from helios.data import RELEASED_SIZES, Buckets
    from helios.data.buckets import parse_size

    named = {"own": ((info.preset.height, info.preset.width),), "released": RELEASED_SIZES}
    wanted = named[sizes] if sizes in named else tuple(map(parse_size, sizes.split(",")))
    return Buckets(sizes=wanted, only=None if only is None else parse_size(only))


def _half_the_cores() -> int:
    import os

    return max(1, (os.cpu_count() or 2) // 2)


@contextmanager
def _progress(*, quiet: bool) -> Iterator["Show"]:
    """A bar on terminals, a line per tenth in logs."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield (lambda progress: None) if quiet else _line_per_tenth
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        tasks = {stage: bar.add_task(name, total=None, visible=False) for stage, name in _STAGES.items()}
        yield lambda p: bar.update(tasks[p.stage], completed=p.done, total=p.total, visible=True)


def _line_per_tenth(progress: "Progress") -> None:
    tenth = max(1, progress.total // 10)
    if progress.done % tenth == 0 or progress.done == progress.total:
        typer.echo(f"{_STAGES[progress.stage]}: {progress.done} of {progress.total}", err=True)


def _announce(plan: "Plan", *, quiet: bool, as_json: bool, dry_run: bool) -> None:
    from helios.data.plan import size_in_words

    estimate = plan.estimate
    if dry_run and as_json:
        facts = {**asdict(estimate), "total": estimate.total, "skipped": [asdict(skip) for skip in plan.skipped]}
        typer.echo(json.dumps(facts))
    elif not quiet:
        parts = ", ".join(f"{name} {size_in_words(getattr(estimate, name))}" for name in ("latents", "stills", "text"))
        text = f"{estimate.clips} clips, {estimate.chunks} chunks, {size_in_words(estimate.total)} on disk ({parts})"
        typer.echo(text, err=not dry_run)
        if dry_run:
            _name_skipped(_pairs(plan.skipped), err=False)


def _conclude(out: Path, result: "Result", *, as_json: bool) -> None:
    """Say what came of it; left-out videos decide the exit code."""
    facts: dict[str, Any] = {
        "out": str(out),
        "complete": result.complete,
        "clips": result.clips,
        "chunks": result.chunks,
        "skipped": [asdict(skip) for skip in result.skipped],
    }
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        waiting = "" if result.complete else ", waiting for other parts"
        typer.echo(f"{out}  ({result.clips} clips, {result.chunks} chunks{waiting})")
    _name_skipped(_pairs(result.skipped), err=True)
    if result.skipped:
        raise typer.Exit(SOME_LEFT_OUT)


def _pairs(skipped: "tuple[Skipped, ...]") -> list[tuple[str, str]]:
    return [(skip.name, skip.reason) for skip in skipped]


def _name_skipped(skipped: list[tuple[str, str]], *, err: bool) -> None:
    if not skipped:
        return
    typer.echo(f"{len(skipped)} left out:", err=err)
    for name, reason in skipped[:_NAMED]:
        line = f"  {name}: {reason}"
        typer.echo(line.encode("utf-8", "backslashreplace").decode(), err=err)  # a name may be bytes that are no UTF-8
    if len(skipped) > _NAMED:
        typer.echo(f"  and {len(skipped) - _NAMED} more, all named in the index", err=err)
