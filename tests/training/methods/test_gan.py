import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helios.errors import InputError
from helios.sampling.plan import SamplingPlan
from helios.schedulers.config import SchedulerConfig
from helios.schedulers.shift import DynamicShift
from helios.schedulers.stages import PyramidStages
from helios.training.adapt import FullTraining, LoraTraining
from helios.training.methods.dmd import Dmd, DmdConfig
from helios.training.methods.gan import Adversary, AdversaryConfig, CachedGradient, Discriminator, Head, crop_half
from helios.training.methods.task import Tasks, make_task
from helios.training.network import Network
from helios.training.optim import OptimConfig
from helios.training.player import Player
from helios.training.scores import SharedScores
from helios.training.seeds import Draws
from tests.training.clips import GEOMETRY, clip, clips
from tests.training.methods.steps import moved, run, snapshot
from tests.training.models import HashedCaptions, transformer

PLAN = SamplingPlan(
    geometry=GEOMETRY,
    scheduler=SchedulerConfig(solver="distilled", stages=PyramidStages(), shift=DynamicShift(kind="linear")),
    height=64,
    width=64,
    steps=(1, 1, 1),
)


def gan(start: int = 0, config: DmdConfig = DmdConfig(student_every=2), **weights) -> Dmd:
    student_model, base = transformer(seed=0), transformer(seed=1)
    student = Player(
        name="student", module=student_model, trainables=FullTraining().attach(student_model), optim=OptimConfig()
    )
    torch.manual_seed(2)
    heads = Discriminator(channels=4, hidden=32, taps=(0, 1), width=8)
    adapter = LoraTraining(rank=4, patches=(), full=()).attach(base)
    both = nn.ModuleDict({"score": base, "heads": heads})
    trainables = {f"score.{n}": p for n, p in adapter.items()} | {f"heads.{n}": p for n, p in heads.named_parameters()}
    critic = Player(name="critic", module=both, trainables=trainables, optim=OptimConfig())
    network = Network(module=base)
    adversary = Adversary(discriminator=heads, network=network, config=AdversaryConfig(start=start, **weights))
    scores = SharedScores(fake=network)
    return Dmd(student, critic, Network(module=student_model), scores, HashedCaptions(), PLAN, config, adversary)


def task_of(draws: Draws):
    items = [clip(3, seed=s, height=16) for s in draws.samples]
    return make_task(items, draws, tasks=Tasks(), captions=HashedCaptions(), geometry=GEOMETRY, device="cpu")


def levels(batch: int):
    return torch.full((batch,), 0.4, dtype=torch.float64), torch.full((batch,), 400.0)


def test_the_cached_gradient_is_that_of_the_direct_graph():
    """Conformance T25."""
    method, draws = gan(), Draws(0, 0, (0, 1))
    adversary, task = method.adversary, task_of(draws)
    sigma, timestep = levels(2)
    base = torch.randn(2, 4, 9, 16, 16, requires_grad=True)
    cached = adversary.student_term(base * 2, task, GEOMETRY, sigma, timestep, draws)
    (3 * cached).backward()
    assert all(p.grad is None for p in method.players[1].trainables.values())
    direct = base.detach().clone().requires_grad_(True)
    apply, CachedGradient.apply = CachedGradient.apply, lambda x, loss: loss(x)
    try:
        value = adversary.student_term(direct * 2, task, GEOMETRY, sigma, timestep, draws)
    finally:
        CachedGradient.apply = apply
    (3 * value).backward()
    torch.testing.assert_close(cached, value.detach())
    torch.testing.assert_close(base.grad, direct.grad, rtol=1e-4, atol=1e-8)
    assert base.grad.abs().max() > 0


def test_the_cached_gradient_agrees_with_finite_differences():
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: CachedGradient.apply(x, lambda y: (y.sin() * y).sum()), (x,))


def test_the_losses_are_their_formulas():
    method, draws = gan(student=0.05, critic=0.01, smoothness=100.0, perturbation=0.1), Draws(0, 1, (0, 1))
    adversary, task = method.adversary, task_of(draws)
    sigma, timestep = levels(2)
    x, noise = torch.randn(2, 2, 4, 9, 16, 16)
    seen = {}

    def judged(inputs, *rest):
        seen["inputs"] = inputs
        generator = torch.Generator().manual_seed(3)
        seen["logits"] = [torch.randn(2, 3, generator=generator) + 0 * x.mean() for x in inputs]
        return seen["logits"]

    object.__setattr__(adversary, "_judge", judged)
    terms = adversary.critic_terms(x, noise, task, GEOMETRY, sigma, timestep, draws)
    fake, real, perturbed = seen["logits"]
    noised = seen["inputs"]
    wanted = (
        0.01 * (F.softplus(real.mean(1)) + F.softplus(-fake.mean(1))).mean() + 100 * (real - perturbed).square().mean()
    )
    torch.testing.assert_close(terms["adversary"], wanted)
    torch.testing.assert_close(noised[0], 0.6 * x + 0.4 * noise)
    torch.testing.assert_close(noised[1], 0.6 * task.target_BCTHW + 0.4 * noise)
    assert (noised[2] - noised[1]).std().item() == pytest.approx(0.1, rel=0.05)
    torch.testing.assert_close(
        adversary.student_term(x, task, GEOMETRY, sigma, timestep, draws),
        0.05 * F.softplus(seen["logits"][0].mean(1)).mean(),
    )


def test_crops_are_half_sized_and_at_one_place_for_every_input():
    draws = Draws(0, 0, (0, 1, 2, 3))
    x = torch.arange(4 * 16 * 12.0).view(4, 1, 1, 16, 12)
    first, second = crop_half(x, draws), crop_half(x + 1000, draws)
    assert first.shape == (4, 1, 1, 8, 6)
    assert torch.equal(second, first + 1000)
    corners = {(first[i] - x[i].min()).min().item() for i in range(4)}
    assert len(corners) > 1


def test_heads_have_the_published_shape():
    """Sizes inside a hook head for the 24 x 40 crop of 384 x 640: 9x12x20, 4x6x10, 2x3x5, 1x3x5, 1x3x5."""
    head = Head(channels=6, width=32)
    sizes, x = [], torch.randn(1, 6, 9, 12, 20)
    for layer in head.convolutions:
        x = layer(x)
        if isinstance(layer, nn.Conv3d):
            sizes.append(tuple(x.shape[2:]))
    assert sizes == [(9, 12, 20), (4, 6, 10), (2, 3, 5), (1, 3, 5), (1, 3, 5), (1, 3, 5)]
    with torch.device("meta"):
        hooked, final = Head(5120, 768), Head(16, 768)
    count = lambda module: sum(p.numel() for p in module.parameters())
    assert count(hooked) / 1e6 == pytest.approx(218.8, abs=0.1)
    assert count(final) / 1e6 == pytest.approx(113.0, abs=0.1)


def test_taps_read_the_noisy_tokens_with_and_without_checkpointing():
    results = []
    for checkpointing in (False, True):
        method, draws = gan(), Draws(0, 0, (0,))
        if checkpointing:
            method.adversary.network.module.enable_gradient_checkpointing()
        method.adversary.network.module.train()
        task, (sigma, timestep) = task_of(draws), levels(1)
        x, noise = torch.ones(1, 4, 9, 16, 16), torch.zeros(1, 4, 9, 16, 16)
        terms = method.adversary.critic_terms(x, noise, task, GEOMETRY, sigma, timestep, draws)
        terms["adversary"].backward()
        gradients = [p.grad for p in method.players[1].trainables.values() if p.grad is not None]
        results.append((terms["adversary"].detach(), torch.cat([g.flatten() for g in gradients])))
    torch.testing.assert_close(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-7)


def test_it_trains_critic_heads_and_student_together(tmp_path):
    method = gan(start=2)
    before, critic_before = snapshot(method.players[0].module), snapshot(method.players[1].module)
    curves = run(method, tmp_path, steps=8, data=clips(4, height=16), batch_size=2, gradient_check_steps=8)
    assert moved(before, method.players[0].module) == set(method.players[0].trainables)
    assert moved(critic_before, method.players[1].module) == set(method.players[1].trainables)
    assert [step for step, _ in curves["critic/adversary"]] == [3, 4, 5, 6, 7, 8]
    assert [step for step, _ in curves["student/adversary"]] == [3, 5, 7]


def test_one_optimiser_step_per_turn_for_all_of_the_critics_losses(tmp_path):
    """K9: the gradients of both backward passes are there when the critic steps, and it steps once."""
    method = gan(start=0)
    run(method, tmp_path, steps=3, data=clips(4, height=16))
    assert method.players[1].updates == 3
    state = next(iter(method.players[1].optimizer.state.values()))
    assert int(state["step"]) == 3


def test_the_clip_factor_is_that_of_the_configured_norm(tmp_path):
    """Conformance T28."""
    curves = run(gan(start=0), tmp_path, steps=3, data=clips(4, height=16))
    for name in ("student", "critic"):
        for (_, norm), (_, factor) in zip(curves[f"{name}/grad_norm"], curves[f"{name}/clip_factor"]):
            assert factor == pytest.approx(min(1.0, 1.0 / (norm + 1e-6)), rel=1e-5)


def test_negative_weights_are_refused():
    with pytest.raises(InputError, match="must not be negative"):
        AdversaryConfig(student=-1)
