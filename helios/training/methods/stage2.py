"""Stage 2, pyramid flow matching: one network for three resolutions (paper arXiv 2603.04379, section 4).

B batch, C channels, T latent frames, H W latent height and width at a level's own size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from helios.errors import InputError
from helios.models.transformer.context import HistoryLatents
from helios.schedulers.pairs import level_pairs
from helios.schedulers.stages import PyramidStages
from helios.shapes import Geometry
from helios.training.clips import LatentClip
from helios.training.methods.flow_matching import squared_error
from helios.training.methods.sparse import SparseFrames, WholeChunks
from helios.training.methods.task import ChunkTask, Tasks, make_task
from helios.training.network import Network
from helios.training.noise_levels import NoiseLaw, Uniform, look_up
from helios.training.player import Player
from helios.training.seeds import Draws, Purpose
from helios.training.text import Captions


@dataclass(frozen=True, kw_only=True)
class LevelDraw:
    """One noisy point of one level and its target, float32.

    Attributes:
        level: 0 is the coarsest.
        x_BCTHW, velocity_BCTHW: the point and the regression target.
        timestep_B: fractional time values of the level's range.
    """

    level: int
    x_BCTHW: Tensor
    velocity_BCTHW: Tensor
    timestep_B: Tensor


LevelDraws = tuple[list[LevelDraw], tuple[int, ...]]


class Passes(Protocol):
    """How the draws of a sample go through the network."""

    def backward(
        self,
        network: Network,
        draws: list[LevelDraw],
        task: ChunkTask,
        streams: HistoryLatents,
        scale: float,
        frames: tuple[int, ...],
    ) -> list[Tensor]:
        """Add the gradient of the mean loss over the draws; returns the loss of each draw, without graph.

        ``frames`` are the time positions of the draws.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Packed:
    """All draws in one sequence with block-diagonal attention, high resolution first: one forward, one backward."""

    def backward(self, network, draws, task, streams, scale, frames) -> list[Tensor]:
        """See :class:`Passes`."""
        text, history = network.encode_text(task.text_BSE), network.encode_history(streams)
        high_first = draws[::-1]
        velocities = network.packed_velocity(
            [d.x_BCTHW for d in high_first], [d.timestep_B for d in high_first], text, history, frames=frames
        )
        losses = [squared_error(v, d.velocity_BCTHW) for v, d in zip(velocities, high_first)]
        (sum(losses) * (scale / len(losses))).backward()
        return [loss.detach() for loss in losses[::-1]]


@dataclass(frozen=True, kw_only=True)
class OneByOne:
    """A forward and a backward per draw: the same gradient with the activations of one draw at a time."""

    def backward(self, network, draws, task, streams, scale, frames) -> list[Tensor]:
        """See :class:`Passes`."""
        losses = []
        for draw in draws:
            text, history = network.encode_text(task.text_BSE), network.encode_history(streams)
            velocity = network.velocity(draw.x_BCTHW, draw.timestep_B, text, history, frames=frames)
            loss = squared_error(velocity, draw.velocity_BCTHW)
            (loss * (scale / len(draws))).backward()
            losses.append(loss.detach())
        return losses


@dataclass(frozen=True, kw_only=True)
class PyramidDraws:
    """What is drawn per sample.

    Args:
        per_level: draws of each level, coarsest first; the published phases take (1, 2, 1) and then (1, 1, 1). Several
            draws of a level share noise and ends and differ in sigma. Every draw counts the same in the loss.
        law: distribution of the in-level sigma.
        passes: how they go through the network.
    """

    per_level: tuple[int, ...] = (1, 2, 1)
    law: NoiseLaw = Uniform()
    passes: Packed | OneByOne = Packed()

    def __post_init__(self) -> None:
        if min(self.per_level, default=0) < 0 or sum(self.per_level) == 0:
            raise InputError(f"per_level={self.per_level} draws nothing: give counts of 0 or more, not all 0")

    def make(self, x0_BCTHW: Tensor, positions: tuple[int, ...], stages: PyramidStages, draws: Draws) -> LevelDraws:
        """The noisy points of one micro-batch, coarse to fine, and the time positions of their frames: all of them.

        Raises: InputError when the counts do not fit the levels.
        """
        check_levels("per_level", self.per_level, stages)
        levels = [level for level, count in enumerate(self.per_level) for _ in range(count)]
        return draw_levels(x0_BCTHW, levels, self.law, stages, draws), positions


@dataclass(frozen=True, kw_only=True)
class OneLevel:
    """One level per step, the same for all samples: coarse levels cost a fraction and so can be learnt more often.

    Args:
        shares: of the steps, coarsest level first.
        law: distribution of the in-level sigma.
        finest: the frames of a step on the finest level, where a chunk is dear and its motion is decided already.
    """

    shares: tuple[float, ...] = (0.3, 0.4, 0.3)
    law: NoiseLaw = Uniform()
    finest: WholeChunks | SparseFrames = WholeChunks()
    passes = OneByOne()

    def __post_init__(self) -> None:
        if min(self.shares, default=-1) < 0 or abs(sum(self.shares) - 1) > 1e-6:
            raise InputError(f"shares={self.shares} do not add up to 1")

    def make(self, x0_BCTHW: Tensor, positions: tuple[int, ...], stages: PyramidStages, draws: Draws) -> LevelDraws:
        """The noisy points of one micro-batch and the time positions of their frames.

        Raises: InputError when the shares do not fit the levels.
        """
        check_levels("shares", self.shares, stages)
        level = int(draws.synchronous(Purpose.COARSE).choice(stages.levels, p=self.shares))
        if level == stages.levels - 1:
            x0_BCTHW, positions = self.finest.take(x0_BCTHW, positions, draws)
        return draw_levels(x0_BCTHW, [level], self.law, stages, draws), positions


def check_levels(name: str, given: Sequence[float], stages: PyramidStages) -> None:
    """One entry per level.

    Raises: InputError otherwise.
    """
    if len(given) != stages.levels:
        raise InputError(f"{name}={given} has {len(given)} entries for {stages.levels} levels")


def draw_levels(
    x0_BCTHW: Tensor, levels: Sequence[int], law: NoiseLaw, stages: PyramidStages, draws: Draws
) -> list[LevelDraw]:
    """A noisy point of each of ``levels``; all of them share one noise."""
    noise_BCTHW = draws.normal(Purpose.NOISE, *x0_BCTHW.shape[1:]).to(x0_BCTHW.device)
    pairs = level_pairs(x0_BCTHW, noise_BCTHW, stages)
    fractions_BJ = law.fractions(draws.uniform(Purpose.SIGMA, len(levels)))
    made = []
    for place, level in enumerate(levels):
        sigma_B, timestep_B = look_up(stages.noise_table(level), fractions_BJ[:, place])
        x_BCTHW = pairs[level].at(sigma_B.to(x0_BCTHW.device))
        velocity_BCTHW = pairs[level].velocity
        made.append(LevelDraw(level=level, x_BCTHW=x_BCTHW, velocity_BCTHW=velocity_BCTHW, timestep_B=timestep_B))
    return made


class Stage2:
    """Every level of the pyramid is learnt in one network; the history stays at full resolution and is shared by all draws.

    Args:
        student, network, captions, geometry, tasks: as in :class:`helios.training.methods.stage1.Stage1`.
        stages: the pyramid.
        draws: levels and noise levels per sample.
    """

    def __init__(
        self,
        student: Player,
        network: Network,
        captions: Captions,
        geometry: Geometry,
        tasks: Tasks = Tasks(),
        stages: PyramidStages = PyramidStages(),
        draws: PyramidDraws | OneLevel = PyramidDraws(),
    ):
        self.players = (student,)
        self.network, self.captions, self.geometry = network, captions, geometry
        self.tasks, self.stages, self.draws = tasks, stages, draws

    def turns(self, step: int) -> tuple[str, ...]:
        """The one player moves in every step."""
        return (self.players[0].name,)

    def backward(self, player: str, items: Sequence[LatentClip], draws: Draws, scale: float) -> dict[str, Tensor]:
        """See :class:`helios.training.methods.base.Method`. Reports the mean loss of each level too."""
        task = make_task(
            items,
            draws,
            tasks=self.tasks,
            captions=self.captions,
            geometry=self.geometry,
            device=self.network.device,
        )
        points, frames = self.draws.make(task.target_BCTHW, self.geometry.positions.noisy, self.stages, draws)
        losses = self.draws.passes.backward(self.network, points, task, task.streams(self.geometry), scale, frames)
        numbers = {"loss": sum(losses) / len(losses)}
        for level in sorted({point.level for point in points}):
            own = [loss for loss, point in zip(losses, points) if point.level == level]
            numbers[f"loss_level{level}"] = sum(own) / len(own)
        return numbers
