"""Rotary embedding: tables as in the paper, rotation as complex multiplication, every backend equal to the reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helios.ops.backends import backends
from helios.ops.rope import norm_rotate, pad_to_multiple, rotary_table, rotate

AXES = (8, 6, 6)


def table(frames, height, width, pool=1):
    return rotary_table(torch.tensor([frames], dtype=torch.float32), height, width, axes=AXES, theta=10000.0, pool=pool)


def test_a_table_holds_the_angles_of_time_row_and_column():
    result = table([20, 21], 3, 4)
    assert result.shape == (1, 24, 10, 2) and result.dtype == torch.float32
    cos_sin = result[0, 1 * 12 + 2 * 4 + 3]  # frame 21, row 2, column 3
    positions = [21.0] * 4 + [2.0] * 3 + [3.0] * 3
    exponents = [2 * j / 8 for j in range(4)] + [2 * j / 6 for j in range(3)] * 2
    angles = torch.tensor([p / 10000.0**e for p, e in zip(positions, exponents)])
    torch.testing.assert_close(cos_sin, torch.stack([angles.cos(), angles.sin()], dim=-1), atol=2e-6, rtol=0)


@pytest.mark.parametrize("grid", [(2, 4, 4), (3, 5, 7), (1, 1, 1), (16, 6, 9)])
@pytest.mark.parametrize("pool", [2, 4])
def test_a_pooled_table_is_the_mean_over_cubes_with_repeated_edges(grid, pool):
    frames, height, width = list(range(1, grid[0] + 1)), grid[1], grid[2]
    fine = table(frames, height, width).view(*grid, 10, 2)
    index = [torch.arange(-(-n // pool) * pool).clamp(max=n - 1) for n in grid]
    padded = fine[index[0]][:, index[1]][:, :, index[2]]
    counts = [len(i) // pool for i in index]
    cubes = padded.view(counts[0], pool, counts[1], pool, counts[2], pool, 10, 2)
    expected = cubes.mean(dim=(1, 3, 5)).flatten(0, 2)
    torch.testing.assert_close(table(frames, height, width, pool)[0], expected)
    if min(grid) > 1:
        assert (expected.square().sum(-1) < 1 - 1e-6).any()  # pooled pairs are shorter than one, on purpose


def test_autocast_does_not_lower_a_table():
    with torch.autocast("cpu", torch.bfloat16):
        lowered = table([1000, 1001], 3, 4, pool=2)
    assert torch.equal(lowered, table([1000, 1001], 3, 4, pool=2))


def test_batches_may_have_their_own_positions():
    frames = torch.tensor([[0.0, 19.0], [3.0, 4.0]])
    both = rotary_table(frames, 2, 2, axes=AXES, theta=10000.0)
    assert torch.equal(both[1:], table([3, 4], 2, 2))


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(1, 4)] * 3))
def test_padding_repeats_the_last_element(size, multiple):
    x = torch.arange(float(size[0] * size[1] * size[2])).view(1, 1, *size)
    padded = pad_to_multiple(x, multiple)
    assert all(n % m == 0 and n - s < m for n, m, s in zip(padded.shape[2:], multiple, size))
    index = [torch.arange(n).clamp(max=s - 1) for n, s in zip(padded.shape[2:], size)]
    assert torch.equal(padded[0, 0], x[0, 0][index[0]][:, index[1]][:, :, index[2]])


def inputs(batch, length, heads, table_batch, dtype=torch.float32):
    torch.manual_seed(length)
    x = torch.randn(batch, length, heads * 20).to(dtype)
    return x, torch.randn(heads * 20), torch.randn(table_batch, length, 10, 2), torch.rand(length, heads) + 0.5


@pytest.mark.parametrize("gained", [False, True])
def test_rotation_is_a_complex_product(gained):
    x, _, pairs, gain = inputs(2, 5, 3, 1)
    x = x.unflatten(-1, (3, 20))
    expected = torch.view_as_complex(x.view(2, 5, 3, 10, 2)) * torch.view_as_complex(pairs)[:, :, None]
    expected = torch.view_as_real(expected).flatten(-2) * (gain[..., None] if gained else 1)
    torch.testing.assert_close(rotate(x, pairs, gain_LN=gain if gained else None), expected)


@pytest.mark.parametrize("backend", ["auto", *backends("norm_rotate")])
@pytest.mark.parametrize("gained", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 7, 3, 1), (2, 5, 2, 2)])
def test_norm_and_rotation_equal_the_reference(shape, gained, backend):
    x, weight, pairs, gain = inputs(*shape)
    gain = gain if gained else None
    expected = norm_rotate(x.double(), weight.double(), pairs.double(), eps=1e-6, gain_LN=gain, backend="reference")
    result = norm_rotate(x, weight, pairs, eps=1e-6, gain_LN=gain, backend=backend)
    assert result.shape == (shape[0], shape[1], shape[2], 20)
    torch.testing.assert_close(result, expected.float(), atol=2e-6, rtol=2e-6)


def test_half_precision_keeps_its_dtype_with_a_float32_gain():
    x, weight, pairs, gain = inputs(1, 4, 2, 1, torch.bfloat16)
    assert norm_rotate(x, weight.bfloat16(), pairs, eps=1e-6, gain_LN=gain).dtype == torch.bfloat16


def test_auto_carries_gradients_to_tokens_weight_and_gain():
    x, weight, pairs, gain = inputs(1, 4, 2, 1)
    leaves = [t.requires_grad_() for t in (x, weight, gain)]
    norm_rotate(x, weight, pairs, eps=1e-6, gain_LN=gain).square().sum().backward()
    assert all(leaf.grad is not None and leaf.grad.abs().sum() > 0 for leaf in leaves)


@pytest.mark.parametrize("gained", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 2, 1), (2, 4, 2, 2)])
def test_the_hand_made_gradient_is_right(shape, gained):
    x, weight, pairs, gain = (t.double() for t in inputs(*shape))
    leaves = [t.requires_grad_() for t in (x, weight, *([gain] if gained else []))]

    def turned(x, weight, gain=None):
        return norm_rotate(x, weight, pairs, eps=1e-6, gain_LN=gain, backend="trained")

    assert torch.autograd.gradcheck(turned, leaves)
