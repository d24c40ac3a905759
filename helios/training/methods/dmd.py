"""Stage 3b, distribution matching distillation of an autoregressive student (paper arXiv 2603.04379, section 5; after
Yin et al. 2024). History comes from real clips, never from the student ("pure teacher forcing").

The student rolls a chunk out through the same loop that streams, leaving each level at a random step ("staged backward
simulation"). Its chunk is noised again, and the difference between what the critic and the teacher see in it is the
gradient.

B batch, C channels, T latent frames, H W latent height and width, S text tokens, E width of the text encoder.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from helios.device import supports_float64
from helios.errors import InputError
from helios.sampling.denoise import ChunkNoise, Condition, StagedExit, denoise_chunk
from helios.sampling.plan import SamplingPlan
from helios.schedulers.shift import DynamicShift, NoShift, shift_sigma
from helios.schedulers.stages import SingleStage
from helios.training.clips import LatentClip
from helios.training.corruption import AnyCorruption, PerBatchCorruption, Saturation
from helios.training.methods.flow_matching import blend, squared_error
from helios.training.methods.gan import Adversary, NoAdversary
from helios.training.methods.task import ChunkTask, Tasks, make_task
from helios.training.network import Network
from helios.training.player import Player
from helios.training.residence import Residence, Resident
from helios.training.sample import Past, TaskMix
from helios.training.scores import Scores
from helios.training.seeds import Draws, Purpose, RolloutNoise
from helios.training.text import Captions

STUDENT, CRITIC = "student", "critic"
_SECONDARY = 1


@dataclass(frozen=True, kw_only=True)
class CoarseToFine:
    """Noise levels at which the scores are compared: high ones first, all of them alike in the end.

        tau ~ Beta(1 + 3 c, 1 + c / 2),   c = (1 + cos(pi * min(updates / over, 1))) / 2

    Args:
        over: student updates over which Beta(4, 1.5) becomes Beta(1, 1). The published code counts critic steps, 500
            of them at five critic steps per student update.
    """

    over: int = 100

    def __post_init__(self) -> None:
        if self.over < 1:
            raise InputError(f"over={self.over} must be 1 update or more: use AllNoise for no schedule")

    def shape(self, updates: float) -> tuple[float, float]:
        """The two parameters of the Beta distribution."""
        c = 0.5 * (1 + math.cos(math.pi * min(updates / self.over, 1)))
        return 1 + 3 * c, 1 + 0.5 * c


@dataclass(frozen=True, kw_only=True)
class AllNoise:
    """Every noise level alike from the beginning. The paper reports no convergence without a schedule."""

    def shape(self, updates: float) -> tuple[float, float]:
        """Beta(1, 1), the uniform distribution."""
        return 1.0, 1.0


@dataclass(frozen=True, kw_only=True)
class ScoreTimes:
    """Times of the scores, at full resolution.

    Args:
        schedule: of the student's comparisons over its updates.
        shift: how times lean with the picture's size; the released recipe takes the linear kind.
        lowest, highest: times are cut to this range, and rounded to whole numbers.
        lowest_critic: the critic's tau is uniform from here to 1.
    """

    schedule: CoarseToFine | AllNoise = CoarseToFine()
    shift: DynamicShift | NoShift = DynamicShift(kind="linear")
    lowest: float = 20.0
    highest: float = 980.0
    lowest_critic: float = 0.001

    def for_student(self, updates: int, draws: Draws) -> Tensor:
        """tau in (0, 1) per sample, from the Beta of this update."""
        a, b = self.schedule.shape(updates)
        return torch.tensor([g.beta(a, b) for g in draws.generators(Purpose.SCORE_TIME)], dtype=torch.float64)

    def for_critic(self, draws: Draws) -> Tensor:
        """tau per sample, uniform."""
        return self.lowest_critic + (1 - self.lowest_critic) * draws.uniform(Purpose.SCORE_TIME)

    def levels(self, tau_B: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        """(sigma, timestep) per sample, float64: tau shifted, cut and rounded; the sigma of the nearest table entry."""
        factor = self.shift.factor(tokens)
        times = [round(min(max(1000 * shift_sigma(tau, factor), self.lowest), self.highest)) for tau in tau_B.tolist()]
        table = SingleStage().noise_table().shifted(self.shift, tokens)
        sigmas = [table.sigmas[table.nearest(time)] for time in times]
        return torch.tensor(sigmas, dtype=torch.float64), torch.tensor(times, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class DmdConfig:
    """Settings of the distillation.

    Args:
        tasks: branches, and the damage that every network sees.
        student_damage: what the student's history suffers in addition. It then has to make, from a wrongly exposed
            past, a chunk that the scores find likely after a rightly exposed one: so it learns to recover colours.
        times: noise levels of the scores.
        student_every: critic steps per student update.
        guidance: ``real = cond + guidance * (cond - uncond)``: 3 is a classifier-free scale of 4.
        negative: the teacher's negative prompt.
    """

    tasks: Tasks = Tasks(mix=TaskMix(t2v=0.4, i2v=0.0, v2v=0.3, full=0.3), corruption=PerBatchCorruption(mode="noise"))
    student_damage: AnyCorruption = Saturation()
    times: ScoreTimes = ScoreTimes()
    student_every: int = 5
    guidance: float = 3.0
    negative: str = ""

    def __post_init__(self) -> None:
        if self.student_every < 1 or self.guidance < 0:
            raise InputError(
                f"student_every={self.student_every} must be 1 or more, guidance={self.guidance} 0 or more"
            )


class Dmd:
    """Student and critic, in turn.

    Args:
        student: player of the generator, started from ODE regression (or from Mid, which is slower).
        critic: player of the fake score, and of the discriminator's heads where there is an adversary.
        network: the student's transformer.
        scores: teacher and critic. The teacher is Base: both see full resolution only.
        captions: text states.
        plan: how the student samples; the rollout of training is that of generation.
        config: settings.
        adversary: an adversarial term on real clips, or none.
        residence: whether student and scores share the device or take turns on it.
    """

    def __init__(
        self,
        student: Player,
        critic: Player,
        network: Network,
        scores: Scores,
        captions: Captions,
        plan: SamplingPlan,
        config: DmdConfig = DmdConfig(),
        adversary: Adversary | NoAdversary = NoAdversary(),
        residence: Residence | None = None,
    ):
        if (student.name, critic.name) != (STUDENT, CRITIC):
            raise ValueError(f"players must be named {STUDENT!r} and {CRITIC!r}")
        self.players = (student, critic)
        self.network, self.scores, self.captions = network, scores, captions
        self.plan, self.config, self.adversary = plan, config, adversary
        self.residence = residence or Resident()
        height, width = plan.height, plan.width
        self._tokens = plan.geometry.noisy_tokens(height, width, plan.geometry.levels - 1)
        self._negative_1SE: Tensor | None = None

    def turns(self, step: int) -> tuple[str, ...]:
        """The critic moves in every step, the student before it in every ``student_every``-th, step 0 included."""
        return (STUDENT, CRITIC) if step % self.config.student_every == 0 else (CRITIC,)

    def backward(self, player: str, items: Sequence[LatentClip], draws: Draws, scale: float) -> dict[str, Tensor]:
        """See :class:`helios.training.methods.base.Method`. The critic learns from another selection of the clips."""
        if player == STUDENT:
            return self._student_turn(items, draws, scale)
        return self._critic_turn(items, draws.on(_SECONDARY), scale)

    def _student_turn(self, items: Sequence[LatentClip], draws: Draws, scale: float) -> dict[str, Tensor]:
        task = self._task(items, draws)
        x_BCTHW = self.roll_out(task, draws, gradient=True)
        tau_B = self.config.times.for_student(self.players[0].updates, draws)
        sigma_B, timestep_B = self.config.times.levels(tau_B, self._tokens)
        noise_BCTHW = draws.normal(Purpose.SCORE_NOISE, *x_BCTHW.shape[1:]).to(x_BCTHW.device)
        self.residence.bring(self.scores.fake.module)
        direction = self._direction(x_BCTHW.detach(), noise_BCTHW, sigma_B, timestep_B, task)
        loss = surrogate(x_BCTHW, direction.gradient)
        numbers = {"loss": loss.detach(), "tau": tau_B.mean(), **direction.numbers}
        if self.adversary.active(draws.step):
            term = self.adversary.student_term(x_BCTHW, task, self.plan.geometry, sigma_B, timestep_B, draws)
            loss = loss + term
            numbers["adversary"] = term.detach()
        self.residence.bring(self.network.module)
        (loss * scale).backward()
        return numbers

    def _critic_turn(self, items: Sequence[LatentClip], draws: Draws, scale: float) -> dict[str, Tensor]:
        task = self._task(items, draws)
        x_BCTHW = self.roll_out(task, draws, gradient=False)
        sigma_B, timestep_B = self.config.times.levels(self.config.times.for_critic(draws), self._tokens)
        noise_BCTHW = draws.normal(Purpose.SCORE_NOISE, *x_BCTHW.shape[1:]).to(x_BCTHW.device)
        noisy_BCTHW = blend(x_BCTHW, noise_BCTHW, sigma_B)
        streams = task.streams(self.plan.geometry)
        self.residence.bring(self.scores.fake.module)
        velocity = self.scores.fake_velocity(noisy_BCTHW, timestep_B, task.text_BSE, streams)
        loss = squared_error(velocity, noise_BCTHW - x_BCTHW)
        (loss * scale).backward()
        numbers = {"loss": loss.detach(), "denoising_loss": loss.detach()}
        if self.adversary.active(draws.step):
            # The second backward adds to the first: one optimiser step for all of the critic's losses.
            terms = self.adversary.critic_terms(
                x_BCTHW, noise_BCTHW, task, self.plan.geometry, sigma_B, timestep_B, draws
            )
            (terms["adversary"] * scale).backward()
            numbers |= {name: term.detach() for name, term in terms.items()}
            numbers["loss"] = numbers["loss"] + numbers["adversary"]
        return numbers

    def roll_out(self, task: ChunkTask, draws: Draws, *, gradient: bool) -> Tensor:
        """One chunk of the student from noise, leaving each level early; [B, C, T, H, W] at full resolution.

        Samples without any past take the doubled schedule of a first chunk, where the plan has one; they are rolled
        out apart from the others. Exit steps are the same on all ranks.
        """
        self.residence.bring(self.network.module)
        empty_B = task.past.empty_B.cpu() & self.plan.amplify_first_chunk
        exits = draws.synchronous(Purpose.EXIT)
        parts = []
        for amplified in (False, True):
            steps = [self.plan.schedule(level, amplified=amplified).steps for level in range(self.plan.geometry.levels)]
            walk = StagedExit(exits=tuple(int(exits.integers(n)) for n in steps), gradient=gradient)
            rows = torch.nonzero(empty_B == amplified).flatten()
            if len(rows):
                parts.append((rows, self._roll_rows(task, rows, draws, walk, amplified)))
        order = torch.cat([rows for rows, _ in parts]).argsort()
        return torch.cat([latents for _, latents in parts])[order.to(parts[0][1].device)]

    def _roll_rows(self, task: ChunkTask, rows: Tensor, draws: Draws, walk: StagedExit, amplified: bool) -> Tensor:
        draws = replace(draws, samples=tuple(draws.samples[row] for row in rows.tolist()))
        past = Past(**{name: getattr(task.past, name)[rows] for name in Past.__dataclass_fields__})
        seen = self.config.student_damage.apply(past.to(torch.device("cpu")), draws).to(self.network.device)
        with torch.set_grad_enabled(walk.gradient):
            text = self.network.encode_text(task.text_BSE[rows])
            history = self.network.encode_history(seen.streams(self.plan.geometry))
            noise = ChunkNoise.draw(self.plan, RolloutNoise(draws), 0, len(rows), self.network.device)
            condition = Condition.plain(text, history)
            return denoise_chunk(self.network, self.plan, condition, noise, amplified=amplified, walk=walk)

    @torch.no_grad()
    def _direction(
        self, x_BCTHW: Tensor, noise_BCTHW: Tensor, sigma_B: Tensor, timestep_B: Tensor, task: ChunkTask
    ) -> "Direction":
        noisy_BCTHW = blend(x_BCTHW, noise_BCTHW, sigma_B)
        streams, text_BSE = task.streams(self.plan.geometry), task.text_BSE
        fake = self.scores.fake_velocity(noisy_BCTHW, timestep_B, text_BSE, streams)
        real = self.scores.real_velocity(noisy_BCTHW, timestep_B, text_BSE, streams)
        if self.config.guidance:
            negative_BSE = self._negative(len(text_BSE)).to(text_BSE)
            without = self.scores.real_velocity(noisy_BCTHW, timestep_B, negative_BSE, streams)
            real = real + self.config.guidance * (real - without)
        clean = [clean_of(noisy_BCTHW, velocity, sigma_B) for velocity in (fake, real)]
        return Direction.between(x_BCTHW, fake_BCTHW=clean[0], real_BCTHW=clean[1])

    def _task(self, items: Sequence[LatentClip], draws: Draws) -> ChunkTask:
        return make_task(
            items,
            draws,
            tasks=self.config.tasks,
            captions=self.captions,
            geometry=self.plan.geometry,
            device=self.network.device,
        )

    def _negative(self, batch: int) -> Tensor:
        if self._negative_1SE is None:
            self._negative_1SE = self.captions.encode_prompts([self.config.negative])
        return self._negative_1SE.expand(batch, -1, -1)


@dataclass(frozen=True)
class Direction:
    """Where the student's chunk should not go.

    Attributes:
        gradient: with respect to the chunk, per element (before the mean).
        numbers: for the curves.
    """

    gradient: Tensor
    numbers: dict[str, Tensor]

    @staticmethod
    def between(x_BCTHW: Tensor, *, fake_BCTHW: Tensor, real_BCTHW: Tensor) -> "Direction":
        """``(fake - real) / mean|x - real|``, the mean over each sample; NaN becomes 0.

        Args:
            x_BCTHW: the student's chunk.
            fake_BCTHW, real_BCTHW: the clean chunks that critic and teacher see in its noisy version.
        """
        difference = fake_BCTHW - real_BCTHW
        distance = (x_BCTHW.to(real_BCTHW) - real_BCTHW).abs().mean(dim=(1, 2, 3, 4), keepdim=True)
        gradient = torch.nan_to_num(difference / distance, nan=0.0)
        numbers = {
            "difference": difference.abs().mean(),
            "distance": distance.mean(),
            "direction": gradient.square().mean().sqrt(),
        }
        return Direction(gradient, numbers)


def surrogate(x_BCTHW: Tensor, gradient_BCTHW: Tensor) -> Tensor:
    """A loss whose gradient with respect to x is ``gradient / number of elements``: ``mean((x - sg(x - g))^2) / 2``."""
    x = x_BCTHW.to(gradient_BCTHW.dtype)
    return 0.5 * (x - (x - gradient_BCTHW).detach()).square().mean()


def clean_of(noisy_BCTHW: Tensor, velocity_BCTHW: Tensor, sigma_B: Tensor) -> Tensor:
    """``x - sigma * velocity`` in float64 where the device has it."""
    dtype = torch.float64 if supports_float64(noisy_BCTHW.device) else torch.float32
    sigma = sigma_B.to(noisy_BCTHW.device, dtype).view(-1, 1, 1, 1, 1)
    return noisy_BCTHW.to(dtype) - sigma * velocity_BCTHW.to(dtype)
