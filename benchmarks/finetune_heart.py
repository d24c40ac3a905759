"""What the fine-tuning example changes: sentences with a heart, which the small model has never seen, before and after.

python benchmarks/finetune_heart.py runs/finetune

Same sentences and seeds for both; none of them is among the clips that were trained on. Writes
benchmarks/results/small/heart.json and docs/images/heart.png: renderer, before, after.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from small_models import RESULTS

from helios import Helios
from helios.bench.records import write_json
from helios.bench.speed.machine import cpu_line
from helios.bench.toy import SEED
from helios.data.toy import CHUNK_FRAMES, NOVEL_SHAPES, SMALL_WORLD, ToyClips, analyse
from helios.data.toy.world import SHAPES

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "heart.png"
SHOWN = 6


def main(
    workspace: Annotated[Path, typer.Argument(help="Of helios train finetune.lora.")],
    count: Annotated[int, typer.Option("--count", "-n", min=SHOWN)] = 16,
    steps: Annotated[int, typer.Option("--steps")] = 25,
    threads: Annotated[int, typer.Option("--threads")] = 2,
) -> None:
    """Measure the shape that is read from the pixels, and draw the middle frames."""
    torch.set_num_threads(threads)
    settings = {"split": "heldout", "complete": True, "shapes": NOVEL_SHAPES, "variety": SMALL_WORLD}
    clips = ToyClips(seed=SEED, count=count, chunks=1, **settings)
    videos = {"renderer": [clips.chunk(k, 0) for k in range(count)]}
    for label, model in (("before", "small-base"), ("after", str(workspace / "lora" / "model"))):
        loaded = Helios.from_pretrained(model, device="cpu", dtype="float32")
        sentences = [str(clips.describe(k)[1]) for k in range(count)]
        videos[label] = [
            loaded.generate(sentence, num_frames=CHUNK_FRAMES, seed=k, steps=(steps,)).frames
            for k, sentence in enumerate(sentences)
        ]
    read = {label: [analyse(v, shapes=SHAPES + NOVEL_SHAPES).shape for v in made] for label, made in videos.items()}
    facts = {
        "read_as_heart": {label: shapes.count("heart") / count for label, shapes in read.items()},
        "count": count,
        "steps": steps,
        "hardware": cpu_line(threads),
        "command": "python benchmarks/finetune_heart.py " + " ".join(sys.argv[1:]),
    }
    write_json(RESULTS / "heart.json", facts)
    rows = [np.concatenate([video[CHUNK_FRAMES // 2] for video in made[:SHOWN]], axis=1) for made in videos.values()]
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(PICTURE)
    typer.echo(json.dumps(facts, indent=1))


if __name__ == "__main__":
    typer.run(main)
