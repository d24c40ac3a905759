"""Roll videos out with the network in training and look at them: continuity, seams, colours, motion, meaning.

B batch, C channels, F pixel frames, T latent frames, H W height and width (latent unless pixels).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from helios.errors import InputError
from helios.models.vae import HeliosVAE
from helios.noise import AddressedNoise
from helios.sampling.plan import SamplingPlan
from helios.sampling.rollout import ConstantText, RolloutState, rollout, start_state
from helios.training.errors import writing
from helios.training.network import Network
from helios.training.probes.statistics import VideoStatistics, average, video_statistics
from helios.training.text import Captions

Judge = Callable[[int, np.ndarray], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """Fixed prompts with fixed seeds, several chunks each: 3 show whether the model goes on at all, 20 whether it lasts.

    Writes ``<name>.png`` (a row of frames per prompt), ``<name>.json`` (colours and latents per chunk). Numbers:
    ``seam``, ``motion``, ``colour_drift``, ``contrast_drift``, and the means of what ``judge`` says.

    Args:
        network, captions: what is trained.
        plan: how it samples; with the settings of generation, which are not those of training.
        vae: decodes.
        prompts: of the videos.
        chunks: per video.
        name: of files and numbers.
        negative: prompt of the unconditional pass, under guidance.
        judge: given the number of the prompt and its frames, uint8 [F, H, W, 3]; says, for example, which attributes
            are right.
        columns: frames per video in the picture.
        batch: videos at a time.
    """

    network: Network
    captions: Captions
    plan: SamplingPlan
    vae: HeliosVAE
    prompts: Sequence[str]
    chunks: int = 3
    name: str = "rollout"
    negative: str = ""
    judge: Judge | None = None
    columns: int = 9
    batch: int = 8

    def __post_init__(self) -> None:
        if not self.prompts or self.chunks < 1:
            raise InputError(
                f"{len(self.prompts)} prompts of {self.chunks} chunks are no rollout: give 1 or more of both"
            )

    def __call__(self, step: int, folder: Path | None) -> Mapping[str, float]:
        """See :class:`helios.training.trainer.Probe`."""
        videos, latents = self._videos()
        frames = self.plan.geometry.chunk_frames
        statistics = [video_statistics(video, frames) for video in videos]
        numbers = average(statistics) | self._judged(videos)
        if folder is not None:
            with writing(folder, "the run's checkpoints are kept"):
                self._write(folder, videos, statistics, latents)
        return {f"{self.name}/{key}": value for key, value in numbers.items()}

    @torch.no_grad()
    def _videos(self) -> tuple[list[np.ndarray], list[dict[str, list[float]]]]:
        """Frames [F, H, W, 3] of every prompt, and mean and variance of its latents per chunk."""
        videos: list[np.ndarray] = []
        statistics: list[dict[str, list[float]]] = []
        for first in range(0, len(self.prompts), self.batch):
            prompts = self.prompts[first : first + self.batch]
            seeds = tuple(range(first, first + len(prompts)))
            chunks = list(self._rolled(prompts, seeds))
            pixels = [np.stack([self._decode(latents[row]) for latents in chunks]) for row in range(len(prompts))]
            videos += [chunk_frames.reshape(-1, *chunk_frames.shape[2:]) for chunk_frames in pixels]
            for row in range(len(prompts)):
                own = [latents[row] for latents in chunks]
                statistics.append({"mean": [float(x.mean()) for x in own], "variance": [float(x.var()) for x in own]})
        return videos, statistics

    def _rolled(self, prompts: Sequence[str], seeds: tuple[int, ...]):
        """Latents [B, C, T, H, W] of one chunk after the other."""
        device = self.network.device
        text = self.network.encode_text(self.captions.encode_prompts(prompts).to(device))
        negative = self.network.encode_text(self.captions.encode_prompts([self.negative] * len(prompts)).to(device))
        state: RolloutState = start_state(self.plan, len(prompts), device)
        source = ConstantText(text=text, negative=negative)
        for latents, _ in rollout(self.network, self.plan, source, state, AddressedNoise(seeds), chunks=self.chunks):
            yield latents

    def _decode(self, latents_CTHW: Tensor) -> np.ndarray:
        pixels = self.vae.decode(latents_CTHW[None].to(self.vae.device))
        return self.vae.to_uint8(pixels)[0].cpu().numpy()

    def _judged(self, videos: list[np.ndarray]) -> dict[str, float]:
        if self.judge is None:
            return {}
        verdicts = [self.judge(number, video) for number, video in enumerate(videos)]
        names = sorted({name for verdict in verdicts for name in verdict})
        said = {name: [verdict[name] for verdict in verdicts if name in verdict] for name in names}
        return {name: float(np.mean(values)) for name, values in said.items()}

    def _write(
        self,
        folder: Path,
        videos: list[np.ndarray],
        statistics: list[VideoStatistics],
        latents: list[dict[str, list[float]]],
    ) -> None:
        from helios.media import contact_sheet

        places = np.linspace(0, len(videos[0]) - 1, self.columns).round().astype(int)
        contact_sheet(np.concatenate([video[places] for video in videos]), self.columns, folder / f"{self.name}.png")
        entries = [
            {
                "prompt": prompt,
                "seam": seen.seam,
                "motion": seen.motion,
                "colour_mean": seen.means.round(3).tolist(),
                "colour_deviation": seen.deviations.round(3).tolist(),
                "latents": own,
            }
            for prompt, seen, own in zip(self.prompts, statistics, latents)
        ]
        (folder / f"{self.name}.json").write_text(json.dumps(entries, indent=1), encoding="utf-8")
