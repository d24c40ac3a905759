import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from helios.errors import InputError
from helios.models.transformer.context import TextContext
from helios.sampling.plan import SamplingPlan
from helios.schedulers.config import SchedulerConfig
from helios.schedulers.shift import DynamicShift
from helios.schedulers.stages import PyramidStages
from helios.training.adapt import FullTraining, LoraTraining
from helios.training.corruption import NoCorruption
from helios.training.ema import Ema
from helios.training.methods.dmd import CoarseToFine, Direction, Dmd, DmdConfig, ScoreTimes, surrogate
from helios.training.methods.task import Tasks
from helios.training.network import Network
from helios.training.optim import OptimConfig
from helios.training.player import Player
from helios.training.residence import OneAtATime
from helios.training.sample import TaskMix
from helios.training.scores import SeparateScores, SharedScores
from helios.training.seeds import Draws
from tests.training.clips import GEOMETRY, clip, clips
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
CLEAN = Tasks(mix=TaskMix(t2v=0, i2v=0, v2v=0, full=1), corruption=NoCorruption())
OPTIM = OptimConfig(lr=1e-3, betas=(0.0, 0.999), clip=10, weight_decay=1e-3)
PUBLISHED_TOKENS = 8640


def dmd(*, shared=True, lora_student=False, config=DmdConfig(), plan=PLAN, **kwargs) -> Dmd:
    """Student from one dense model, teacher and critic from another."""
    student_model, base = transformer(seed=0), transformer(seed=1)
    training = LoraTraining(rank=4, patches=("patch_short",), full=()) if lora_student else FullTraining()
    trainables = training.attach(student_model)
    student = Player(name="student", module=student_model, trainables=trainables, optim=OPTIM, ema=Ema(start=1))
    if shared:
        adapter = LoraTraining(rank=4, patches=(), full=()).attach(base)
        critic, scores = base, SharedScores(fake=Network(module=base))
    else:
        critic = copy.deepcopy(base)
        adapter = FullTraining().attach(critic)
        scores = SeparateScores(real=Network(module=base.requires_grad_(False)), fake=Network(module=critic))
    player = Player(name="critic", module=critic, trainables=adapter, optim=replace(OPTIM, lr=2e-3))
    return Dmd(student, player, Network(module=student_model), scores, HashedCaptions(), plan, config, **kwargs)


def test_the_gradient_of_the_surrogate_is_g_over_the_number_of_elements():
    """Conformance T20."""
    x, g = torch.randn(2, 4, 9, 8, 8, requires_grad=True), torch.randn(2, 4, 9, 8, 8, dtype=torch.float64)
    surrogate(x, g).backward()
    torch.testing.assert_close(x.grad.double(), g / g.numel(), rtol=1e-5, atol=1e-9)


def test_the_direction_is_its_formula_per_sample():
    x, fake, real = torch.randn(3, 2, 4, 3, 3, 3, dtype=torch.float64)
    real[1] = x[1]
    fake[1] = x[1]  # 0 / 0
    got = Direction.between(x, fake_BCTHW=fake, real_BCTHW=real).gradient
    wanted = (fake[0] - real[0]) / (x[0] - real[0]).abs().mean()
    torch.testing.assert_close(got[0], wanted)
    assert got[1].abs().max() == 0


class ConstantScores:
    """Velocities that are one number everywhere; the teacher's depends on whether it reads the negative prompt."""

    fake, real, without = 0.3, 0.7, 0.2

    def __init__(self, negative_SE):
        self.negative_SE, self.seen = negative_SE, []

    def fake_velocity(self, x_BCTHW, timestep_B, text_BSE, history):
        self.seen.append(history)
        return torch.full_like(x_BCTHW, self.fake)

    def real_velocity(self, x_BCTHW, timestep_B, text_BSE, history):
        self.seen.append(history)
        negative = torch.equal(text_BSE, self.negative_SE.expand_as(text_BSE))
        return torch.full_like(x_BCTHW, self.without if negative else self.real)


def test_the_students_direction_is_fake_against_the_guided_teacher_under_one_history():
    method = dmd(config=DmdConfig(tasks=CLEAN, negative="ugly", guidance=3.0))
    method.scores = scores = ConstantScores(HashedCaptions().encode_prompts(["ugly"])[0])
    task = method._task([clip(4), clip(4, seed=1)], Draws(0, 0, (0, 1)))
    x, noise = torch.randn(2, 2, 4, 9, 8, 8).double().unbind()
    sigma = torch.tensor([0.25, 0.75], dtype=torch.float64)
    got = method._direction(x.float(), noise.float(), sigma, 1000 * sigma, task).gradient
    sigma = sigma[:, None, None, None, None]
    noisy = (1 - sigma) * x + sigma * noise
    fake, real = (noisy - sigma * v for v in (0.3, 0.7 + 3 * (0.7 - 0.2)))
    wanted = (fake - real) / (x - real).abs().mean(dim=(1, 2, 3, 4), keepdim=True)
    torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-5)
    one, *others = scores.seen
    assert len(others) == 2 and all(torch.equal(one.short_BCTHW, other.short_BCTHW) for other in others)


@pytest.mark.parametrize(
    "step, shape", [(0, (4, 1.5)), (125, (3.561, 1.427)), (250, (2.5, 1.25)), (375, (1.439, 1.073)), (500, (1, 1))]
)
def test_coarse_to_fine_is_the_published_schedule_counted_in_student_updates(step, shape):
    """Conformance T21; the published 500 critic steps are 100 student updates."""
    assert CoarseToFine(over=100).shape(step / 5) == pytest.approx(shape, abs=1e-3)
    assert CoarseToFine(over=100).shape(1000) == (1, 1)


@pytest.mark.parametrize("tau, time", [(0.02, 38), (0.25, 390), (0.5, 657), (0.727, 836), (0.9, 945)])
def test_times_of_the_scores_are_the_published_map(tau, time):
    """Conformance T22."""
    sigma, timestep = ScoreTimes().levels(torch.tensor([tau], dtype=torch.float64), PUBLISHED_TOKENS)
    assert timestep.item() == time
    assert sigma.item() == pytest.approx(time / 1000, abs=2e-3)
    ends = ScoreTimes().levels(torch.tensor([1e-9, 1.0], dtype=torch.float64), PUBLISHED_TOKENS)[1]
    assert ends.tolist() == [20, 980]


def test_student_times_follow_the_beta_and_critic_times_are_uniform():
    draws, times = Draws(0, 0, tuple(range(4000))), ScoreTimes()
    assert times.for_student(0, draws).mean() == pytest.approx(4 / 5.5, abs=0.01)
    assert times.for_student(100, draws).mean() == pytest.approx(0.5, abs=0.02)
    uniform = times.for_critic(draws)
    assert uniform.mean() == pytest.approx(0.5, abs=0.02) and uniform.min() >= 0.001


def test_the_teacher_is_bit_for_bit_what_it_was_after_ten_critic_updates(tmp_path):
    """Conformance T23."""
    method = dmd()
    arguments = [torch.randn(1, 4, 9, 8, 8), torch.tensor([500.0]), torch.randn(1, 5, 12)]
    streams = method._task([clip(4)], Draws(0, 0, (0,))).streams(GEOMETRY)
    pristine = SharedScores(fake=Network(module=transformer(seed=1).requires_grad_(False)))
    wanted = pristine.fake_velocity(*arguments, streams)
    with torch.no_grad():
        before = method.scores.fake_velocity(*arguments, streams)
    run(method, tmp_path, steps=10)
    assert torch.equal(method.scores.real_velocity(*arguments, streams), wanted)
    assert not torch.allclose(method.scores.fake_velocity(*arguments, streams), before)


class PerLevel(nn.Module):
    """A student with one number per level: which of them get a gradient tells where gradients went."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.3, 0.2, 0.1]))

    def encode_text(self, text_BSE, keys=True):
        return TextContext(projected_BSD=text_BSE)

    def encode_history(self, history, positions=None):
        return history

    def velocity(self, x_BCTHW, timestep_B, text, history, *, frames=None):
        return x_BCTHW * self.weight[{2: 0, 4: 1, 8: 2}[x_BCTHW.shape[3]]]


@pytest.mark.parametrize("exits", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (1, 1, 0), (1, 0, 1)])
def test_the_gradient_crosses_a_level_border_only_into_a_first_step(exits, monkeypatch):
    """Conformance T24: level i - 1 learns through level i if and only if level i leaves at its first step."""
    method = dmd(config=DmdConfig(tasks=CLEAN, student_damage=NoCorruption()))
    module = PerLevel()
    method.network = Network(module=module)
    numbers = iter([*exits, 0, 0, 0])
    fixed = type("Exits", (), {"integers": lambda self, n: next(numbers)})()
    monkeypatch.setattr(Draws, "synchronous", lambda self, purpose: fixed)
    monkeypatch.setattr(Draws, "below", lambda self, purpose, limits: [3] * len(limits))
    task = method._task([clip(4)], Draws(0, 0, (0,)))
    monkeypatch.undo()
    numbers = iter([*exits, 0, 0, 0])
    monkeypatch.setattr(Draws, "synchronous", lambda self, purpose: fixed)
    fixed.__class__.integers = lambda self, n: next(numbers)
    method.roll_out(task, Draws(0, 0, (0,)), gradient=True).square().mean().backward()
    got = [bool(g != 0) for g in module.weight.grad]
    assert got == [exits[1] == 0 and exits[2] == 0, exits[2] == 0, True]


def test_the_critics_rollout_has_no_graph():
    method = dmd()
    task = method._task([clip(4)], Draws(0, 0, (0,)))
    assert not method.roll_out(task, Draws(0, 0, (0,)), gradient=False).requires_grad


def test_a_sample_rolls_out_alike_in_any_micro_batch_empty_pasts_included():
    method = dmd(config=DmdConfig(tasks=Tasks(corruption=NoCorruption()), student_damage=NoCorruption()))
    items = [clip(4, seed=seed) for seed in range(6)]
    draws = Draws(0, 2, tuple(range(6)))
    task = method._task(items, draws)
    assert 0 < task.past.empty_B.sum() < 6
    together = method.roll_out(task, draws, gradient=False)
    for row in range(6):
        own = Draws(0, 2, (row,))
        alone = method.roll_out(method._task([items[row]], own), own, gradient=False)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-3, atol=1e-4)


def test_full_exits_are_the_streaming_sampler(monkeypatch):
    """With every exit at its last step the rollout of training is the one that generation runs."""
    from helios.sampling.denoise import ChunkNoise, Condition, denoise_chunk
    from helios.training.seeds import RolloutNoise

    method = dmd(config=DmdConfig(tasks=CLEAN, student_damage=NoCorruption()))
    last = type("Last", (), {"integers": lambda self, n: n - 1})()
    monkeypatch.setattr(Draws, "synchronous", lambda self, purpose: last)
    draws = Draws(0, 0, (0,))
    for step in range(20):
        draws = Draws(0, step, (0,))
        task = method._task([clip(4)], draws)
        if not task.past.empty_B[0]:
            break
    network = method.network
    with torch.no_grad():
        text = network.encode_text(task.text_BSE)
        condition = Condition.plain(text, network.encode_history(task.streams(GEOMETRY)))
        noise = ChunkNoise.draw(method.plan, RolloutNoise(draws), 0, 1, "cpu")
        wanted = denoise_chunk(network, method.plan, condition, noise)
    assert torch.equal(method.roll_out(task, draws, gradient=False), wanted)


def test_turns():
    method = dmd()
    assert [method.turns(step) for step in (0, 1, 4, 5)] == [
        ("student", "critic"),
        ("critic",),
        ("critic",),
        ("student", "critic"),
    ]


@pytest.mark.parametrize("shared, lora_student", [(True, True), (False, False)])
def test_it_trains_and_moves_what_it_should(tmp_path, shared, lora_student):
    method = dmd(shared=shared, lora_student=lora_student, config=replace(DmdConfig(), student_every=2))
    student, critic = method.players
    before, critic_before = snapshot(student.module), snapshot(critic.module)
    real = None if shared else snapshot(method.scores.real.module)
    curves = run(method, tmp_path, steps=10, data=clips(4), gradient_check_steps=10, batch_size=4)
    assert moved(before, student.module) == set(student.trainables)
    assert moved(critic_before, critic.module) == set(critic.trainables)
    assert real is None or moved(real, method.scores.real.module) == set()
    assert student.updates == 5 and critic.updates == 10 and student.average.updates == 5
    assert len(curves["student/direction"]) == 5 and len(curves["critic/denoising_loss"]) == 10


def test_the_student_turn_leaves_the_critic_without_gradients():
    method = dmd()
    method.backward("student", [clip(4)], Draws(0, 0, (0,)), 1.0)
    student, critic = method.players
    assert all(p.grad is None for p in critic.trainables.values())
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in student.trainables.values())


def test_a_run_of_two_players_goes_on_exactly(tmp_path):
    whole, killed = dmd(), dmd()
    run(whole, tmp_path / "whole", steps=7)
    run(killed, tmp_path / "killed", steps=3)
    resumed = dmd()
    run(resumed, tmp_path / "killed", steps=7)
    for a, b in zip(whole.players, resumed.players):
        for name, value in a.trainables.items():
            assert torch.equal(value, b.trainables[name]), name


def test_networks_that_take_turns_on_the_device_train_alike(tmp_path):
    """Phase swapping: frozen weights come and go, and nothing else changes."""
    resident, swapped = dmd(lora_student=True), dmd(lora_student=True)
    student, base = swapped.network.module, swapped.scores.fake.module
    for method in (resident, swapped):
        method.network.module.enable_gradient_checkpointing()
        method.network.module.train()
    swapped.residence = OneAtATime([student, base], torch.device("cpu"))
    where = lambda module: module.blocks[0].attn1.to_q.base_layer.weight.data_ptr()
    at_home = [where(student), where(base)]
    run(resident, tmp_path / "resident", steps=3)
    run(swapped, tmp_path / "swapped", steps=3)
    for a, b in zip(resident.players, swapped.players):
        for name, value in a.trainables.items():
            assert torch.equal(value, b.trainables[name]), name
    assert where(student) == at_home[0] and where(base) != at_home[1]


def test_settings_are_checked():
    with pytest.raises(InputError, match="student_every=0"):
        DmdConfig(student_every=0)
    with pytest.raises(InputError, match="over=0"):
        CoarseToFine(over=0)
