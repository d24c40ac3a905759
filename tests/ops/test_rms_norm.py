"""RMS norm: every backend equals the formula, forward and backward."""

import pytest
import torch

from helios.ops.backends import backends
from helios.ops.rms_norm import rms_norm

SHAPES = [(1, 1, 1), (2, 3, 5), (1, 7, 80), (3, 1, 257)]


@pytest.mark.parametrize("backend", ["auto", *backends("rms_norm")])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_formula(shape, backend):
    torch.manual_seed(0)
    x, weight = torch.randn(shape) * 3, torch.randn(shape[-1])
    expected = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight.double()
    torch.testing.assert_close(rms_norm(x, weight, eps=1e-6, backend=backend), expected.float())


def test_eps_keeps_zeros_finite():
    for backend in backends("rms_norm"):
        assert torch.equal(
            rms_norm(torch.zeros(1, 2, 4), torch.ones(4), eps=1e-6, backend=backend), torch.zeros(1, 2, 4)
        )


def test_takes_a_strided_slice():
    x, weight = torch.randn(2, 5, 3 * 8), torch.randn(8)
    middle = x.chunk(3, dim=-1)[1]
    with torch.no_grad():
        torch.testing.assert_close(rms_norm(middle, weight, eps=1e-6), rms_norm(middle.contiguous(), weight, eps=1e-6))


def test_auto_carries_gradients():
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 8, requires_grad=True), torch.randn(8, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda a, b: rms_norm(a, b, eps=1e-6),
        (x.double().detach().requires_grad_(), weight.double().detach().requires_grad_()),
    )
    rms_norm(x, weight, eps=1e-6).sum().backward()
    assert x.grad is not None and weight.grad is not None


@pytest.mark.parametrize("shape", SHAPES)
def test_the_hand_made_gradient_is_right(shape):
    torch.manual_seed(0)
    x, weight = torch.randn(shape).double().requires_grad_(), torch.randn(shape[-1]).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: rms_norm(a, b, eps=1e-6, backend="trained"), (x, weight))


def test_a_float32_weight_beside_half_activations_rounds_once():
    torch.manual_seed(0)
    x, weight = torch.randn(1, 3, 64).bfloat16(), torch.randn(64)
    result = rms_norm(x, weight, eps=1e-6)
    assert torch.equal(result, rms_norm(x.float(), weight, eps=1e-6, backend="reference").bfloat16())
