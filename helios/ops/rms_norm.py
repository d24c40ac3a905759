"""Root-mean-square norm with a learned weight. Helios normalises queries and keys over the whole width with it.

B batch, L tokens, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from helios.ops.backends import choose_with_gradient, load_kernel, log_choice, provides


def rms_norm(x_BLD: Tensor, weight_D: Tensor, *, eps: float, backend: str = "auto") -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight, over the last axis (Zhang and Sennrich 2019).

    Statistics are float32; in half precision the normalised value is rounded to the dtype of x before the weight, as
    the framework's operator does; a weight of another dtype makes all of it float32.

    Args:
        backend: ``auto``; ``reference``; ``lean`` (same formula in fewer passes over memory, no gradient); ``trained``
            (as lean, with a backward pass in as few; no second derivative).
    Returns: the shape and dtype of x.
    """
    name = _choose(x_BLD, weight_D) if backend == "auto" else backend
    return load_kernel("rms_norm", name)(x_BLD, weight_D, eps)


def _choose(x_BLD: Tensor, weight_D: Tensor) -> str:
    return log_choice("rms_norm", choose_with_gradient(x_BLD, weight_D, without="lean"), x_BLD)


def inverse_rms(x_BLD: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean(x^2) + eps) as [B, L, 1], in one pass over x and without gradient."""
    norm_BL1 = torch.linalg.vector_norm(x_BLD, dim=-1, keepdim=True)
    return norm_BL1.square_().div_(x_BLD.shape[-1]).add_(eps).rsqrt_()


def rms_norm_backward(grad_BLD: Tensor, x_BLD: Tensor, weight_D: Tensor, inverse_BL1: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and of the weight, from those of the result.

    dx = g * weight * r - x * r^3 / D * sum(g * weight * x),   dweight = sum(g * x * r),   r = 1 / rms(x)
    """
    product_BLD = grad_BLD * x_BLD
    grad_weight_D = inverse_BL1.flatten() @ product_BLD.flatten(0, -2)
    along_BL1 = (product_BLD @ weight_D)[..., None] * inverse_BL1.pow(3) / x_BLD.shape[-1]
    grad_x_BLD = torch.mul(grad_BLD, weight_D, out=product_BLD).mul_(inverse_BL1)
    return grad_x_BLD.addcmul_(x_BLD, along_BL1, value=-1), grad_weight_D


@provides("rms_norm", "reference")
def _load_reference():
    return _reference


@provides("rms_norm", "lean")
def _load_lean():
    return _lean


@provides("rms_norm", "trained")
def _load_trained():
    return _Trained.apply


class _Trained(torch.autograd.Function):
    """PyTorch builds its own norm, and its gradient, of a dozen element-wise steps on a CPU."""

    @staticmethod
    def forward(ctx, x_BLD, weight_D, eps):
        inverse_BL1 = inverse_rms(x_BLD, eps)
        ctx.save_for_backward(x_BLD, weight_D, inverse_BL1)
        return torch.mul(x_BLD, inverse_BL1).mul_(weight_D)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_BLD):
        return *rms_norm_backward(grad_BLD, *ctx.saved_tensors), None


def _reference(x_BLD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    if weight_D.dtype != x_BLD.dtype:  # half activations of autocast beside a float32 weight
        return F.rms_norm(x_BLD.float(), weight_D.shape, weight_D.float(), eps).to(x_BLD.dtype)
    return F.rms_norm(x_BLD, weight_D.shape, weight_D, eps)


@torch.no_grad()
def _lean(x_BLD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    return torch.mul(x_BLD, inverse_rms(x_BLD, eps)).mul_(weight_D)
