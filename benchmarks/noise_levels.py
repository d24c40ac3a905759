"""At which noise level a model decides what: held-out clips, noised to sigma, sampled back, read from the pixels.

python benchmarks/noise_levels.py --model small-base

An attribute that is still right was decided below sigma, or its noisy clip still shows it; one that is lost is decided
above. Keeps one entry per model and size in benchmarks/results/small/noise_levels.json and prints it as a table.
B batch, C channels, T latent frames, H W latent height and width, F pixel frames.
"""

import itertools
import json
import sys
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import typer
from rich.progress import track
from small_models import RESULTS
from torch import Tensor
from torch.nn.functional import interpolate

from helios.bench.records import write_json
from helios.bench.speed.machine import cpu_line
from helios.bench.toy import heldout_clips
from helios.checkpoints import inspect, load_prompt_encoder, load_transformer, load_vae, resolve
from helios.data.toy import ATTRIBUTES, accuracy, score
from helios.training.methods.flow_matching import blend
from helios.training.methods.sparse import Excerpt
from helios.training.methods.vae import to_signed
from helios.training.network import Network
from helios.training.seeds import Draws


@dataclass(frozen=True)
class Denoiser:
    """The transformer with a batch of sentences and classifier-free guidance, without a history."""

    network: Network
    text: object
    empty: object
    guidance: float

    def back(self, x_BCTHW: Tensor, sigma: float, steps: int) -> Tensor:
        """Euler steps from ``sigma`` to clean, evenly spaced, at least 6 of ``steps`` for a whole trajectory."""
        sigmas = torch.linspace(sigma, 0, max(6, round(steps * sigma)) + 1)
        for here, there in itertools.pairwise(sigmas):
            timestep_B = torch.full((len(x_BCTHW),), 1000 * float(here))
            v_BCTHW = self.network.velocity(x_BCTHW, timestep_B, self.text, None)
            if self.guidance != 1:
                free_BCTHW = self.network.velocity(x_BCTHW, timestep_B, self.empty, None)
                v_BCTHW = free_BCTHW + self.guidance * (v_BCTHW - free_BCTHW)
            x_BCTHW = x_BCTHW + (there - here) * v_BCTHW
        return x_BCTHW


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
    excerpt = Excerpt(shrink=shrink)
    torch.set_num_threads(threads)
    info, clips = inspect(resolve(model)), heldout_clips(count)
    vae, encoder = load_vae(info, "cpu"), load_prompt_encoder(info, "cpu", torch.float32)
    network = Network(module=load_transformer(info, "cpu", torch.float32).eval())
    scenes, sentences = zip(*(clips.describe(k) for k in range(count)))
    texts = [network.encode_text(encoder.encode(words)) for words in ([str(s) for s in sentences], [""] * count)]
    denoiser = Denoiser(network, *texts, guidance)

    frames_BFHWC = torch.from_numpy(np.stack([clips.chunk(k, 0) for k in range(count)]))
    whole_BCTHW = torch.cat([vae.normalize(vae.encode_moments(to_signed(f[None]))[0]) for f in frames_BFHWC])
    clean_BCTHW, _ = excerpt.take(whole_BCTHW, tuple(range(whole_BCTHW.shape[2])), Draws(0, 0, tuple(range(count))))
    noise_BCTHW = torch.randn(clean_BCTHW.shape, generator=torch.Generator().manual_seed(0))
    rows = {}
    for sigma in track([float(s) for s in sigmas.split(",")], disable=not sys.stderr.isatty()):
        noisy_BCTHW = blend(clean_BCTHW, noise_BCTHW, torch.full((count,), sigma))
        made_BCTHW = interpolate(denoiser.back(noisy_BCTHW, sigma, steps), scale_factor=(1, shrink, shrink))
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
    path = RESULTS / "noise_levels.json"
    entries = json.loads(path.read_text()) if path.is_file() else []
    others = [other for other in entries if (other["model"], other["shrink"]) != (model, shrink)]
    write_json(path, [*others, entry])
    typer.echo("| noised to | " + " | ".join(ATTRIBUTES) + " |\n|" + "--:|" * (1 + len(ATTRIBUTES)))
    for sigma, shares in rows.items():
        typer.echo(f"| {sigma} | " + " | ".join(f"{100 * shares[name]:.0f}" for name in ATTRIBUTES) + " |")


if __name__ == "__main__":
    typer.run(main)
