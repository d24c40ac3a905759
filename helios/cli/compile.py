"""``helios compile``: transformer blocks compiled ahead of time, to be loaded without a compiler."""

from pathlib import Path
from typing import Annotated

import typer

from helios.cli.options import DeviceOption, DtypeOption, ModelOption, find_model


def compile_blocks(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the packages.")],
    model: ModelOption = None,
    height: Annotated[int | None, typer.Option("--height", "-H", help="Pixels.")] = None,
    width: Annotated[int | None, typer.Option("--width", "-W", help="Pixels.")] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
) -> None:
    """Compile the repeated block once per pyramid level, for this machine, precision and frame size (AOTInductor).

    Needs a C++ compiler and some minutes; `helios generate --accelerate DIR`, or `PackagedBlocks(folder=DIR)` in
    Python, then load it at once.

    Example: `helios compile -m helios-distilled -o packages`
    """
    from helios.engine.acceleration import require_compiler
    from helios.engine.packages import build_packages
    from helios.engine.pipeline import Helios
    from helios.engine.prepare import prepare

    require_compiler()
    info = find_model(model)
    prepared = prepare(info, "a red circle moves right", height=height, width=width)
    helios = Helios.from_info(info, device=device, dtype=dtype, prompts=prepared.prompts)
    folder = build_packages(helios.transformer, lambda: helios.warm_up(prepared), out)
    typer.echo(f"{folder}  ({len(list(folder.glob('*.pt2')))} shapes)")
