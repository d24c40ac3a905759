"""Which words a model uses: how much its loss rises when one word of the sentence is wrong.

python benchmarks/word_use.py --model small-base --shrink 2

A word that is not used costs nothing when it is wrong, long before a video shows what the matter is. Clips that were
trained on (`--clips train`) against new ones of the same world tell a learned word from a memorised clip. Keeps one entry per
model, size and clips in benchmarks/results/small/word_use.json and prints it as a table.
B batch, C channels, T latent frames, H W latent height and width.
"""

import json
import sys
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
import typer
from rich.progress import track
from small_models import RESULTS

from helios.bench.records import write_json
from helios.bench.speed.machine import cpu_line
from helios.bench.toy import SEED
from helios.checkpoints import inspect, load_prompt_encoder, load_transformer, load_vae, resolve
from helios.data.toy import ATTRIBUTES, SMALL_WORLD, VOCABULARY, Scene, ToyClips, canonical
from helios.training.methods.flow_matching import EmptyPast, blend, squared_error
from helios.training.methods.sparse import Excerpt
from helios.training.methods.vae import to_signed
from helios.training.network import Network
from helios.training.seeds import Draws

_TRAINED_SEED = 2
"""Of the world of ``pretrain_places`` and ``pretrain_times`` in recipes/toy.py."""


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
    excerpt = Excerpt(shrink=shrink)
    torch.set_num_threads(threads)
    info = inspect(resolve(model))
    vae, encoder = load_vae(info, "cpu"), load_prompt_encoder(info, "cpu", torch.float32)
    network = Network(module=load_transformer(info, "cpu", torch.float32).eval())
    seed, split = {"train": (_TRAINED_SEED, "train"), "new": (SEED, "heldout")}[clips]
    world = ToyClips(seed=seed, count=count, chunks=1, split=split, variety=SMALL_WORLD)
    scenes = [world.describe(k)[0] for k in range(count)]

    frames = (torch.from_numpy(world.chunk(k, 0))[None] for k in range(count))
    whole_BCTHW = torch.cat([vae.normalize(vae.encode_moments(to_signed(pixels))[0]) for pixels in frames])
    clean_BCTHW, _ = excerpt.take(whole_BCTHW, tuple(range(whole_BCTHW.shape[2])), Draws(0, 0, tuple(range(count))))
    noise_BCTHW = torch.randn(clean_BCTHW.shape, generator=torch.Generator().manual_seed(0))
    history = EmptyPast().before(whole_BCTHW, shrink, network, info.geometry)

    def loss(wrong: str | None, sigma: float) -> float:
        text = network.encode_text(encoder.encode([str(canonical(_with_wrong(scene, wrong))) for scene in scenes]))
        noisy_BCTHW = blend(clean_BCTHW, noise_BCTHW, torch.full((count,), sigma))
        velocity = network.velocity(noisy_BCTHW, torch.full((count,), 1000 * sigma), text, history)
        return float(squared_error(velocity, noise_BCTHW - clean_BCTHW))

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
    path, key = RESULTS / "word_use.json", ("model", "shrink", "clips")
    entries = json.loads(path.read_text()) if path.is_file() else []
    write_json(path, [*(e for e in entries if any(e[name] != entry[name] for name in key)), entry])
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
