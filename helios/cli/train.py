"""``helios train``: run a recipe, one phase or all of them, or say what it would take."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from helios.cli.options import DeviceOption, JsonOption
from helios.errors import InputError

if TYPE_CHECKING:
    from helios.training.estimate import PhaseEstimate
    from helios.training.phase import Phase, Start
    from helios.training.trainer import Progress

EPILOG = "What the settings mean, and how the stages follow each other: docs/training.md."


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(help="`module.phase`, or `module` for all its phases in order. Left out: list the recipes."),
    ] = None,
    workspace: Annotated[
        Path | None,
        typer.Option("--workspace", "-w", help="Folder of all phases; default: runs/MODULE."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace one setting, such as `optim.lr=3e-5`; repeatable."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", help="Stop with a checkpoint after so long; the same command goes on later."),
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", help="CPU threads.")] = None,
    device: DeviceOption = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print settings, parameters, memory, disk and data needed; then stop.")
    ] = False,
    prepare_only: Annotated[
        bool,
        typer.Option(
            "--prepare-only", help="Make one phase's start, latents or pairs and train nothing: for torchrun."
        ),
    ] = False,
    devices: Annotated[int, typer.Option("--devices", help="With --dry-run: how many share the batch.")] = 1,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Train: pretraining, the three stages, a fine-tune. Killed at any moment, the same command goes on.

    A phase that is finished is not repeated. Under `torchrun` give one phase, not a whole module, and
    run it once with `--prepare-only` first, without `torchrun`.

    Examples: `helios train toy --dry-run`, `helios train toy.vae -w runs/toy --minutes 30`,
    `helios train toy.stage1_init --set run.steps=500 --set optim.lr=0.01`
    """
    import recipes

    if recipe is None:
        _list(as_json)
        return
    if dry_run and prepare_only:
        raise InputError("--dry-run makes nothing and --prepare-only does: pass one of them")
    names = recipes.find_all(recipe)
    if settings and len(names) > 1:
        raise InputError(f"--set changes one phase and {recipe} has {len(names)}: name one, such as {names[0]}")
    folder = workspace or Path("runs") / names[0].partition(".")[0]
    phases = [_configured(name, settings or [], minutes) for name in names]
    if dry_run:
        _dry_run(phases, folder, recipes.origin(names[0]), devices, as_json=as_json)
        return
    if threads is not None:
        _use_threads(threads)
    if prepare_only:
        _prepare(phases, folder, device=device, quiet=quiet, as_json=as_json)
        return
    for phase in phases:
        if not _run(phase, folder, device=device, quiet=quiet, as_json=as_json):
            return


def _list(as_json: bool) -> None:
    import recipes

    found = {name: (recipes.find(name).__doc__ or "").strip().splitlines()[0] for name in recipes.names()}
    if as_json:
        typer.echo(json.dumps(found))
        return
    width = max(map(len, found))
    for name, text in found.items():
        typer.echo(f"{name:<{width}}  {text}")


def _configured(name: str, settings: list[str], minutes: float | None) -> "Phase":
    import recipes
    from helios.training.config import apply_overrides

    phase = apply_overrides(recipes.find(name)(), settings)
    return phase if minutes is None else replace(phase, run=replace(phase.run, max_minutes=minutes))


def _use_threads(count: int) -> None:
    import torch

    if count < 1:
        raise InputError(f"threads={count}: use 1 or more")
    torch.set_num_threads(count)


def _run(phase: "Phase", folder: Path, *, device: str, quiet: bool, as_json: bool) -> bool:
    """Whether the phase is finished."""
    from helios.training.run import run_phase

    with _progress(phase.name, quiet=quiet) as show:
        result = run_phase(phase, folder, device=device, show=show)
    facts = {
        "phase": phase.name,
        "step": result.run.step,
        "finished": result.run.finished,
        "checkpoint": str(result.run.checkpoint),
        "model": result.model and str(result.model),
    }
    if as_json:
        typer.echo(json.dumps(facts))
    elif result.run.finished:
        where = f"model {result.model}" if result.model else f"checkpoint {result.run.checkpoint}"
        typer.echo(f"{phase.name}: finished at step {result.run.step}, {where}")
    else:
        typer.echo(f"{phase.name}: stopped at step {result.run.step} of {phase.run.steps}; the same command goes on")
    return result.run.finished


def _prepare(phases: "list[Phase]", folder: Path, *, device: str, quiet: bool, as_json: bool) -> None:
    from helios.training.run import prepare_phase

    if len(phases) > 1:
        raise InputError(f"--prepare-only prepares one phase and this recipe has {len(phases)}: name one of them")
    (phase,) = phases
    with _progress(phase.name, quiet=quiet):
        made = [str(path) for path in prepare_phase(phase, folder, device=device)]
    typer.echo(json.dumps({"phase": phase.name, "prepared": made}) if as_json else f"{phase.name}: {', '.join(made)}")


@contextmanager
def _progress(name: str, *, quiet: bool) -> Iterator[Callable[["Progress"], None]]:
    """A bar with the loss and the time left on terminals, log lines elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    logger = logging.getLogger("helios.training")
    if quiet or not console.is_terminal:
        before = logger.level
        logger.setLevel(logging.WARNING if quiet else logging.INFO)
        try:
            yield lambda progress: None
        finally:
            logger.setLevel(before)
        return
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), "{task.fields[text]}", TimeElapsedColumn())
    with Bar(*(TextColumn(c) if isinstance(c, str) else c for c in columns), console=console) as bar:
        task = bar.add_task(name, total=None, text="preparing")

        def show(progress: "Progress") -> None:
            bar.update(task, completed=progress.step, total=progress.steps, text=_summary(progress))

        yield show


def _summary(progress: "Progress") -> str:
    losses = "  ".join(f"{name} {value:.4g}" for name, value in progress.numbers.items() if name.endswith("/loss"))
    left = int(progress.seconds_left)
    return (
        f"{losses}  {progress.seconds_per_step:.2f} s a step  {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"
    )


def _dry_run(phases: "list[Phase]", folder: Path, origin: "Start", devices: int, *, as_json: bool) -> None:
    from helios.training.config import to_plain
    from helios.training.estimate import estimate_phase

    estimates = [estimate_phase(phase, folder, origin, ranks=devices) for phase in phases]
    if as_json:
        typer.echo(json.dumps([_facts(phase, found) for phase, found in zip(phases, estimates)]))
        return
    if len(phases) == 1:
        typer.echo(json.dumps(to_plain(phases[0]), indent=2))
    for phase, found in zip(phases, estimates):
        for line in _lines(phase, found):
            typer.echo(line)


def _facts(phase: "Phase", found: "PhaseEstimate") -> dict:
    from helios.training.config import to_plain

    return {"phase": phase.name, "settings": to_plain(phase), "estimate": asdict(found) | {"memory": found.memory}}


def _lines(phase: "Phase", found: "PhaseEstimate") -> list[str]:
    from helios.data.plan import size_in_words
    from helios.training.estimate import describe_data

    critic = f", critic {_millions(found.critic_trained)}" if found.critic_trained else ""
    parts = {
        "weights": found.weights,
        "optimiser": found.optimiser,
        "average": found.average,
        "activations about": found.activations,
    }
    memory = ", ".join(f"{name} {size_in_words(value)}" for name, value in parts.items() if value)
    longest = f", {found.tokens} tokens at most" if found.tokens else ""
    return [
        f"{phase.name}: {phase.run.steps} steps of {phase.run.batch_size} clips{longest}",
        f"  trained   {_millions(found.trained)} of {_millions(found.parameters)} parameters{critic}",
        f"  memory    {size_in_words(found.memory)} on one device ({memory})",
        f"  disk      {size_in_words(found.disk)}, {size_in_words(found.checkpoint)} a checkpoint",
        f"  data      {found.clips} clips read; {describe_data(phase)}",
    ]


def _millions(count: int) -> str:
    return f"{count / 1e9:.2f} billion" if count >= 1e9 else f"{count / 1e6:.2f} million"
