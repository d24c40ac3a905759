"""Frames of the first held-out sentences, by the renderer and by a small model, for people to look at.

python benchmarks/small_pictures.py --model small-distilled --steps 2,2,2

Writes docs/images/small-text.png: one row per sentence, the renderer's frames on the left, the model's on the right.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image

from helios import Helios
from helios.bench.toy import heldout_clips
from helios.cli.options import parse_steps
from helios.data.toy import CHUNK_FRAMES

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "small-text.png"
GAP = 8


def main(
    model: Annotated[str, typer.Option("--model", "-m")] = "small-distilled",
    steps: Annotated[str | None, typer.Option("--steps")] = None,
    count: Annotated[int, typer.Option("--count", "-n", help="Sentences.")] = 8,
    columns: Annotated[int, typer.Option("--columns", help="Frames of each video.")] = 5,
    out: Annotated[Path, typer.Option("--out", "-o")] = PICTURE,
    threads: Annotated[int, typer.Option("--threads")] = 2,
) -> None:
    """Draw the sheet and print its sentences."""
    torch.set_num_threads(threads)
    helios, clips = Helios.from_pretrained(model, device="cpu", dtype="float32"), heldout_clips(count)
    shown = np.linspace(0, CHUNK_FRAMES - 1, columns).round().astype(int)
    rows = []
    for k in range(count):
        sentence = str(clips.describe(k)[1])
        typer.echo(f"{k + 1}. {sentence}")
        made = helios.generate(sentence, num_frames=CHUNK_FRAMES, seed=k, steps=parse_steps(steps)).frames
        strips = [np.concatenate(list(frames[shown]), axis=1) for frames in (clips.chunk(k, 0), made)]
        rows.append(
            np.concatenate([strips[0], np.full((strips[0].shape[0], GAP, 3), 255, np.uint8), strips[1]], axis=1)
        )
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(out)
    typer.echo(str(out))


if __name__ == "__main__":
    typer.run(main)
