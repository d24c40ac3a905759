"""RMS norm over the channels of each pixel, with or without SiLU after it.

Letters: B batch, C channels, T frames, H W height and width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_SMALLEST_NORM = 1e-12  # of PyTorch's ``normalize``, which the published code uses


def rms_norm(x_BCTHW: Tensor, gamma: Tensor) -> Tensor:
    """``gamma * x / rms(x)``, the mean square taken over the channels (float32 statistics for half precision).

    ``gamma`` has C elements in any shape. A pixel of zeros stays zero.
    """
    unit = F.normalize(x_BCTHW.float(), dim=1).to(x_BCTHW.dtype)
    return unit * (x_BCTHW.shape[1] ** 0.5 * gamma.view(1, -1, 1, 1, 1))


def rms_norm_silu_into(window_BCTHW: Tensor, x_BCTHW: Tensor, gamma: Tensor) -> Tensor:
    """Write SiLU of :func:`rms_norm` into the last frames of a window, as many as ``x`` has.

    Args:
        window_BCTHW: the frames in front stay as they are; no gradient flows into them.
        x_BCTHW: input, any memory layout.
        gamma: C elements in any shape.
    Returns: the window. Not twice differentiable.
    """
    return _RMSNormSiLU.apply(window_BCTHW, x_BCTHW, gamma.view(1, -1, 1, 1, 1))


class _RMSNormSiLU(torch.autograd.Function):
    """Four passes over memory forward; saves the input and one number per pixel, and recomputes the rest."""

    @staticmethod
    def forward(ctx, window, x, gamma):
        gamma = gamma * x.shape[1] ** 0.5
        inverse_norm = _inverse_norm(x)
        out = torch.mul(inverse_norm, gamma, out=window[:, :, window.shape[2] - x.shape[2] :])
        F.silu(out.mul_(x), inplace=True)
        ctx.save_for_backward(x, gamma, inverse_norm)
        ctx.mark_dirty(window)
        return window

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_window):
        x, gamma, inverse_norm = ctx.saved_tensors
        unit = x * inverse_norm
        grad = torch.ops.aten.silu_backward(grad_window[:, :, grad_window.shape[2] - x.shape[2] :], unit * gamma)
        grad_gamma = (grad * unit).sum((0, 2, 3, 4), keepdim=True) * x.shape[1] ** 0.5
        grad = grad.mul_(gamma)
        along = (grad * unit).sum(1, keepdim=True)
        return None, grad.sub_(unit.mul_(along)).mul_(inverse_norm), grad_gamma


def _inverse_norm(x_BCTHW: Tensor) -> Tensor:
    """One over the Euclidean length of each pixel's channels [B, 1, T, H, W], in float32 or wider."""
    wide = torch.promote_types(x_BCTHW.dtype, torch.float32)
    norm = torch.linalg.vector_norm(x_BCTHW, dim=1, keepdim=True, dtype=wide)
    return norm.clamp_min_(_SMALLEST_NORM).reciprocal_()
