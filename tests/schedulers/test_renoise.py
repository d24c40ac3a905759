import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from diffusers.pipelines.helios.pipeline_helios_pyramid import HeliosPyramidPipeline

from helios.errors import InputError
from helios.schedulers import PyramidStages
from helios.schedulers.renoise import (
    block_noise_cholesky,
    block_noise_closed_form,
    cholesky_rows,
    downsample_mean,
    downsample_noise,
    transition,
    upsample_nearest,
)

SHAPE = (2, 3, 2, 4, 6)


def _normal(seed: int, shape=SHAPE) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _blocks(x_BCTHW: torch.Tensor) -> torch.Tensor:
    """[M, 4]: the four numbers of each 2x2 block, row by row."""
    batch, channels, frames, height, width = x_BCTHW.shape
    split = x_BCTHW.view(batch, channels, frames, height // 2, 2, width // 2, 2)
    return split.transpose(-3, -2).reshape(-1, 4)


def _covariance(gamma: float, size: int = 4) -> torch.Tensor:
    return (1 + gamma) * torch.eye(size) - gamma * torch.ones(size, size)


def test_upsampling_copies_each_latent_into_a_block():
    x = _normal(0)
    flat = x.permute(0, 2, 1, 3, 4).reshape(4, 3, 4, 6)
    expected = F.interpolate(flat, scale_factor=2, mode="nearest").view(2, 2, 3, 8, 12).permute(0, 2, 1, 3, 4)
    assert torch.equal(upsample_nearest(x), expected)


def test_upsampling_carries_the_sum_of_a_blocks_gradients():
    x, weights = _normal(0).requires_grad_(), _normal(1, (2, 3, 2, 8, 12))
    (upsample_nearest(x) * weights).sum().backward()
    torch.testing.assert_close(x.grad.flatten(), _blocks(weights).sum(1))


def test_halving_is_the_mean_of_each_block_and_bilinear_as_published():
    x = _normal(0)
    torch.testing.assert_close(downsample_mean(x).flatten(), _blocks(x).mean(1))
    flat = x.permute(0, 2, 1, 3, 4).reshape(4, 3, 4, 6)
    expected = F.interpolate(flat, size=(2, 3), mode="bilinear").view(2, 2, 3, 2, 3).permute(0, 2, 1, 3, 4)
    assert torch.equal(downsample_mean(x), expected)
    assert torch.equal(downsample_noise(x), expected * 2)


def test_halving_undoes_upsampling():
    torch.testing.assert_close(downsample_mean(upsample_nearest(_normal(0))), _normal(0))


@pytest.mark.parametrize("size", [(3, 4), (4, 5)])
def test_odd_sizes_cannot_be_halved(size):
    with pytest.raises(InputError, match=f"{size[0]}x{size[1]}"):
        downsample_mean(torch.zeros(1, 1, 1, *size))


@pytest.mark.parametrize("gamma", [1 / 3, 0.33, 0.1])
def test_closed_form_block_noise_has_the_block_covariance(gamma):
    """Conformance check T10, first two: the map applied to unit vectors is a root of the covariance, exactly."""
    units = torch.eye(4).view(4, 1, 1, 2, 2)
    root = _blocks(block_noise_closed_form(units, gamma))
    torch.testing.assert_close(root.T @ root, _covariance(gamma), atol=1e-6, rtol=0)


def test_closed_form_block_noise_statistics():
    """Conformance check T10 by sampling: variance 1, covariance -1/3 inside a block, 0 between blocks, sum 0."""
    noise = block_noise_closed_form(_normal(0, (1, 4, 4, 128, 128)), 1 / 3)
    blocks = _blocks(noise)
    torch.testing.assert_close(blocks.T @ blocks / len(blocks), _covariance(1 / 3), atol=0.02, rtol=0)
    assert (noise[..., 1:-1:2] * noise[..., 2::2]).mean().abs() < 0.01  # neighbours across a block border
    assert blocks.sum(1).abs().max() < 1e-5


def test_block_sums_are_zero_at_one_third_only():
    blocks = _blocks(block_noise_closed_form(_normal(0), 0.2))
    assert blocks.sum(1).abs().max() > 0.1


def test_cholesky_rows_are_the_published_ones():
    a, b = 1 / 3, math.sqrt(1 - 1 / 9)
    expected = [(1.0,), (-a, b), (-a, -0.471405, 0.816497), (-a, -0.471405, -0.816497, 2.0e-4)]
    for row, wanted in zip(cholesky_rows(1 / 3), expected, strict=True):
        assert row == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("gamma", [1 / 3, 0.33, 0.1])
def test_cholesky_rows_equal_the_float64_factor(gamma):
    covariance = (1 + gamma) * torch.eye(4).double() - gamma * torch.ones(4, 4).double() + 1e-8 * torch.eye(4).double()
    factor = torch.linalg.cholesky(covariance)
    for i, row in enumerate(cholesky_rows(gamma)):
        assert row == pytest.approx(factor[i, : i + 1].tolist(), abs=1e-9)


def _published_block_noise(gamma: float, seed: int) -> torch.Tensor:
    pipeline = SimpleNamespace(scheduler=SimpleNamespace(config=SimpleNamespace(gamma=gamma)))
    generator = torch.Generator().manual_seed(seed)
    return HeliosPyramidPipeline.sample_block_noise(pipeline, *SHAPE, device=torch.device("cpu"), generator=generator)


def _ours(gamma: float, seed: int) -> torch.Tensor:
    return block_noise_cholesky(_normal(seed, (math.prod(SHAPE) // 4, 4)), SHAPE, gamma)


def test_cholesky_block_noise_is_the_published_one():
    """Order of rows and of the pixels in a block; the published factor is float32, hence not closer."""
    torch.testing.assert_close(_ours(0.25, 3), _published_block_noise(0.25, 3), atol=2e-6, rtol=0)
    torch.testing.assert_close(_ours(0.33, 3), _published_block_noise(0.33, 3), atol=2e-5, rtol=0)


def test_cholesky_block_noise_works_where_the_published_one_fails(monkeypatch):
    """At gamma 1/3 the published covariance is singular in float32; with its factor made in float64 both agree."""
    with pytest.raises(torch.linalg.LinAlgError):
        _published_block_noise(1 / 3, 3)

    def float64_factor(covariance):
        exact = (4 / 3 + 1e-8) * torch.eye(4).double() - torch.ones(4, 4).double() / 3
        return cholesky(exact).to(covariance.dtype)

    cholesky = torch.linalg.cholesky
    monkeypatch.setattr(torch.linalg, "cholesky", float64_factor)
    torch.testing.assert_close(_ours(1 / 3, 3), _published_block_noise(1 / 3, 3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("gamma", [1 / 3, 0.2])
def test_cholesky_block_noise_has_the_block_covariance(gamma):
    blocks = _blocks(block_noise_cholesky(torch.eye(4), (4, 1, 1, 2, 2), gamma))
    torch.testing.assert_close(blocks.T @ blocks, _covariance(gamma), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(1, 1, 1, 4, 4), (1, 1, 1, 1, 8)])
def test_a_draw_that_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match="does not fill"):
        block_noise_cholesky(torch.zeros(2 if shape[3] == 1 else 3, 4), shape, 0.2)


def test_transition_is_the_published_blend():
    stage, x, noise = PyramidStages().stage(1), _normal(0), _normal(1, (2, 3, 2, 8, 12))
    expected = 0.600120144 * x.repeat_interleave(2, -1).repeat_interleave(2, -2) + 0.692612227 * noise
    torch.testing.assert_close(transition(x, noise, stage), expected, atol=1e-6, rtol=0)
    assert transition(x.bfloat16(), noise.bfloat16(), stage).dtype == torch.float32


@pytest.mark.parametrize("level", [1, 2])
def test_transition_makes_the_next_levels_start(level):
    """Conformance check T9: clean constant image, exact end of the level before, statistics of the new start."""
    pyramid, clean = PyramidStages(), 2.0
    stage, end = pyramid.stage(level), pyramid.stage(level - 1).end
    x = end * _normal(level, (1, 8, 4, 64, 64)) + (1 - end) * clean
    start = transition(x, block_noise_closed_form(_normal(9, (1, 8, 4, 128, 128)), 1 / 3), stage)
    mean, variance = {1: (0.200240, 0.639616), 2: (0.499626, 0.250374)}[level]
    assert start.mean().item() / clean == pytest.approx(mean, abs=0.003)
    blocks = _blocks(start - mean * clean)
    expected = variance * torch.eye(4)
    torch.testing.assert_close(blocks.T @ blocks / len(blocks), expected, atol=0.01, rtol=0)


def test_transition_carries_gradients():
    x = _normal(0).requires_grad_()
    transition(x, torch.zeros(2, 3, 2, 8, 12), PyramidStages().stage(2)).sum().backward()
    torch.testing.assert_close(x.grad, torch.full(SHAPE, 4 * 0.749812922))


@pytest.mark.parametrize("make", ["closed", "cholesky"])
def test_block_noise_and_transition_never_wait_for_the_device(make):
    """Meta tensors have no values to read."""
    if make == "closed":
        noise = block_noise_closed_form(torch.empty(SHAPE, device="meta"), 1 / 3)
    else:
        noise = block_noise_cholesky(torch.empty(math.prod(SHAPE) // 4, 4, device="meta"), SHAPE, 1 / 3)
    out = transition(torch.empty(2, 3, 2, 2, 3, device="meta"), noise, PyramidStages().stage(1))
    assert out.shape == SHAPE and out.device.type == "meta" and out.dtype == torch.float32
