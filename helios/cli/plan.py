"""``helios plan``: what a run will need in memory, and whether that is here, before anything is loaded."""

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from helios.cli.options import DeviceOption, JsonOption, OfflineOption, RevisionOption, find_model
from helios.errors import InputError

if TYPE_CHECKING:
    import torch

    from helios.checkpoints import CheckpointInfo
    from helios.engine.memory import Footprint, Room, Verdict
    from helios.sampling.plan import SamplingPlan

# Of transformer and text encoder, of the VAE, and the transformer's weights.
_PRECISIONS = (
    ("float32", "float32", "exact"),
    ("bfloat16", "float32", "exact"),
    ("bfloat16", "bfloat16", "exact"),
    ("bfloat16", "bfloat16", "fp8"),
)


def plan(
    model: Annotated[
        str | None,
        typer.Argument(help="Folder, hub id or short name; `14b-random` needs no files; left out: the small model."),
    ] = None,
    height: Annotated[int | None, typer.Option("--height", "-H", help="Pixels.")] = None,
    width: Annotated[int | None, typer.Option("--width", "-W", help="Pixels.")] = None,
    batch: Annotated[int, typer.Option("--batch", help="Videos made together.")] = 1,
    dtype: Annotated[str | None, typer.Option("--dtype", help="One precision; left out: the usual ones.")] = None,
    vae_dtype: Annotated[str, typer.Option("--vae-dtype", help="With --dtype.")] = "float32",
    device: DeviceOption = "auto",
    ahead: Annotated[
        bool, typer.Option("--ahead", help="Decode beside the next chunk: an accelerator then holds more at once.")
    ] = False,
    device_memory: Annotated[
        float | None, typer.Option("--device-memory", metavar="GIB", help="Plan for a device with that much free.")
    ] = None,
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a run needs in device and host memory for each precision, and what fits here. Reads headers only.

    Example: `helios plan helios-distilled --device-memory 80`
    """
    from helios.device import resolve_device
    from helios.engine.memory import Room, footprint, judge
    from helios.engine.pace import DecodeAhead, InTurn
    from helios.engine.pipeline import parse_dtype

    if batch < 1:
        raise InputError(f"batch={batch} makes no video: pass 1 or more")
    if device_memory is not None and not 0 < device_memory < math.inf:
        raise InputError(f"device-memory={device_memory:g} is no size: pass the device's free memory in GiB, like 80")
    target = resolve_device(device)
    found = find_model(model, revision=revision, offline=offline)
    sampling = _sampling_plan(found, height, width)
    room = Room.of(target) if device_memory is None else Room.imagined(int(device_memory * 2**30))
    entries, pace = [], DecodeAhead() if ahead else InTurn()
    for *names, weights in _PRECISIONS if dtype is None else ((dtype, vae_dtype, "exact"),):
        dtypes = dict(zip(("dtype", "vae_dtype"), (parse_dtype(name, target) for name in names)))
        needs = footprint(found, sampling, device=room.device, batch=batch, pace=pace, **dtypes, weights=weights)
        entries.append((needs, judge(needs, room)))
    facts = _facts(found, sampling, room, entries)
    typer.echo(json.dumps(facts)) if as_json else _print(facts)


def _sampling_plan(found: "CheckpointInfo", height: int | None, width: int | None) -> "SamplingPlan":
    from helios.sampling.plan import SamplingPlan

    preset = found.preset
    return SamplingPlan(
        geometry=found.geometry,
        scheduler=found.scheduler,
        height=preset.height if height is None else height,
        width=preset.width if width is None else width,
        steps=preset.steps,
        guidance=preset.guidance,
    )


def _facts(
    found: "CheckpointInfo", sampling: "SamplingPlan", room: "Room", entries: "list[tuple[Footprint, Verdict]]"
) -> dict:
    return {
        "model": str(found.path),
        "variant": found.variant.value,
        "height": sampling.height,
        "width": sampling.width,
        "trained_height": found.preset.height,
        "trained_width": found.preset.width,
        "device": str(room.device),
        "device_free": room.free,
        "device_capacity": room.capacity,
        "host_available": room.host.available,
        "container_limit": room.host.cgroup_limit,
        "precisions": [
            {**asdict(needs), "dtype": _name(needs.dtype), "vae_dtype": _name(needs.vae_dtype), **asdict(verdict)}
            for needs, verdict in entries
        ],
    }


def _name(dtype: "torch.dtype") -> str:
    return str(dtype).removeprefix("torch.")


_ROWS = {
    "transformer": "transformer",
    "vae": "VAE",
    "text_encoder": "text encoder",
    "text_encoding": "working: encoding a prompt",
    "prompt": "prompt: keys and values",
    "history": "history of the stream",
    "decode": "working: decode, whole chunk",
    "decode_early": "working: decode, early frames",
    "needed": "device, all loaded at once",
    "needed_prompts_first": "device, prompts encoded first",
    "needed_least": "device, least with the same pixels",
    "needed_host": "host",
}


def _print(facts: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    console, entries = Console(), facts["precisions"]
    pace = ", decoding ahead" if entries[0]["ahead"] else ""
    table = Table(title=f"{facts['model']}, {facts['height']}x{facts['width']}{pace}", title_justify="left")
    table.add_column("")
    for entry in entries:
        table.add_column(_title(entry), justify="right")
    trained = facts["trained_height"], facts["trained_width"]
    label = "as trained" if (facts["height"], facts["width"]) == trained else "outside training"
    size = f"frame size (trained: {trained[0]}x{trained[1]})"
    table.add_row(size, *(label for _ in entries), end_section=True)
    for name, words in _ROWS.items():
        if name == "decode":
            for level in range(len(entries[0]["levels"])):
                table.add_row(f"working: step at level {level}", *(_size(entry["levels"][level]) for entry in entries))
        table.add_row(
            words, *(_size(entry[name]) for entry in entries), end_section=name in ("history", "decode_early")
        )
    console.print(table)
    limit = facts["container_limit"]
    console.print(
        f"Here: {facts['device']}, {_size(facts['device_free'])} free of {_size(facts['device_capacity'])}; host "
        f"{_size(facts['host_available'])} free, container limit {'none' if limit is None else _size(limit)}."
    )
    for entry in entries:
        console.print(f"{_title(entry)}: {entry['advice']}", highlight=False)


def _title(entry: dict) -> str:
    rounded = "" if entry["loaded"] == "exact" else ", fp8"
    return f"{entry['dtype']}, VAE {entry['vae_dtype']}{rounded}"


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**28 else f"{count / 2**20:.1f} MiB"
