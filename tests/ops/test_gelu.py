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


@pytest.mark.parametrize("backend", ["auto", "reference", "trained"])
def test_gradients_are_as_close_to_the_exact_ones_as_pytorchs_own(backend):
    x = torch.cat([torch.linspace(-12, 12, 40_001), torch.tensor([0.0, -0.0, 1e-20])]).requires_grad_()
    weights = torch.linspace(-1, 2, len(x))

    def gradient(function, x):
        return torch.autograd.grad((function(x) * weights.to(x)).sum(), x)[0]

    exact = gradient(lambda x: F.gelu(x, approximate="tanh"), x.detach().double().requires_grad_())
    own_error = (gradient(lambda x: F.gelu(x, approximate="tanh"), x).double() - exact).abs().max()
    error = (gradient(lambda x: gelu_tanh(x, backend=backend), x).double() - exact).abs().max()
    assert error <= (own_error if backend == "reference" else 2 * own_error)
    rows = x[:40_000].view(200, 200).T  # not contiguous
    torch.testing.assert_close(gelu_tanh(rows, backend=backend), F.gelu(rows, approximate="tanh"))
