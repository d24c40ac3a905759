"""``helios show``: what a video is and how it was made."""

import json
from pathlib import Path
from typing import Annotated

import typer

from helios.cli.options import JsonOption


def show(
    file: Annotated[Path, typer.Argument(help="A video that Helios made, or its .json.")],
    sheet: Annotated[Path | None, typer.Option("--sheet", metavar="F.png", help="Write a contact sheet here.")] = None,
    columns: Annotated[int, typer.Option("--columns", help="Pictures per row of the sheet.")] = 6,
    as_json: JsonOption = False,
) -> None:
    """Print the seed, settings, prompts and checkpoint recorded in a video, and what the file holds.

    Example: `helios show fox.mp4 --sheet fox.png`
    """
    from helios.media import read_record

    record = read_record(file)
    if as_json:
        typer.echo(json.dumps(record))
    else:
        _print(file, record)
    if sheet is not None:
        _draw(file, sheet, columns)


def _print(file: Path, record: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=str(file), show_header=False, title_justify="left")
    for name, value in _rows(record):
        table.add_row(name, value)
    Console().print(table)


def _rows(record: dict):
    for name, value in record.items():
        if name == "timelines" and isinstance(value, list):
            for cue in (cue for cues in value for cue in cues):
                yield f"prompt from chunk {cue['chunk']}", cue["prompt"]
        elif isinstance(value, dict):
            yield from ((f"{name}.{key}", str(inner)) for key, inner in value.items())
        else:
            yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _draw(file: Path, sheet: Path, columns: int) -> None:
    """Two rows of frames from the first to the last; the file is read twice, and only what is drawn is kept."""
    from helios.media import contact_sheet, stream_frames

    last = sum(1 for _ in stream_frames(file, fps=None)) - 1
    picks = [i * last // max(1, 2 * columns - 1) for i in range(2 * columns)]
    wanted = set(picks)
    kept = {i: frame_HWC for i, frame_HWC in enumerate(stream_frames(file, fps=None)) if i in wanted}
    contact_sheet([kept[i] for i in picks], columns, sheet, labels=[f"frame {i}" for i in picks])
    typer.echo(str(sheet))
