"""Which words a model uses: how much its loss rises when one word of the sentence is wrong.

python benchmarks/word_use.py --model small-base --shrink 2

A word that is not used costs nothing when it is wrong, long before a video shows what the matter is. Clips that were
trained on (`--clips train`) against new ones of the same world tell a learned word from a memorised clip. Keeps one entry per
model, size and clips in benchmarks/results/small/word_use.json and prints it as a table.
B batch, C channels, T latent frames, H W latent height and width.
"""

import sys
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
import typer
from first_chunks import FirstChunks
from rich.progress import track
from small_models import RESULTS, keep

from helios.bench.speed.machine import cpu_line
from helios.bench.toy import heldout_clips
from helios.data.toy import ATTRIBUTES, VOCABULARY, Scene, canonical
from helios.errors import InputError
from helios.training.methods.flow_matching import squared_error
from recipes import toy


@torch.no_grad()
def main(
    model: Annotated[str, typer.Option("--model", "-m")] = "small-base",
    sigmas: Annotated[str, typer.Option("--sigmas", help="Noise levels from 0 to 1.")] = "0.97,0.9",
    shrink: Annotated[int, typer.Option("--shrink", help="Halvings of the size as in the pyramid: 1, 2 or 4.")] = 2,
    clips: Annotated[str, typer.Option("--clips", help="`train`, or `new` ones with new combinations.")] = "new",
    count: Annotated[int, typer.Option("--count", "-n")] = 64,
    threads: Annotated[int, typer.Option("--threads")] = 2,
) -> None:
    """Measure one model at the first chunk of a video."""
    if clips not in ("train", "new"):
        raise InputError(f"there are no clips {clips!r}: use train or new")
    torch.set_num_threads(threads)
    world = heldout_clips(count) if clips == "new" else toy.stage2_text().data.world.clips
    chunks = FirstChunks(model, world, count, shrink)
    scenes = [world.describe(k)[0] for k in range(count)]

    def loss(wrong: str | None, sigma: float) -> float:
        text = chunks.read([str(canonical(_with_wrong(scene, wrong))) for scene in scenes])
        velocity = chunks.velocity(chunks.at(sigma), sigma, text)
        return float(squared_error(velocity, chunks.noise_BCTHW - chunks.clean_BCTHW))

    rises = {}
    for sigma in track([float(s) for s in sigmas.split(",")], disable=not sys.stderr.isatty()):
        right = loss(None, sigma)
        rises[f"{sigma:g}"] = {"loss": right} | {name: loss(name, sigma) / right - 1 for name in ATTRIBUTES}
    entry = {
        "model": model,
        "shrink": shrink,
        "clips": clips,
        "count": count,
        "rises": rises,
        "hardware": cpu_line(threads),
        "command": "python benchmarks/word_use.py " + " ".join(sys.argv[1:]),
    }
    keep(RESULTS / "word_use.json", entry, key=("model", "shrink", "clips"))
    typer.echo("| noise | loss | " + " | ".join(ATTRIBUTES) + " |\n|" + "--:|" * (2 + len(ATTRIBUTES)))
    for sigma, row in rises.items():
        shares = " | ".join(f"{100 * row[name]:+.1f}" for name in ATTRIBUTES)
        typer.echo(f"| {sigma} | {row['loss']:.3f} | {shares} |")


def _with_wrong(scene: Scene, attribute: str | None) -> Scene:
    """The scene with another word for one attribute, the same one at every call."""
    if attribute is None:
        return scene
    others = [word for word in VOCABULARY[attribute] if word != getattr(scene, attribute)]
    pick = np.random.default_rng([scene.seed, *map(ord, attribute + scene.colour + scene.background)]).integers
    words: dict[str, str] = {attribute: others[pick(len(others))]}
    return replace(scene, **words)


if __name__ == "__main__":
    typer.run(main)
