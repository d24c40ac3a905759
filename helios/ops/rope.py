"""Rotary position embedding over time, row and column, with the pooled tables of the compressed history.

A table holds one (cos, sin) pair per rotated channel pair. Helios pools the tables of compressed history by averaging
cosines and sines separately, so a pooled pair is shorter than one: it shrinks what it rotates, and that is intended
(paper arXiv 2603.04379, section 3.2).

B batch, L tokens, N heads, K head width, P rotated pairs (K / 2), T frames, H W rows and columns of tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from helios.ops.backends import choose_with_gradient, load_kernel, log_choice, needs_grad, provides
from helios.ops.rms_norm import inverse_rms, rms_norm, rms_norm_backward


def rotary_table(
    frames_BT: Tensor, height: int, width: int, *, axes: tuple[int, int, int], theta: float, pool: int = 1
) -> Tensor:
    """Table of one token grid.

        angle(j) = position / theta^(2j / width of the axis),   j = 0 .. width of the axis / 2 - 1

    concatenated over time, row and column. Rows and columns are numbered from 0 on the grid itself.

    Args:
        frames_BT: time positions; one row serves every sample.
        height, width: rows and columns before pooling.
        axes: channels of a head for time, row and column; even numbers.
        theta: base of the frequencies.
        pool: edge of the cube of tokens that one pooled token stands for; the last frame, row and column are repeated
            where the grid is no multiple of it.
    Returns: [B, L, P, 2] float32 (cos, sin), also under autocast; tokens ordered by time, row, column.
    """
    angles_BTHWP = _angles(frames_BT.float(), height, width, axes, theta)
    table_BTHWP2 = torch.stack([angles_BTHWP.cos(), angles_BTHWP.sin()], dim=-1)
    if pool > 1:
        table_BTHWP2 = _pool(table_BTHWP2, pool)
    return table_BTHWP2.flatten(1, 3)


def _angles(frames_BT: Tensor, height: int, width: int, axes: tuple[int, int, int], theta: float) -> Tensor:
    device, grid = frames_BT.device, (*frames_BT.shape, height, width)
    rows_1H = torch.arange(height, dtype=torch.float32, device=device)[None]
    columns_1W = torch.arange(width, dtype=torch.float32, device=device)[None]
    time, row, column = (_axis_angles(p, d, theta) for p, d in zip((frames_BT, rows_1H, columns_1W), axes))
    # Products, not matrix products: those an ambient autocast would run in bfloat16, where 256 and 257 are one number.
    parts = (time[:, :, None, None], row[:, None, :, None], column[:, None, None, :])
    return torch.cat([part.expand(*grid, part.shape[-1]) for part in parts], dim=-1)


def _axis_angles(positions_BX: Tensor, channels: int, theta: float) -> Tensor:
    exponent_P = torch.arange(0, channels, 2, dtype=torch.float32, device=positions_BX.device) / channels
    return positions_BX[..., None] * (1.0 / theta**exponent_P)


def _pool(table_BTHWP2: Tensor, pool: int) -> Tensor:
    channels_first = table_BTHWP2.flatten(4).permute(0, 4, 1, 2, 3)
    padded = pad_to_multiple(channels_first, (pool, pool, pool))
    return F.avg_pool3d(padded, pool, stride=pool).permute(0, 2, 3, 4, 1).unflatten(-1, (-1, 2))


def pad_to_multiple(x_BCTHW: Tensor, multiple: tuple[int, int, int]) -> Tensor:
    """Repeat the last frame, row and column until each length is a multiple; nothing to do returns x itself."""
    missing = [-length % step for length, step in zip(x_BCTHW.shape[2:], multiple)]
    if not any(missing):
        return x_BCTHW
    frames, rows, columns = missing
    return F.pad(x_BCTHW, (0, columns, 0, rows, 0, frames), mode="replicate")


def rotate(x_BLNK: Tensor, table_BLP2: Tensor, *, gain_LN: Tensor | None = None, backend: str = "auto") -> Tensor:
    """Turn each channel pair (2i, 2i + 1) of every head by its angle, then scale tokens and heads by ``gain_LN``.

        (x0, x1) -> gain * (x0 cos - x1 sin, x0 sin + x1 cos)

    The arithmetic is float32. Returns: the shape and dtype of x.
    """
    name = log_choice("rotate", "reference", x_BLNK) if backend == "auto" else backend
    return load_kernel("rotate", name)(x_BLNK, table_BLP2, gain_LN)


def norm_rotate(
    x_BLD: Tensor,
    weight_D: Tensor,
    table_BLP2: Tensor,
    *,
    eps: float,
    gain_LN: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """RMS norm over the whole width, split into heads, rotate, gain: what queries and keys of self attention need.

    Args:
        backend: ``auto``; ``reference``; ``complex`` (the norm's factor goes into the small table, pairs are turned as
            complex numbers: three passes over memory instead of ten; float32 without gradient); ``trained`` (as complex,
            with a backward pass of the same kind; no second derivative, and none of the table).
    Returns: [B, L, N, K] in the dtype of x, where K is twice the pairs of the table.
    """
    name = _choose(x_BLD, weight_D, table_BLP2, gain_LN) if backend == "auto" else backend
    return load_kernel("norm_rotate", name)(x_BLD, weight_D, table_BLP2, eps, gain_LN)


def _choose(x_BLD: Tensor, weight_D: Tensor, table_BLP2: Tensor, gain_LN: Tensor | None) -> str:
    fitting = choose_with_gradient(x_BLD, weight_D, gain_LN, without="complex")
    return log_choice("norm_rotate", "reference" if needs_grad(table_BLP2) else fitting, x_BLD)


@provides("rotate", "reference")
def _load_rotate():
    return _rotate


@provides("norm_rotate", "complex")
def _load_complex():
    return _complex_norm_rotate


@provides("norm_rotate", "reference")
def _load_norm_rotate():
    return _norm_rotate


@provides("norm_rotate", "trained")
def _load_trained():
    return _trained_norm_rotate


def _rotate(x_BLNK: Tensor, table_BLP2: Tensor, gain_LN: Tensor | None) -> Tensor:
    x0, x1 = x_BLNK.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = table_BLP2[:, :, None].unbind(-1)
    turned = torch.stack([x0 * cos - x1 * sin, x0 * sin + x1 * cos], dim=-1).flatten(-2)
    if gain_LN is not None:
        turned = turned * gain_LN.float()[..., None]
    return turned.to(x_BLNK.dtype)


def _norm_rotate(x_BLD: Tensor, weight_D: Tensor, table_BLP2: Tensor, eps: float, gain_LN: Tensor | None) -> Tensor:
    head_width = 2 * table_BLP2.shape[-2]
    return rotate(rms_norm(x_BLD, weight_D, eps=eps).unflatten(-1, (-1, head_width)), table_BLP2, gain_LN=gain_LN)


@torch.no_grad()
def _complex_norm_rotate(
    x_BLD: Tensor, weight_D: Tensor, table_BLP2: Tensor, eps: float, gain_LN: Tensor | None
) -> Tensor:
    return _turn(x_BLD, weight_D, table_BLP2, inverse_rms(x_BLD, eps), gain_LN)


def _turn(
    x_BLD: Tensor, weight_D: Tensor, table_BLP2: Tensor, inverse_BL1: Tensor, gain_LN: Tensor | None = None
) -> Tensor:
    factor_BL1P = torch.view_as_complex(table_BLP2)[:, :, None] * inverse_BL1[..., None]
    if gain_LN is not None:
        factor_BL1P = factor_BL1P * gain_LN[..., None]
    pairs = torch.mul(x_BLD, weight_D).unflatten(-1, (-1, *table_BLP2.shape[-2:]))
    return torch.view_as_real(torch.view_as_complex(pairs).mul_(factor_BL1P)).flatten(-2)


def _trained_norm_rotate(
    x_BLD: Tensor, weight_D: Tensor, table_BLP2: Tensor, eps: float, gain_LN: Tensor | None
) -> Tensor:
    assert not table_BLP2.requires_grad, "a table that is trained is the reference's business"
    turned_BLNK = _Trained.apply(x_BLD, weight_D, table_BLP2, eps)
    return turned_BLNK if gain_LN is None else turned_BLNK * gain_LN[..., None]


class _Trained(torch.autograd.Function):
    """A rotation's gradient is the rotation back."""

    @staticmethod
    def forward(ctx, x_BLD, weight_D, table_BLP2, eps):
        inverse_BL1 = inverse_rms(x_BLD, eps)
        ctx.save_for_backward(x_BLD, weight_D, table_BLP2, inverse_BL1)
        return _turn(x_BLD, weight_D, table_BLP2, inverse_BL1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_BLNK):
        x_BLD, weight_D, table_BLP2, inverse_BL1 = ctx.saved_tensors
        pairs = torch.view_as_complex(grad_BLNK.contiguous().unflatten(-1, (-1, 2)))
        back_BLD = torch.view_as_real(pairs * torch.view_as_complex(table_BLP2)[:, :, None].conj()).flatten(2)
        return *rms_norm_backward(back_BLD, x_BLD, weight_D, inverse_BL1), None, None
