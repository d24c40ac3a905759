import itertools
import math

import pytest
import torch

from helios.errors import InputError
from helios.schedulers import (
    DynamicShift,
    NoShift,
    PyramidStages,
    SchedulerConfig,
    block_noise_closed_form,
    latent_pyramid,
    level_pairs,
    noise_pyramid,
    transition,
    upsample_nearest,
)
from helios.shapes import Geometry

SHAPE = (2, 3, 2, 8, 12)
PYRAMID = PyramidStages()


def _normal(seed: int, shape=SHAPE) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _mean(x: torch.Tensor) -> torch.Tensor:
    """2x2 means, by slicing."""
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def test_pairs_are_the_published_construction():
    clean2, noise2 = _normal(0), _normal(1)
    clean1, noise1 = _mean(clean2), 2 * _mean(noise2)
    clean0, noise0 = _mean(clean1), 2 * _mean(noise1)
    coarse, middle, fine = level_pairs(clean2, noise2, PYRAMID)
    expected = [
        (coarse.start_BCTHW, noise0),
        (coarse.end_BCTHW, 0.666333 * noise0 + 0.333667 * clean0),
        (middle.start_BCTHW, 0.799759712 * noise1 + 0.200240288 * upsample_nearest(clean0)),
        (middle.end_BCTHW, 0.333666 * noise1 + 0.666334 * clean1),
        (fine.start_BCTHW, 0.500374157 * noise2 + 0.499625843 * upsample_nearest(clean1)),
        (fine.end_BCTHW, clean2),
    ]
    for made, wanted in expected:
        torch.testing.assert_close(made, wanted, atol=1e-6, rtol=0)


def test_a_pair_is_a_straight_line():
    pair = level_pairs(_normal(0), _normal(1), PYRAMID)[1]
    sigma_B = torch.tensor([0.25, 0.8])
    x = pair.at(sigma_B)
    for sample, sigma in enumerate((0.25, 0.8)):
        expected = sigma * pair.start_BCTHW[sample] + (1 - sigma) * pair.end_BCTHW[sample]
        torch.testing.assert_close(x[sample], expected)
        torch.testing.assert_close(x[sample] - sigma * pair.velocity[sample], pair.end_BCTHW[sample], atol=1e-6, rtol=0)
    assert torch.equal(pair.at(torch.ones(2)), pair.start_BCTHW)
    assert torch.equal(pair.at(torch.zeros(2)), pair.end_BCTHW)


def test_pyramids_keep_frames_and_end_with_the_input():
    x = _normal(0)
    for pyramid in (latent_pyramid(x, 3), noise_pyramid(x, 3)):
        assert [tuple(level.shape[-3:]) for level in pyramid] == [(2, 2, 3), (2, 4, 6), (2, 8, 12)]
        assert pyramid[-1] is x


def test_the_noise_pyramid_is_white_at_every_level():
    """Conformance check T11: variance 1, no correlation between neighbours; and all levels come from one draw."""
    levels = noise_pyramid(_normal(0, (2, 8, 8, 64, 64)), 3)
    for noise in levels:
        assert noise.var().item() == pytest.approx(1.0, abs=0.03)
        assert abs((noise[..., 1:] * noise[..., :-1]).mean().item()) < 0.02
        assert abs((noise[..., 1:, :] * noise[..., :-1, :]).mean().item()) < 0.02
    for coarse, fine in itertools.pairwise(levels):
        torch.testing.assert_close(coarse, 2 * _mean(fine), atol=1e-6, rtol=0)


def test_pairs_are_float32():
    pairs = level_pairs(_normal(0).bfloat16(), _normal(1).bfloat16(), PYRAMID)
    assert {tensor.dtype for pair in pairs for tensor in (pair.start_BCTHW, pair.end_BCTHW)} == {torch.float32}


def test_a_size_that_cannot_be_halved_twice_is_refused():
    with pytest.raises(InputError, match="cannot be halved"):
        level_pairs(torch.zeros(1, 1, 1, 6, 8), torch.zeros(1, 1, 1, 6, 8), PYRAMID)


def _oracle_start_to_end(start: torch.Tensor, clean: list[torch.Tensor], level: int, stages: PyramidStages):
    """The end of a level for the noise that its actual start point implies."""
    stage = stages.stage(level)
    if level == 0:
        noise = start
    else:
        noise = (start - (1 - stage.start) * upsample_nearest(clean[level - 1])) / stage.start
    return stage.end * noise + (1 - stage.end) * clean[level]


@pytest.mark.parametrize("solver", ["unipc", "euler", "distilled"])
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
@pytest.mark.parametrize("shift", [NoShift(), DynamicShift(kind="linear"), DynamicShift(kind="exponential")])
@pytest.mark.parametrize("stages", [PYRAMID, PyramidStages(stage_range=(0.0, 0.4, 0.6, 1.0), gamma=0.25)])
def test_perfect_velocity_leads_to_the_clean_latents(solver, steps, shift, stages):
    """Conformance check T12. Left over is only what the first sigma lacks to 1: (1 - sigma_0) * velocity."""
    config, clean = SchedulerConfig(solver=solver, stages=stages, shift=shift), latent_pyramid(_normal(0), 3)
    x = noise_pyramid(_normal(1), 3)[0]
    for level in range(3):
        if level:
            noise = block_noise_closed_form(_normal(5 + level, clean[level].shape), stages.gamma)
            x = transition(x, noise, stages.stage(level))
        start, end = x, _oracle_start_to_end(x, clean, level, stages)
        schedule = config.level_schedule(level, steps, (540, 540, 2160)[level])
        made = config.make_solver(schedule, start)
        for index in range(schedule.steps):
            x = made.step(index, start - end, x)
    # Euler and UniPC carry the lack to the end, the distilled solver shrinks it at every return.
    lacking = math.prod(1 - sigma for sigma in schedule.sigmas[: -1 if solver == "distilled" else 1])
    assert lacking <= 0.0013
    torch.testing.assert_close(x, clean[2] + lacking * (start - clean[2]), atol=2e-5, rtol=0)


def test_an_imperfect_velocity_does_not():
    config, clean = SchedulerConfig(solver="euler", stages=PYRAMID), latent_pyramid(_normal(0), 3)
    start = noise_pyramid(_normal(1), 3)[0]
    end = _oracle_start_to_end(start, clean, 0, PYRAMID)
    schedule = config.level_schedule(0, 3, 540)
    x, solver = start, config.make_solver(schedule, start)
    for index in range(3):
        x = solver.step(index, 0.9 * (start - end), x)
    assert (x - end).abs().max() > 0.05


def test_token_counts():
    """Conformance check T19: history streams, noisy tokens per level, packed lengths of both stage-2 phases."""
    geometry = Geometry(levels=3)
    noisy = [geometry.noisy_tokens(384, 640, level) for level in range(3)]
    assert noisy == [540, 2160, 8640]
    rows, columns = geometry.latent_size(384, 640)
    # A patch of the short stream is 1x2x2 latents; mid and long take twice and four times as much along every axis.
    short = 2 * (rows // 2) * (columns // 2)
    mid = (geometry.history.mid // 2) * (rows // 4) * (columns // 4)
    long = (geometry.history.long // 4) * (rows // 8) * (columns // 8)
    assert (long, mid, short) == (240, 240, 1920)
    history = long + mid + short
    assert sum(history + tokens for tokens in (noisy[2], noisy[1], noisy[1], noisy[0])) == 23_100
    assert sum(history + tokens for tokens in noisy) == 18_540
