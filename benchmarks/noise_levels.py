"""At which noise level a model decides what: held-out clips, noised to sigma, sampled back, read from the pixels.

python benchmarks/noise_levels.py --model small-base

An attribute that is still right was decided below sigma, or its noisy clip still shows it; one that is lost is decided
above. Keeps one entry per model and size in benchmarks/results/small/noise_levels.json and prints it as a table.
B batch, C channels, T latent frames, H W latent height and width.
"""

import itertools
import sys
from typing import Annotated

import torch
import typer
from first_chunks import FirstChunks
from rich.progress import track
from small_models import RESULTS, keep
from torch import Tensor
from torch.nn.functional import interpolate

from helios.bench.speed.machine import cpu_line
from helios.bench.toy import heldout_clips
from helios.data.toy import ATTRIBUTES, accuracy, score
from helios.models.transformer.context import TextContext


@torch.no_grad()
def main(
    model: Annotated[str, typer.Option("--model", "-m")] = "small-base",
    sigmas: Annotated[str, typer.Option("--sigmas", help="Noise levels from 0 to 1.")] = "0.3,0.6,0.75,0.85,0.92,0.97",
    shrink: Annotated[int, typer.Option("--shrink", help="Halvings of the size as in the pyramid: 1, 2 or 4.")] = 1,
    count: Annotated[int, typer.Option("--count", "-n")] = 20,
    steps: Annotated[int, typer.Option("--steps", help="Of a whole trajectory.")] = 24,
    guidance: Annotated[float, typer.Option("--guidance")] = 3.0,
    threads: Annotated[int, typer.Option("--threads")] = 2,
) -> None:
    """Measure one model."""
    torch.set_num_threads(threads)
    clips = heldout_clips(count)
    chunks = FirstChunks(model, clips, count, shrink)
    scenes, sentences = zip(*(clips.describe(k) for k in range(count)))
    texts = chunks.read([str(sentence) for sentence in sentences]), chunks.read([""] * count)
    rows = {}
    for sigma in track([float(s) for s in sigmas.split(",")], disable=not sys.stderr.isatty()):
        made_BCTHW = sampled_back(chunks, sigma, steps, *texts, guidance)
        made_BCTHW = interpolate(made_BCTHW, scale_factor=(1, shrink, shrink))
        vae = chunks.vae
        videos = [vae.to_uint8(vae.decode(x[None]).clamp(-1, 1))[0].numpy() for x in made_BCTHW]
        rows[f"{sigma:g}"] = accuracy(score(video, scene) for video, scene in zip(videos, scenes)).shares
    entry = {
        "model": model,
        "shrink": shrink,
        "count": count,
        "sigmas": rows,
        "hardware": cpu_line(threads),
        "command": "python benchmarks/noise_levels.py " + " ".join(sys.argv[1:]),
    }
    keep(RESULTS / "noise_levels.json", entry, key=("model", "shrink"))
    typer.echo("| noised to | " + " | ".join(ATTRIBUTES) + " |\n|" + "--:|" * (1 + len(ATTRIBUTES)))
    for sigma, shares in rows.items():
        typer.echo(f"| {sigma} | " + " | ".join(f"{100 * shares[name]:.0f}" for name in ATTRIBUTES) + " |")


def sampled_back(
    chunks: FirstChunks, sigma: float, steps: int, text: TextContext, empty: TextContext, guidance: float
) -> Tensor:
    """Euler steps from ``sigma`` to clean, evenly spaced, at least 6 of ``steps`` for a whole trajectory."""
    x_BCTHW, sigmas = chunks.at(sigma), torch.linspace(sigma, 0, max(6, round(steps * sigma)) + 1).tolist()
    for here, there in itertools.pairwise(sigmas):
        v_BCTHW = chunks.velocity(x_BCTHW, here, text)
        if guidance != 1:
            free_BCTHW = chunks.velocity(x_BCTHW, here, empty)
            v_BCTHW = free_BCTHW + guidance * (v_BCTHW - free_BCTHW)
        x_BCTHW = x_BCTHW + (there - here) * v_BCTHW
    return x_BCTHW


if __name__ == "__main__":
    typer.run(main)
