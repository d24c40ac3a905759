"""Stage 3a, ODE regression: the student jumps from any of its points to the end of the level, without guidance.

It starts the distillation (paper arXiv 2603.04379, section 5): few-step sampling needs a student whose first guesses
are already the teacher's endpoints.

B batch, C channels, T latent frames, H W latent height and width at a level's own size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from helios.errors import InputError
from helios.sampling.plan import SamplingPlan
from helios.schedulers.tables import LevelSchedule
from helios.training.methods.flow_matching import squared_error
from helios.training.network import Network
from helios.training.pairs import OdePair
from helios.training.player import Player
from helios.training.sample import Past
from helios.training.seeds import Draws, Purpose
from helios.training.text import Captions


@dataclass(frozen=True, kw_only=True)
class OdeLoss:
    """``weight * mean over terms of 0.5 * mean((x0_hat - end)^2)``.

    Args:
        weight: of the whole loss; 80 in the published recipe.
        chunks: how many chunks of a pair are learnt per step, drawn without replacement.
    """

    weight: float = 80.0
    chunks: int = 3

    def __post_init__(self) -> None:
        if self.weight <= 0 or self.chunks < 1:
            raise InputError(f"weight={self.weight}, chunks={self.chunks}: use more than 0, and 1 or more")


class OdeRegression:
    """Every term is backpropagated on its own, so that one graph is alive at a time; the gradient is that of the mean.

    Args:
        student, network, captions: as in the other methods.
        plan: how the student samples; its points are those of the pairs.
        loss: weight and chunks per step.
    """

    def __init__(
        self, student: Player, network: Network, captions: Captions, plan: SamplingPlan, loss: OdeLoss = OdeLoss()
    ):
        self.players = (student,)
        self.network, self.captions, self.plan, self.loss = network, captions, plan, loss

    def turns(self, step: int) -> tuple[str, ...]:
        """The one player moves in every step."""
        return (self.players[0].name,)

    def backward(self, player: str, items: Sequence[OdePair], draws: Draws, scale: float) -> dict[str, Tensor]:
        """See :class:`helios.training.methods.base.Method`. The chunks are the same on all ranks."""
        levels = self.plan.geometry.levels
        chunks = self._chunks(len(items[0].states), draws)
        losses: dict[int, list[Tensor]] = {level: [] for level in range(levels)}
        factor = self.loss.weight * scale / (len(chunks) * levels)
        for chunk in chunks:
            text_BSE = self.captions.encode(items, draws).to(self.network.device)
            past = past_of([pair.finals for pair in items], chunk, self.plan).to(self.network.device)
            for level in range(levels):
                loss = self._term(items, chunk, level, text_BSE, past, draws.on(chunk * levels + level))
                (loss * factor).backward()
                losses[level].append(loss.detach())
        means = {f"loss_level{level}": torch.stack(values).mean() for level, values in losses.items()}
        return {"loss": self.loss.weight * torch.stack(list(means.values())).mean(), **means}

    def _chunks(self, count: int, draws: Draws) -> list[int]:
        chosen = min(self.loss.chunks, count)
        return sorted(draws.synchronous(Purpose.ODE_CHUNKS).permutation(count)[:chosen].tolist())

    def _term(
        self, items: Sequence[OdePair], chunk: int, level: int, text_BSE: Tensor, past: Past, draws: Draws
    ) -> Tensor:
        """``0.5 * mean((x0_hat - end)^2)`` of one level of one chunk, each sample from a point of its own."""
        schedule = self.plan.schedule(level, amplified=chunk == 0)
        states = torch.stack([pair.states[chunk][level] for pair in items]).float().to(self.network.device)
        if states.shape[1] != schedule.steps + 1:
            raise InputError(
                f"the pairs hold {states.shape[1] - 1} points of level {level}, the student takes {schedule.steps}: "
                "make the pairs for these steps"
            )
        points = draws.below(Purpose.ODE_STATE, [schedule.steps] * len(items))
        x_BCTHW = torch.stack([row[point] for row, point in zip(states, points)])
        sigmas = jump_sigmas(self.plan, schedule)
        sigma_B = torch.tensor([sigmas[point] for point in points], device=x_BCTHW.device)
        timestep_B = torch.tensor([schedule.model_timesteps[point] for point in points], device=x_BCTHW.device)
        text = self.network.encode_text(text_BSE)
        history = self.network.encode_history(past.streams(self.plan.geometry))
        velocity = self.network.velocity(x_BCTHW, timestep_B, text, history)
        return 0.5 * squared_error(x_BCTHW - sigma_B.view(-1, 1, 1, 1, 1) * velocity, states[:, -1])


def jump_sigmas(plan: SamplingPlan, schedule: LevelSchedule) -> list[float]:
    """The sigma with which the sampling solver jumps from each point to the end: asked of the solver itself."""
    one = torch.ones(1)
    solver = plan.scheduler.make_solver(schedule, one)
    return [-float(solver.x0(index, one, torch.zeros(1))) for index in range(schedule.steps)]


def past_of(finals: Sequence[list[Tensor]], chunk: int, plan: SamplingPlan) -> Past:
    """The teacher's own clean chunks as history of chunk number ``chunk``; its first latent is the anchor.

    Args:
        finals: per sample, the clean latents [C, T, H, W] of its chunks.
    """
    geometry, batch = plan.geometry, len(finals)
    channels, _, height, width = finals[0][0].shape
    window = torch.zeros(batch, channels, geometry.history.total, height, width)
    anchor = torch.zeros(batch, channels, 1, height, width)
    known = min(geometry.history.total, chunk * geometry.chunk_latent_frames)
    if chunk:
        for row, latents in enumerate(finals):
            window[row, :, -known:] = torch.cat(latents[:chunk], dim=1)[:, -known:].float()
            anchor[row] = latents[0][:, :1].float()
    frames = torch.arange(geometry.history.total)
    return Past(
        anchor_BCTHW=anchor,
        window_BCTHW=window,
        anchor_valid_B1=torch.full((batch, 1), chunk > 0),
        window_valid_BT=(frames >= geometry.history.total - known).expand(batch, -1),
    )
