"""``helios bench``: how fast, and how good."""

import json
from pathlib import Path
from typing import Annotated

import typer

from helios.cli.options import (
    AccelerateOption,
    AheadOption,
    ApproximateOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    find_model,
    parse_accelerations,
    parse_approximations,
    parse_steps,
)
from helios.errors import InputError
from helios.extras import load_extra

_ENDINGS = (".json", ".md", ".png")

bench = typer.Typer(help="Measure: speed against the machine's limit and Diffusers; quality of long video.")


@bench.command()
def speed(
    model: ModelOption = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against", help="`diffusers` or `diffusers-compiled`, on the same weights, in turns; repeatable."
        ),
    ] = None,
    chunks: Annotated[int, typer.Option("--chunks", help="Length of a run in chunks of 33 frames.")] = 3,
    rounds: Annotated[int, typer.Option("--rounds", help="Timed runs of each; medians are reported.")] = 7,
    steps: Annotated[str | None, typer.Option("--steps", metavar="1,1,1", help="Steps per level.")] = None,
    amplify: Annotated[
        bool | None,
        typer.Option("--amplify-first-chunk/--no-amplify-first-chunk", help="Twice the steps in chunk one."),
    ] = None,
    height: Annotated[int | None, typer.Option("--height", "-H", help="Pixels.")] = None,
    width: Annotated[int | None, typer.Option("--width", "-W", help="Pixels.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", help="Threads on the CPU.")] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    vae_dtype: Annotated[str, typer.Option("--vae-dtype", help="`float32` as published, or `bfloat16`.")] = "float32",
    vae_device: Annotated[str | None, typer.Option("--vae-device", help="Another device for the VAE.")] = None,
    accelerate: AccelerateOption = None,
    approximate: ApproximateOption = None,
    ahead: AheadOption = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write NAME.json, NAME.md and NAME.png.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure frames per second, first frame, chunk times and memory; text encoding and decoding are included.

    `--model 14b-random` (or `small-random`, `tiny-random`) measures a model without files: weights made on the device,
    made-up text.

    Example: `helios bench speed -m 14b-random --steps 1,1,1 --against diffusers`
    """
    from helios.bench.speed import SpeedConfig, markdown, measure_speed
    from helios.device import resolve_device
    from helios.engine.pace import DecodeAhead, InTurn
    from helios.engine.pipeline import Helios
    from helios.engine.prepare import prepare

    pace = DecodeAhead() if ahead else InTurn()
    accelerations = parse_accelerations(accelerate, resolve_device(device))
    nearly = parse_approximations(approximate) or ()
    config = SpeedConfig(rounds=rounds, against=tuple(against or ()), pace=pace, approximations=nearly)
    if threads is not None:
        _use_threads(threads)
    if out is not None:
        load_extra("matplotlib", extra="bench")  # before the measurement, not after it
    info = find_model(model)
    prepared = prepare(
        info,
        "a red circle moves right",
        num_frames=chunks * info.geometry.chunk_frames,
        height=height,
        width=width,
        steps=parse_steps(steps),
        amplify_first_chunk=amplify,
    )
    helios = Helios.from_info(info, device=device, dtype=dtype, vae_dtype=vae_dtype, vae_device=vae_device)
    helios.accelerate(*accelerations)
    result = measure_speed(helios, prepared, config, progress=lambda text: typer.echo(text, err=True))
    if out is not None:
        _write(result, out)
    typer.echo(json.dumps(result) if as_json else markdown(result))


def _use_threads(count: int) -> None:
    """Raises: InputError when there would be none."""
    import torch

    if count < 1:
        raise InputError(f"threads={count} computes nothing: pass 1 or more")
    torch.set_num_threads(count)


def _write(result: dict, out: Path) -> None:
    """``out`` with three endings in place of one of them; another dot in its name (``v1.5``) is no ending."""
    from helios.bench.speed import markdown, plot_chunk

    out.parent.mkdir(parents=True, exist_ok=True)
    stem = out.stem if out.suffix in _ENDINGS else out.name
    json_file, table, picture = (out.with_name(stem + ending) for ending in _ENDINGS)
    json_file.write_text(json.dumps(result, indent=2) + "\n")
    table.write_text(markdown(result) + "\n")
    plot_chunk(result, picture)
