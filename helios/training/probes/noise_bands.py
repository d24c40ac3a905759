"""Loss at fixed noise levels on fixed clips: comparable between steps, which the training loss is not.

B batch, C channels, T latent frames, H W latent height and width.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from helios.schedulers.pairs import level_pairs
from helios.schedulers.stages import PyramidStages, SingleStage
from helios.shapes import Geometry
from helios.training.clips import LatentClip
from helios.training.corruption import NoCorruption
from helios.training.methods.flow_matching import blend, squared_error
from helios.training.methods.task import ChunkTask, Tasks, make_task
from helios.training.network import Network
from helios.training.noise_levels import look_up
from helios.training.sample import TaskMix
from helios.training.scores import predict
from helios.training.seeds import Draws, Purpose
from helios.training.text import Captions

_CONTINUE = Tasks(mix=TaskMix(t2v=0, i2v=0, v2v=0, full=1), corruption=NoCorruption())


@dataclass(frozen=True, kw_only=True)
class NoiseBands:
    """``loss_sigma_<level>`` for a network at one resolution, or ``loss_level<i>_sigma_<level>`` for a pyramid.

    Args:
        network, captions, geometry: what is trained.
        clips: held out; the same noise is drawn for them every time.
        stages: the levels of the model.
        bands: middles of the noise range that are looked at, as fractions of the table from its noisy end.
        with_history: False for a backbone that has no past yet.
        batch: clips at a time.
    """

    network: Network
    captions: Captions
    geometry: Geometry
    clips: Sequence[LatentClip]
    stages: SingleStage | PyramidStages = SingleStage()
    bands: tuple[float, ...] = (0.125, 0.375, 0.625, 0.875)
    with_history: bool = True
    batch: int = 8

    def __call__(self, step: int, folder: Path | None) -> Mapping[str, float]:
        """See :class:`helios.training.trainer.Probe`."""
        sums: dict[str, float] = {}
        for places in self._batches():
            for name, loss in self._losses(places).items():
                sums[name] = sums.get(name, 0.0) + loss * len(places) / len(self.clips)
        return sums

    def _batches(self) -> Iterator[tuple[int, ...]]:
        """Places of clips of one shape."""
        shapes: dict[torch.Size, list[int]] = defaultdict(list)
        for place, clip in enumerate(self.clips):
            shapes[clip.latents_CTHW.shape].append(place)
        for places in shapes.values():
            for first in range(0, len(places), self.batch):
                yield tuple(places[first : first + self.batch])

    def _losses(self, places: tuple[int, ...]) -> dict[str, float]:
        draws = Draws(0, 0, places)
        task = make_task(
            [self.clips[place] for place in places],
            draws,
            tasks=_CONTINUE,
            captions=self.captions,
            geometry=self.geometry,
            device=self.network.device,
        )
        noise_BCTHW = draws.normal(Purpose.NOISE, *task.target_BCTHW.shape[1:]).to(task.target_BCTHW.device)
        if isinstance(self.stages, SingleStage):
            return {name: self._at(task, *point) for name, point in self._single(task, noise_BCTHW).items()}
        return {name: self._at(task, *point) for name, point in self._levels(task, noise_BCTHW).items()}

    def _at(self, task: ChunkTask, x_BCTHW: Tensor, velocity_BCTHW: Tensor, timestep_B: Tensor) -> float:
        if self.with_history:
            got = predict(self.network, x_BCTHW, timestep_B, task.text_BSE, task.streams(self.geometry))
        else:
            got = self.network.velocity(x_BCTHW, timestep_B, self.network.encode_text(task.text_BSE), None)
        return float(squared_error(got, velocity_BCTHW))

    def _single(self, task: ChunkTask, noise_BCTHW: Tensor) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        points = {}
        for band in self.bands:
            sigma_B, timestep_B = look_up(self.stages.noise_table(), torch.full((len(noise_BCTHW),), band))
            x_BCTHW = blend(task.target_BCTHW, noise_BCTHW, sigma_B)
            points[f"loss_sigma_{float(sigma_B[0]):.3f}"] = (x_BCTHW, noise_BCTHW - task.target_BCTHW, timestep_B)
        return points

    def _levels(self, task: ChunkTask, noise_BCTHW: Tensor) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        points = {}
        for level, pair in enumerate(level_pairs(task.target_BCTHW, noise_BCTHW, self.stages)):
            for band in self.bands:
                fractions = torch.full((len(noise_BCTHW),), band)
                sigma_B, timestep_B = look_up(self.stages.noise_table(level), fractions)
                name = f"loss_level{level}_sigma_{float(sigma_B[0]):.3f}"
                points[name] = (pair.at(sigma_B.to(noise_BCTHW.device)), pair.velocity, timestep_B)
        return points
