"""The tanh GELU: both forms are the same function, to rounding."""

import pytest
import torch
import torch.nn.functional as F

from helios.ops.backends import backends
from helios.ops.gelu import gelu_tanh


@pytest.mark.parametrize("backend", ["auto", *backends("gelu_tanh")])
def test_is_as_close_to_the_exact_value_as_pytorchs_own(backend):
    x = torch.cat([torch.linspace(-12, 12, 4801), torch.tensor([0.0, -0.0, 1e-20, -1e30, 1e10])])
    exact = F.gelu(x.double(), approximate="tanh")
    own_error = (F.gelu(x, approximate="tanh").double() - exact).abs().max()
    before = x.clone()
    assert (gelu_tanh(x, backend=backend).double() - exact).abs().max() <= 2 * own_error
    assert torch.equal(x, before)


def test_auto_carries_gradients():
    x = torch.randn(3, 5, requires_grad=True)
    assert torch.equal(
        torch.autograd.grad(gelu_tanh(x).sum(), x)[0], torch.autograd.grad(F.gelu(x, approximate="tanh").sum(), x)[0]
    )
