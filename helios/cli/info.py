"""``helios info``: what a checkpoint is, before anything of it is loaded."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from helios.cli.options import JsonOption, OfflineOption, RevisionOption
from helios.errors import InputError

if TYPE_CHECKING:
    from helios.checkpoints import CheckpointInfo


def info(
    model: Annotated[
        str | None, typer.Argument(help="Folder, hub id or short name; left out: the small model.")
    ] = None,
    height: Annotated[int | None, typer.Option("--height", "-H", help="Show legal sizes near this height ...")] = None,
    width: Annotated[int | None, typer.Option("--width", "-W", help="... and this width.")] = None,
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a checkpoint is: variant, sizes, steps, guidance, legal resolutions near a wish.

    Example: `helios info helios-distilled --height 480 --width 832`
    """
    from helios.checkpoints import inspect, resolve

    for name, side in (("height", height), ("width", width)):
        if side is not None and side < 1:
            raise InputError(f"{name}={side} is no size: pass pixels, 1 or more")
    found = inspect(resolve(model, revision=revision, offline=offline or None))
    facts = _facts(found, height, width)
    if as_json:
        typer.echo(json.dumps(facts))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, title=str(found.path), title_justify="left")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), value if isinstance(value, str) else json.dumps(value))
    Console().print(table)


def _facts(found: "CheckpointInfo", height: int | None, width: int | None) -> dict:
    geometry, preset, config = found.geometry, found.preset, found.transformer_config
    parameters = {name: found.parameters(name) for name in ("transformer", "vae", "text_encoder")}
    heads, head_dim = config["num_attention_heads"], config["attention_head_dim"]
    return {
        "variant": found.variant.value,
        "identity": found.identity,
        "parameters": {name: f"{count / 1e6:.2f} M" for name, count in parameters.items()},
        "weights_bfloat16": f"{2 * sum(parameters.values()) / 2**30:.2f} GiB",
        "transformer": f"{config['num_layers']} blocks, width {heads * head_dim}",
        "solver": found.scheduler.solver,
        "levels": geometry.levels,
        "steps": list(preset.steps),
        "guidance": f"{type(preset.guidance).__name__} {getattr(preset.guidance, 'scale', 1)}",
        "amplify_first_chunk": preset.amplify_first_chunk,
        "chunk": f"{geometry.chunk_frames} frames ({geometry.chunk_latent_frames} latent)",
        "default_size": f"{preset.height}x{preset.width}, {preset.num_frames} frames",
        "size_multiple": geometry.size_multiple,
        "legal_sizes_near": _near(found, height or preset.height, width or preset.width),
    }


def _near(found: "CheckpointInfo", height: int, width: int) -> list[str]:
    preset = found.preset
    sizes = found.geometry.nearest_sizes(height, width)
    trained = (preset.height, preset.width)
    return [f"{h}x{w}" + (" (trained)" if (h, w) == trained else " (outside training)") for h, w in sizes]
