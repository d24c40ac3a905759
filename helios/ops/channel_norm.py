"""Root-mean-square norm over the channels of each pixel, with or without SiLU after it. The VAE's norm.

Letters: B batch, C channels, T frames, H W height and width, P pixels.
"""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from helios.errors import InputError
from helios.ops.backends import load_kernel, log_choice, needs_grad, preferred, provides

_SMALLEST_NORM = 1e-12  # of PyTorch's ``normalize``, which the published code uses
_WORTH_COMPILING = 1 << 18  # numbers; a call of a compiled function costs what it saves on fewer


def channel_norm(x_BCTHW: Tensor, gamma: Tensor) -> Tensor:
    """``gamma * x / rms(x)``, the mean square taken over the channels (float32 statistics for half precision).

    ``gamma`` has C elements in any shape. A pixel of zeros stays zero.
    """
    unit = F.normalize(x_BCTHW.to(_wide(x_BCTHW)), dim=1).to(x_BCTHW.dtype)
    return unit * (x_BCTHW.shape[1] ** 0.5 * gamma.view(1, -1, 1, 1, 1))


def channel_norm_silu_into(window_BCTHW: Tensor, x_BCTHW: Tensor, gamma: Tensor, *, backend: str = "auto") -> Tensor:
    """Write SiLU of :func:`channel_norm` into the last frames of a window, as many as ``x`` has.

    Args:
        window_BCTHW: the frames in front stay as they are; no gradient flows into them.
        x_BCTHW: input, any memory layout.
        gamma: C elements in any shape.
        backend: ``auto``; ``reference``; ``lean`` (four passes over memory; not twice differentiable); ``compiled`` (one
            pass, by PyTorch's compiler: seconds at the first call of each size; no gradient), which ``auto`` takes
            only for large inputs, where it is preferred (:func:`helios.ops.backends.preferring`), and without gradient.
    Returns: the window.
    """
    name = _choose(window_BCTHW, x_BCTHW, gamma) if backend == "auto" else backend
    return load_kernel("channel_norm_silu", name)(window_BCTHW, x_BCTHW, gamma)


def _choose(window_BCTHW: Tensor, x_BCTHW: Tensor, gamma: Tensor) -> str:
    plain = needs_grad(window_BCTHW, x_BCTHW, gamma) or x_BCTHW.numel() < _WORTH_COMPILING
    return log_choice(
        "channel_norm_silu", "lean" if plain else preferred("channel_norm_silu", otherwise="lean"), x_BCTHW
    )


@provides("channel_norm_silu", "reference")
def _load_reference():
    return _reference


@provides("channel_norm_silu", "lean")
def _load_lean():
    return _lean


@provides("channel_norm_silu", "compiled")
def _load_compiled():
    return _in_one_pass


def _reference(window_BCTHW: Tensor, x_BCTHW: Tensor, gamma: Tensor) -> Tensor:
    window_BCTHW[:, :, window_BCTHW.shape[2] - x_BCTHW.shape[2] :] = F.silu(channel_norm(x_BCTHW, gamma))
    return window_BCTHW


def _lean(window_BCTHW: Tensor, x_BCTHW: Tensor, gamma: Tensor) -> Tensor:
    return _Lean.apply(window_BCTHW, x_BCTHW, gamma.view(1, -1, 1, 1, 1))


class _Lean(torch.autograd.Function):
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
    norm = torch.linalg.vector_norm(x_BCTHW, dim=1, keepdim=True, dtype=_wide(x_BCTHW))
    return norm.clamp_min_(_SMALLEST_NORM).reciprocal_()


@torch.no_grad()
def _in_one_pass(window_BCTHW: Tensor, x_BCTHW: Tensor, gamma: Tensor) -> Tensor:
    """Pixels as rows: in channels-last memory they are views, and the compiled loop knows nothing but their number."""
    new_BTHWC = window_BCTHW[:, :, window_BCTHW.shape[2] - x_BCTHW.shape[2] :].permute(0, 2, 3, 4, 1)
    for new_THWC, x_THWC in zip(new_BTHWC, x_BCTHW.permute(0, 2, 3, 4, 1), strict=True):
        if not new_THWC.is_contiguous():
            raise InputError("channel_norm_silu backend='compiled' writes channels-last windows only: use auto or lean")
        _compiled_rows()(new_THWC.flatten(0, 2), x_THWC.flatten(0, 2), gamma.view(-1))
    return window_BCTHW


@cache
def _compiled_rows() -> Callable[[Tensor, Tensor, Tensor], None]:
    """:func:`_write_rows` compiled, once per process; sizes are constants, without which a CPU gains half as much."""
    return torch.compile(_write_rows, fullgraph=True, dynamic=False)


def _write_rows(out_PC: Tensor, x_PC: Tensor, gamma_C: Tensor) -> None:
    wide_PC = x_PC.to(_wide(x_PC))
    norm_P1 = torch.linalg.vector_norm(wide_PC, dim=1, keepdim=True).clamp_min(_SMALLEST_NORM)
    out_PC.copy_(F.silu(wide_PC * norm_P1.reciprocal() * (gamma_C * x_PC.shape[1] ** 0.5)))


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
