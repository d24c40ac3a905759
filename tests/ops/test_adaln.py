"""Modulation and gated residual: every backend equals the reference, which equals one modulation row per token."""

import pytest
import torch

from helios.ops.adaln import gated_residual, layer_norm_modulate
from helios.ops.backends import backends

SHAPES = [((7,), 1, 1, 5), ((3, 4), 1, 1, 16), ((1, 6), 2, 2, 10), ((2, 5), 3, 1, 33), ((2, 3, 2, 1), 2, 2, 12)]


def rows_and_tokens(runs, batch, row_batch, width, dtype=torch.float32):
    x, branch = (torch.randn(batch, sum(runs), width).to(dtype) for _ in range(2))
    return x, branch, *(torch.randn(row_batch, len(runs), width) for _ in range(2))


def per_token(rows_BRD, runs):
    return rows_BRD.repeat_interleave(torch.tensor(runs), dim=1)


@pytest.mark.parametrize("backend", ["auto", *backends("layer_norm_modulate")])
@pytest.mark.parametrize("shape", SHAPES)
def test_modulation_equals_a_row_per_token(shape, backend):
    torch.manual_seed(0)
    runs, _batch, _row_batch, _width = shape
    x, _, shift, scale = rows_and_tokens(*shape)
    normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()
    expected = normed * (1 + per_token(scale, runs)) + per_token(shift, runs)
    torch.testing.assert_close(layer_norm_modulate(x, shift, scale, runs, eps=1e-6, backend=backend), expected)


@pytest.mark.parametrize("backend", ["auto", *backends("gated_residual")])
@pytest.mark.parametrize("shape", SHAPES)
def test_residual_equals_a_row_per_token(shape, backend):
    torch.manual_seed(0)
    x, branch, gate, _ = rows_and_tokens(*shape)
    before = x.clone(), branch.clone()
    expected = x + branch * per_token(gate, shape[0])
    torch.testing.assert_close(gated_residual(x, branch, gate, shape[0], backend=backend), expected)
    assert torch.equal(x, before[0]) and torch.equal(branch, before[1])


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_equal_the_reference(shape):
    torch.manual_seed(0)
    x, branch, shift, scale = rows_and_tokens(*shape)
    inputs = [t.requires_grad_() for t in (x, branch, shift, scale)]

    def gradients(backend):
        y = layer_norm_modulate(
            gated_residual(x, branch, shift, shape[0]), shift, scale, shape[0], eps=1e-6, backend=backend
        )
        return torch.autograd.grad((y * torch.arange(y.shape[-1])).square().mean(), inputs)

    for ours, expected in zip(gradients("auto"), gradients("reference")):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_hand_made_gradient_is_right(shape):
    torch.manual_seed(0)
    x, _, shift, scale = (t.double().requires_grad_() for t in rows_and_tokens(*shape))
    assert torch.autograd.gradcheck(
        lambda *inputs: layer_norm_modulate(*inputs, shape[0], eps=1e-6, backend="trained"), (x, shift, scale)
    )


@pytest.mark.parametrize("op", ["modulate", "residual"])
def test_half_precision_rounds_once(op):
    torch.manual_seed(0)
    runs = (3, 4)
    x, branch, shift, scale = rows_and_tokens(runs, 1, 1, 64, torch.bfloat16)
    if op == "modulate":
        result = layer_norm_modulate(x, shift, scale, runs, eps=1e-6)
        exact = layer_norm_modulate(x.float(), shift, scale, runs, eps=1e-6)
    else:
        result = gated_residual(x, branch, scale, runs)
        exact = gated_residual(x.float(), branch.float(), scale, runs)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result, exact.bfloat16(), rtol=0, atol=0)
