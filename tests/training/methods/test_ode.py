from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from helios.conditioning.guidance import ClassifierFree, NoGuidance
from helios.errors import InputError
from helios.models.transformer.context import TextContext
from helios.sampling.plan import SamplingPlan
from helios.schedulers.config import SchedulerConfig
from helios.schedulers.shift import DynamicShift
from helios.schedulers.stages import PyramidStages
from helios.training.adapt import FullTraining
from helios.training.ema import Ema
from helios.training.methods.ode import OdeLoss, OdeRegression, jump_sigmas, past_of
from helios.training.network import Network
from helios.training.optim import OptimConfig
from helios.training.pairs import OdePairs, PairSettings, record_pairs, write_pairs
from helios.training.player import Player
from helios.training.sample import cut
from helios.training.seeds import Draws, Purpose
from tests.training.clips import GEOMETRY, clip
from tests.training.methods.steps import moved, run, snapshot
from tests.training.models import HashedCaptions, transformer

PLAN = SamplingPlan(
    geometry=GEOMETRY,
    scheduler=SchedulerConfig(solver="distilled", stages=PyramidStages(), shift=DynamicShift(kind="linear")),
    height=32,
    width=32,
    steps=(2, 2, 2),
    amplify_first_chunk=True,
)
SETTINGS = PairSettings(steps=(3, 3, 3), chunks=2, dtype=torch.float32)


class Toward:
    """A network whose velocity leads straight from where it is to a fixed end: every path is a straight line."""

    def encode_text(self, text_BSE):
        return TextContext(projected_BSD=text_BSE)

    def encode_history(self, history, positions=None):
        self.history = history
        return self

    def repeat(self, n):
        return self

    def velocity(self, x_BCTHW, timestep_B, text, history, *, frames=None):
        sigma = self.sigma_of(x_BCTHW.shape[3], float(timestep_B[0]))
        return (x_BCTHW - 0.25) / sigma

    def sigma_of(self, height, timestep):
        level = {2: 0, 4: 1, 8: 2}[height]
        schedules = [self.plan.schedule(level, amplified=a) for a in (True, False)]
        found = {t: s for schedule in schedules for t, s in zip(schedule.model_timesteps, schedule.sigmas)}
        return found[timestep]


def pairs(prompts=("one", "two"), seeds=(3, 4), settings=SETTINGS, teacher=None, plan=PLAN):
    return record_pairs(teacher or Network(module=transformer()), plan, HashedCaptions(), prompts, seeds, settings)


def ode(model, plan=PLAN, **kwargs) -> OdeRegression:
    trainables = FullTraining().attach(model)
    optim = OptimConfig(lr=1e-3, betas=(0.0, 0.999), clip=10)
    student = Player(name="student", module=model, trainables=trainables, optim=optim, ema=Ema(start=2))
    return OdeRegression(student, Network(module=model), HashedCaptions(), plan, **kwargs)


def test_a_pair_holds_the_students_points_and_the_level_end():
    pair = pairs()[0]
    assert len(pair.states) == 2 and [len(levels) for levels in pair.states] == [3, 3]
    assert [tuple(states.shape) for states in pair.states[0]] == [(5, 4, 9, s, s) for s in (2, 4, 8)]
    assert [tuple(states.shape) for states in pair.states[1]] == [(3, 4, 9, s, s) for s in (2, 4, 8)]
    assert all(torch.isfinite(states).all() for levels in pair.states for states in levels)


def test_teacher_steps_that_fall_on_an_amplified_point_are_not_kept():
    """Five teacher steps fall on the student's four points of a first chunk; later chunks still keep their two."""
    pair = pairs(settings=replace(SETTINGS, steps=(5, 5, 5)))[0]
    assert [[len(states) for states in levels] for levels in pair.states] == [[5, 5, 5], [3, 3, 3]]


def test_the_teacher_walks_as_it_does_when_sampling():
    """With the student's points among its own, recording changes nothing: equal to a plain rollout on that schedule."""
    from helios.noise import AddressedNoise
    from helios.sampling.rollout import ConstantText, rollout, start_state
    from helios.training.pairs import PairScheduler

    network = Network(module=transformer())
    plain = replace(PLAN, scheduler=PairScheduler(student=PLAN.scheduler, student_steps=PLAN.steps), steps=(3, 3, 3))
    with torch.no_grad():
        text = ConstantText(text=network.encode_text(HashedCaptions().encode_prompts(["one"])))
        state = start_state(plain, 1)
        latents = [x for x, _ in rollout(network, plain, text, state, AddressedNoise((3,)), chunks=2)]
    pair = pairs(prompts=("one",), seeds=(3,), settings=replace(SETTINGS, guidance=NoGuidance()), teacher=network)[0]
    for got, wanted in zip(pair.finals, latents):
        assert torch.equal(got, wanted[0])


def test_on_straight_paths_the_jump_is_exact():
    """A teacher whose path to the level's end is straight: the ideal student's loss is zero from every point."""
    from helios.training.pairs import PairScheduler

    teacher = Toward()
    scheduler = PairScheduler(student=PLAN.scheduler, student_steps=PLAN.steps)
    teacher.plan = replace(PLAN, scheduler=scheduler, steps=(3, 3, 3))
    made = pairs(teacher=teacher, settings=replace(SETTINGS, guidance=NoGuidance()))
    for chunk, levels in enumerate(made[0].states):
        for level, states in enumerate(levels):
            schedule = PLAN.schedule(level, amplified=chunk == 0)
            for point, sigma in enumerate(jump_sigmas(PLAN, schedule)):
                velocity = (states[point] - 0.25) / schedule.sigmas[point]
                torch.testing.assert_close(states[point] - sigma * velocity, states[-1], atol=2e-2, rtol=0)


def test_guidance_and_seeds_matter_and_prompts_are_independent_of_their_batch():
    both, alone = pairs(), pairs(prompts=("two",), seeds=(4,))
    torch.testing.assert_close(both[1].finals[1], alone[0].finals[1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(both[0].states[0][0][0], both[1].states[0][0][0])
    stronger = pairs(settings=replace(SETTINGS, guidance=ClassifierFree(scale=9.0)))
    assert not torch.allclose(both[0].finals[0], stronger[0].finals[0])


def test_files_come_back_and_an_interrupted_command_goes_on(tmp_path):
    record = partial(record_pairs, Network(module=transformer()), PLAN, HashedCaptions(), settings=SETTINGS)
    calls = []

    def counted(prompts, seeds):
        calls.append(tuple(prompts))
        return record(prompts, seeds)

    prompts = ("one", "two", "three")
    write_pairs(tmp_path, prompts[:1], counted, seed=3)
    write_pairs(tmp_path, prompts, counted, seed=3, batch=2, store_text=True)
    assert calls == [("one",), ("two", "three")]
    data = OdePairs(tmp_path)
    assert [data[i].captions[0] for i in range(3)] == list(prompts)
    assert data[0].texts_SE is None and data[1].texts_SE[0].shape == (5, 12)
    direct = record(["two"], [4])[0]
    torch.testing.assert_close(data[1].finals[1], direct.finals[1], rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="holds no pairs"):
        OdePairs(tmp_path / "nowhere")


def test_the_past_is_the_one_that_training_cuts(monkeypatch):
    """The same latents as a clip and as a pair's finals give the same history."""
    item = clip(4)
    finals = [list(item.latents_CTHW.split(9, dim=1))]
    for chunk in range(4):
        monkeypatch.setattr(Draws, "below", lambda self, purpose, limits, chunk=chunk: [chunk])
        wanted = cut([item], Draws(0, 0, (0,)), GEOMETRY).past
        got = past_of(finals, chunk, PLAN)
        for name in wanted.__dataclass_fields__:
            assert torch.equal(getattr(got, name), getattr(wanted, name)), (chunk, name)


class Constant(nn.Module):
    """A student whose velocity is one number everywhere."""

    def __init__(self):
        super().__init__()
        self.velocity_of_all = nn.Parameter(torch.tensor(0.5))

    def encode_text(self, text_BSE, keys=True):
        return TextContext(projected_BSD=text_BSE)

    def encode_history(self, history, positions=None):
        return history

    def velocity(self, x_BCTHW, timestep_B, text, history, *, frames=None):
        return self.velocity_of_all.expand_as(x_BCTHW)


def test_the_loss_and_its_gradient_are_their_formula():
    """80 / 2 * mean over chunks and levels of (x - sigma * v - end)^2, in float64 by hand."""
    data, draws, module = pairs(), Draws(0, 5, (0, 1)), Constant()
    method = ode(transformer(), loss=OdeLoss(chunks=2, weight=80.0))
    method.network = Network(module=module)
    got = method.backward("student", data, draws, 1.0)["loss"]
    terms, slopes = [], []
    for chunk in range(2):
        for level in range(3):
            schedule = PLAN.schedule(level, amplified=chunk == 0)
            sigmas = jump_sigmas(PLAN, schedule)
            points = draws.on(chunk * 3 + level).below(Purpose.ODE_STATE, [schedule.steps] * 2)
            for pair, point in zip(data, points):
                states = pair.states[chunk][level].double()
                error = states[point] - sigmas[point] * 0.5 - states[-1]
                terms.append(error.square().mean())
                slopes.append(-2 * sigmas[point] * error.mean())
    torch.testing.assert_close(got.double(), 40 * torch.stack(terms).mean(), rtol=1e-5, atol=1e-6)
    slope = module.velocity_of_all.grad.double()
    torch.testing.assert_close(slope, 40 * torch.stack(slopes).mean(), rtol=1e-4, atol=1e-5)


def test_the_gradient_is_that_of_the_mean_over_terms():
    """One backward per term equals one backward of eighty times their mean."""
    data, draws = pairs(), Draws(0, 0, (0, 1))
    method = ode(transformer())
    numbers = method.backward("student", data, draws, 1.0)
    got = torch.cat([p.grad.flatten() for p in method.players[0].trainables.values()])
    other = ode(transformer())
    terms = []
    for chunk in range(2):
        past, text = past_of([p.finals for p in data], chunk, PLAN), HashedCaptions().encode(data, draws)
        terms += [other._term(data, chunk, i, text, past, draws.on(chunk * 3 + i)) for i in range(3)]
    loss = 80 * torch.stack(terms).mean()
    loss.backward()
    wanted = torch.cat([p.grad.flatten() for p in other.players[0].trainables.values()])
    torch.testing.assert_close(numbers["loss"], loss.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


def test_it_trains_and_everything_moves(tmp_path):
    folder = tmp_path / "pairs"
    record = partial(record_pairs, Network(module=transformer(seed=1)), PLAN, HashedCaptions(), settings=SETTINGS)
    write_pairs(folder, ("one", "two"), record)
    model = transformer()
    method = ode(model, loss=OdeLoss(chunks=1))
    before = snapshot(model)
    curves = run(method, tmp_path / "run", steps=25, data=OdePairs(folder))
    losses = [value for _, value in curves["student/loss"]]
    assert sum(losses[-8:]) < 0.9 * sum(losses[:8])
    assert moved(before, model) == set(method.players[0].trainables)


def test_pairs_for_other_steps_are_refused():
    method = ode(transformer(), replace(PLAN, steps=(1, 1, 1)))
    with pytest.raises(InputError, match="the pairs hold 4 points of level 0, the student takes 2"):
        method.backward("student", pairs(), Draws(0, 0, (0, 1)), 1.0)
