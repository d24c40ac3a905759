"""8-bit products: rounding is what float8 rounds, both backends agree, and nothing takes them by itself on a CPU."""

import pytest
import torch

from helios.device import has_fp8_units
from helios.ops.fp8_linear import FLOAT8, fp8_linear, quantise_rows


def inputs(shape=(2, 7, 32), out=48, dtype=torch.float32):
    torch.manual_seed(0)
    return torch.randn(shape).to(dtype), torch.randn(out, shape[-1]), torch.randn(out).to(dtype)


def test_rows_are_rounded_to_three_bits_of_their_own_scale():
    x = torch.tensor([[1.0, -3.0, 0.5, 0.0], [1e-4, 2e-4, 3e-6, -1e-5], [0.0, 0.0, 0.0, 0.0]])
    values, scale = quantise_rows(x)
    assert values.dtype == FLOAT8 and scale.flatten().tolist() == pytest.approx([3 / 448, 2e-4 / 448, 1.0])
    assert values.float().abs().amax(1).tolist() == [448, 448, 0]
    torch.testing.assert_close(values.float() * scale, x, rtol=2**-4, atol=0)


@pytest.mark.parametrize("backend", ["auto", "reference", "scaled_mm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("shape", "out"), [((1, 16), 16), ((2, 7, 32), 48), ((3, 5, 1, 64), 16)])
def test_equals_the_product_of_the_rounded(shape, out, dtype, backend):
    x, weight, bias = inputs(shape, out, dtype)
    (rounded, scale), (weight, weight_scale) = quantise_rows(x), quantise_rows(weight)
    expected = (rounded.double() * scale) @ (weight.double() * weight_scale).T
    tolerance = {"atol": 1e-4, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.2, "rtol": 2e-2}
    found = fp8_linear(x, weight, weight_scale, bias, backend=backend)
    assert found.dtype == dtype and found.shape == (*shape[:-1], out)
    torch.testing.assert_close(found.double(), expected + bias.double(), **tolerance)
    without = fp8_linear(x, weight, weight_scale, None, backend=backend)
    torch.testing.assert_close(without.double(), expected, **tolerance)


def test_it_is_near_the_exact_product_and_not_equal():
    x, weight, bias = inputs((64, 256), 256)
    exact = x @ weight.T + bias
    error = (fp8_linear(x, *quantise_rows(weight), bias) - exact).norm() / exact.norm()
    assert 0.01 < error < 0.06  # two roundings of 2^-5 at most, many terms


def test_a_cpu_has_no_units_for_it():
    assert not has_fp8_units(torch.device("cpu"))
