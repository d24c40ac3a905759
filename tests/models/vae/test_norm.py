import pytest
import torch
import torch.nn.functional as F

from helios.models.vae.norm import rms_norm, rms_norm_silu_into

SHAPES = [(1, 8, 3, 2, 5), (2, 3, 1, 4, 3), (1, 1, 2, 1, 1), (2, 17, 2, 3, 2)]


def draw(shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype), torch.rand(
        shape[1], generator=generator, dtype=dtype
    ) + 0.5


def window_for(x, frames):
    batch, channels, new, height, width = x.shape
    return torch.full((batch, channels, frames + new, height, width), 7.0, dtype=x.dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_rms_norm_is_gamma_times_x_over_its_rms(shape):
    x, gamma = draw(shape)
    expected = x / x.square().mean(1, keepdim=True).sqrt() * gamma.view(1, -1, 1, 1, 1)
    torch.testing.assert_close(rms_norm(x, gamma), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(rms_norm(torch.zeros_like(x), gamma), torch.zeros_like(x))


@pytest.mark.parametrize("frames", [0, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("shape", SHAPES)
def test_window_holds_the_past_then_silu_of_the_norm(shape, layout, frames):
    x, gamma = draw(shape)
    x = x.contiguous(memory_format=layout)
    window = rms_norm_silu_into(window_for(x, frames), x, gamma.view(-1, 1, 1, 1))
    assert torch.all(window[:, :, :frames] == 7.0)
    torch.testing.assert_close(window[:, :, frames:], F.silu(rms_norm(x, gamma)), rtol=1e-5, atol=1e-6)


def test_a_pixel_of_zeros_stays_zero():
    window = rms_norm_silu_into(window_for(torch.zeros(1, 4, 2, 1, 1), 0), torch.zeros(1, 4, 2, 1, 1), torch.ones(4))
    assert torch.equal(window, torch.zeros(1, 4, 2, 1, 1))


@pytest.mark.parametrize("frames", [0, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients(shape, frames):
    x, gamma = (t.requires_grad_(True) for t in draw(shape, torch.float64))
    assert torch.autograd.gradcheck(lambda x, g: rms_norm_silu_into(window_for(x, frames), x, g), (x, gamma))


def test_half_precision_rounds_float32_statistics():
    x, gamma = (t.bfloat16() for t in draw((1, 8, 3, 4, 5)))
    window = rms_norm_silu_into(window_for(x, 0), x, gamma)
    assert window.dtype == torch.bfloat16
    torch.testing.assert_close(window.float(), F.silu(rms_norm(x.float(), gamma.float())), rtol=2e-2, atol=2e-3)
