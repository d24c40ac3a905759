"""Denoise one chunk: from noise, through the levels of the pyramid, to clean latents (paper arXiv 2603.04379, section 4).

This is the only denoising loop of the project. The engine streams with it, distillation trains through it (a
:class:`StagedExit` leaves each level early and carries gradients in its last step), the benchmarks drive it. It does no
input or output and holds no state between calls.

B batch, C channels, T latent frames, H W latent height and width.
"""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from helios.conditioning.guidance import Guidance
from helios.models.transformer.context import HistoryContext, TextContext
from helios.noise import Address, NoiseSource, Purpose
from helios.sampling.plan import SamplingPlan
from helios.schedulers.renoise import downsample_noise, transition


class Denoiser(Protocol):
    """The network as the loop sees it."""

    def velocity(
        self, x_BCTHW: Tensor, timestep_B: Tensor, text: TextContext, history: HistoryContext | None
    ) -> Tensor:
        """Predicted ``noise - x0``.

        Args:
            x_BCTHW: noisy latents at the resolution of a level, float32.
            timestep_B: one per sample, 0 is data and 1000 is noise.
            text, history: encoded, B rows each.
        Returns: [B, C, T, H, W], in the precision of the network.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ForwardPass:
    """One call of the network per step: its text, its history, and how many copies of the chunk it takes."""

    text: TextContext
    history: HistoryContext
    copies: int = 1


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What a chunk is conditioned on, as forward passes whose outputs, one after the other, are (conditional,
    unconditional). Under guidance that is one pass with two copies, or two passes where memory is short.
    """

    passes: tuple[ForwardPass, ...]

    @staticmethod
    def plain(text: TextContext, history: HistoryContext) -> "Condition":
        """The conditional pass alone."""
        return Condition(passes=(ForwardPass(text=text, history=history),))


@dataclass(frozen=True)
class StepEvent:
    """One finished denoising step, as observers see it.

    Attributes:
        chunk: its number in the video.
        level: of the pyramid, from 0, the coarsest.
        step, steps: number of the step within its level, from 0, and how many the level has.
        latents_BCTHW: what the step left, float32 at the level's resolution.
        timestep: that it began at, 0 is data and 1000 is noise.
    """

    chunk: int
    level: int
    step: int
    steps: int
    latents_BCTHW: Tensor
    timestep: float


class Observer(Protocol):
    """Told about a chunk as it is made. It must not change what it is shown; it may raise to stop the run."""

    def conditioned(self, chunk: int) -> None:
        """Text and history of the chunk are encoded and its noise is drawn."""
        ...

    def stepped(self, event: StepEvent) -> None:
        """A denoising step is done (on an accelerator: queued)."""
        ...


@dataclass(frozen=True)
class Silent:
    """The observer that does nothing."""

    def conditioned(self, chunk: int) -> None: ...

    def stepped(self, event: StepEvent) -> None: ...


class Walk(Protocol):
    """How far a level is walked and which of its steps carry gradients."""

    def last(self, level: int, steps: int) -> int:
        """Index of the last step taken in a level of ``steps`` steps."""
        ...

    def carries_gradient(self, level: int, step: int, last: int) -> bool:
        """Whether a step is recorded for the backward pass; ``last`` is the index that :meth:`last` gave."""
        ...


@dataclass(frozen=True)
class FullWalk:
    """Every step of every level; gradients as the caller has them switched."""

    def last(self, level: int, steps: int) -> int:
        return steps - 1

    def carries_gradient(self, level: int, step: int, last: int) -> bool:
        return torch.is_grad_enabled()


@dataclass(frozen=True, kw_only=True)
class StagedExit:
    """Staged backward simulation: leave each level at its exit step; only that step carries gradients (section 5).

    Args:
        exits: index of the exit step per level, clamped to the level's last step.
        gradient: False for the critic's rollouts.
    """

    exits: tuple[int, ...]
    gradient: bool = True

    def last(self, level: int, steps: int) -> int:
        return min(self.exits[level], steps - 1)

    def carries_gradient(self, level: int, step: int, last: int) -> bool:
        return self.gradient and step == last


@dataclass(frozen=True, kw_only=True)
class ChunkNoise:
    """All random numbers of one chunk, on the device: start noise of the coarsest level, block noise of the others."""

    start_BCTHW: Tensor
    blocks: tuple[Tensor, ...] = field(default=())

    @staticmethod
    def draw(plan: SamplingPlan, source: NoiseSource, chunk: int, batch: int, device: torch.device) -> "ChunkNoise":
        """Draw a chunk's noise: at full resolution, brought down to the coarsest level with its variance kept."""
        levels = plan.geometry.levels
        start = source.normal(Address(Purpose.CHUNK, chunk), plan.latent_shape(batch)).to(device, non_blocking=True)
        for _ in range(levels - 1):
            start = downsample_noise(start)
        blocks = tuple(
            source.block(Address(Purpose.BLOCK, chunk, level), plan.level_shape(batch, level), plan.gamma)
            for level in range(1, levels)
        )
        return ChunkNoise(start_BCTHW=start, blocks=tuple(b.to(device, non_blocking=True) for b in blocks))


def denoise_chunk(
    model: Denoiser,
    plan: SamplingPlan,
    condition: Condition,
    noise: ChunkNoise,
    *,
    chunk: int = 0,
    amplified: bool = False,
    walk: Walk = FullWalk(),
    observer: Observer = Silent(),
) -> Tensor:
    """Clean latents [B, C, T, H, W] (float32, full resolution) of one chunk.

    Args:
        model: predicts the velocity ``noise - x0``.
        condition: encoded text and history; their batch is the batch of the chunk.
        noise: the chunk's random numbers.
        chunk: its number in the video, for the observer.
        amplified: use the doubled schedule of a first chunk, if the plan has one.
        walk: how far each level is walked.
        observer: told about every step.
    """
    x_BCTHW = noise.start_BCTHW
    for level in range(plan.geometry.levels):
        if level > 0:
            x_BCTHW = transition(x_BCTHW, noise.blocks[level - 1], plan.scheduler.stages.stage(level))
        x_BCTHW = _denoise_level(model, plan, condition, x_BCTHW, level, chunk, amplified, walk, observer)
    return x_BCTHW


def _denoise_level(
    model: Denoiser,
    plan: SamplingPlan,
    condition: Condition,
    start_BCTHW: Tensor,
    level: int,
    chunk: int,
    amplified: bool,
    walk: Walk,
    observer: Observer,
) -> Tensor:
    schedule = plan.schedule(level, amplified=amplified)
    solver = plan.scheduler.make_solver(schedule, start_BCTHW)
    steps, x_BCTHW = len(schedule.timesteps), start_BCTHW
    last = walk.last(level, steps)
    for step in range(last + 1):
        with torch.set_grad_enabled(walk.carries_gradient(level, step, last)):
            if plan.guidance.zeroes(level, step):
                velocity = torch.zeros_like(x_BCTHW)
            else:
                velocity = _velocity(model, plan.guidance, x_BCTHW, schedule.model_timesteps[step], condition)
            leaves_early = step == last < steps - 1
            advance = solver.x0 if leaves_early else solver.step
            x_BCTHW = advance(step, velocity, x_BCTHW)
        observer.stepped(StepEvent(chunk, level, step, steps, x_BCTHW, schedule.timesteps[step]))
    return x_BCTHW


def _velocity(model: Denoiser, guidance: Guidance, x_BCTHW: Tensor, timestep: float, condition: Condition) -> Tensor:
    """Guided velocity in float32."""
    outputs = []
    for forward in condition.passes:
        copies_BCTHW = x_BCTHW.repeat(forward.copies, 1, 1, 1, 1)
        timestep_B = torch.full((len(copies_BCTHW),), timestep, device=x_BCTHW.device)
        outputs.append(model.velocity(copies_BCTHW, timestep_B, forward.text, forward.history))
    if not guidance.needs_negative:
        return outputs[0].float()
    v_cond_BCTHW, v_uncond_BCTHW = torch.cat(outputs).chunk(2)
    return guidance.combine(v_cond_BCTHW, v_uncond_BCTHW).float()
