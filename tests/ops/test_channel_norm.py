import logging

import pytest
import torch
import torch.nn.functional as F

from helios.errors import InputError
from helios.ops import backends
from helios.ops import channel_norm as module
from helios.ops.backends import preferring
from helios.ops.channel_norm import channel_norm, channel_norm_silu_into

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
    torch.testing.assert_close(channel_norm(x, gamma), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(channel_norm(torch.zeros_like(x), gamma), torch.zeros_like(x))


@pytest.mark.parametrize("backend", ["auto", "reference", "lean"])
@pytest.mark.parametrize("frames", [0, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("shape", SHAPES)
def test_window_holds_the_past_then_silu_of_the_norm(shape, layout, frames, backend):
    x, gamma = draw(shape)
    x = x.contiguous(memory_format=layout)
    window = channel_norm_silu_into(window_for(x, frames), x, gamma.view(-1, 1, 1, 1), backend=backend)
    assert torch.all(window[:, :, :frames] == 7.0)
    torch.testing.assert_close(window[:, :, frames:], F.silu(channel_norm(x, gamma)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "shape,layout,dtype",
    [
        (SHAPES[1], torch.contiguous_format, torch.float32),
        (SHAPES[3], torch.channels_last_3d, torch.float32),
        (SHAPES[3], torch.channels_last_3d, torch.bfloat16),
    ],
)
@pytest.mark.usefixtures("compiler")
def test_the_real_compiler_writes_the_same(shape, layout, dtype):
    x, gamma = (t.to(dtype) for t in draw(shape))
    x, window = x.contiguous(memory_format=layout), window_for(x, 2)
    window = channel_norm_silu_into(
        window.contiguous(memory_format=torch.channels_last_3d), x, gamma, backend="compiled"
    )
    assert torch.all(window[:, :, :2] == 7.0) and window.dtype == dtype
    close = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-3}
    torch.testing.assert_close(window[:, :, 2:].float(), F.silu(channel_norm(x.float(), gamma.float())), **close)


def test_a_compiled_loop_refuses_another_layout():
    x, gamma = draw(SHAPES[0])
    with pytest.raises(InputError, match="channels-last windows only"):
        channel_norm_silu_into(window_for(x, 2), x, gamma, backend="compiled")


def test_auto_compiles_what_was_preferred_is_large_and_has_no_gradient(monkeypatch, caplog):
    monkeypatch.setattr(module, "_compiled_rows", lambda: module._write_rows)
    monkeypatch.setattr(backends, "_LOGGED", set())
    monkeypatch.setattr(module, "_WORTH_COMPILING", 241)

    def took(x, gamma):
        caplog.clear()
        backends._LOGGED.clear()
        channel_norm_silu_into(window_for(x, 0).contiguous(memory_format=torch.channels_last_3d), x, gamma)
        return caplog.messages[-1].rpartition(" ")[2]

    small, gamma = draw(SHAPES[0])
    large = torch.cat([small, small], dim=2)
    with caplog.at_level(logging.INFO, logger=backends.__name__):
        assert took(large, gamma) == "lean"
        with preferring({"channel_norm_silu": "compiled"}):
            assert took(large, gamma) == "compiled"
            assert took(small, gamma) == "lean"
            assert took(large, gamma.clone().requires_grad_()) == "lean"
            with preferring({}):
                assert took(large, gamma) == "lean"
            assert took(large, gamma) == "compiled"
        assert took(large, gamma) == "lean"


def test_a_pixel_of_zeros_stays_zero():
    window = channel_norm_silu_into(
        window_for(torch.zeros(1, 4, 2, 1, 1), 0), torch.zeros(1, 4, 2, 1, 1), torch.ones(4)
    )
    assert torch.equal(window, torch.zeros(1, 4, 2, 1, 1))


@pytest.mark.parametrize("frames", [0, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients(shape, frames):
    x, gamma = (t.requires_grad_(True) for t in draw(shape, torch.float64))
    for backend in ("lean", "reference"):

        def call(x, gamma, backend=backend):
            return channel_norm_silu_into(window_for(x, frames), x, gamma, backend=backend)

        assert torch.autograd.gradcheck(call, (x, gamma))


def test_half_precision_rounds_float32_statistics():
    x, gamma = (t.bfloat16() for t in draw((1, 8, 3, 4, 5)))
    window = channel_norm_silu_into(window_for(x, 0), x, gamma)
    assert window.dtype == torch.bfloat16
    torch.testing.assert_close(window.float(), F.silu(channel_norm(x.float(), gamma.float())), rtol=2e-2, atol=2e-3)
