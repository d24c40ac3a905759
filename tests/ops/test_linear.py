"""Linear: oneDNN equals the reference, is taken only where it was measured to win, and never swallows a gradient."""

import pytest
import torch
import torch.nn.functional as F

from helios.ops import linear as room
from helios.ops.linear import linear


def inputs(shape=(2, 7, 20), out=9, dtype=torch.float32):
    torch.manual_seed(0)
    return torch.randn(shape).to(dtype), torch.randn(out, shape[-1]).to(dtype), torch.randn(out).to(dtype)


@pytest.mark.parametrize("backend", ["auto", "reference", "onednn"])
@pytest.mark.parametrize(("shape", "out"), [((1, 1), 1), ((2, 7, 20), 9), ((3, 65), 130), ((1, 2, 3, 4), 5)])
def test_equals_the_product(shape, out, backend):
    x, weight, bias = inputs(shape, out)
    expected = (x.double() @ weight.double().T + bias.double()).float()
    torch.testing.assert_close(linear(x, weight, bias, backend=backend), expected, atol=1e-5, rtol=1e-5)
    without = linear(x, weight, backend=backend)
    torch.testing.assert_close(without, expected - bias, atol=1e-5, rtol=1e-5)


@pytest.fixture
def slow_mkl(monkeypatch):
    """A machine where oneDNN wins, and a record of whether it was taken."""
    taken = []
    monkeypatch.setattr(room, "mkl_is_slow_here", lambda: True)
    monkeypatch.setattr(room, "load_kernel", lambda op, name: taken.append(name) or F.linear)
    return taken


BIG = {"shape": (1, 300, 200), "out": 300}


def test_auto_takes_onednn_for_big_float32_products_without_gradient(slow_mkl):
    linear(*inputs(**BIG))
    assert slow_mkl == ["onednn"]


@pytest.mark.parametrize("case", ["small", "half", "gradient", "autocast"])
def test_auto_takes_the_reference_elsewhere(slow_mkl, case):
    x, weight, bias = inputs(
        **({} if case == "small" else BIG), dtype=torch.bfloat16 if case == "half" else torch.float32
    )
    weight.requires_grad_(case == "gradient")
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        linear(x, weight, bias)
    assert slow_mkl == ["reference"]


def test_no_grad_lets_a_trainable_weight_take_it(slow_mkl):
    x, weight, bias = inputs(**BIG)
    with torch.no_grad():
        linear(x, weight.requires_grad_(), bias)
    assert slow_mkl == ["onednn"]


def test_gradients_flow(monkeypatch):
    monkeypatch.setattr(room, "mkl_is_slow_here", lambda: True)
    leaves = [t.requires_grad_() for t in inputs(**BIG)]
    linear(*leaves).sum().backward()
    assert all(leaf.grad is not None for leaf in leaves)
