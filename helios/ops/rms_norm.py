"""Root-mean-square norm with a learned weight. Helios normalises queries and keys over the whole width with it.

B batch, L tokens, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from helios.ops.backends import eager_float32_on_cpu, load_kernel, provides


def rms_norm(x_BLD: Tensor, weight_D: Tensor, *, eps: float, backend: str = "auto") -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight, over the last axis (Zhang and Sennrich 2019).

    Statistics are float32; in half precision the normalised value is rounded to the dtype of x before the weight, as
    the framework's operator does; a weight of another dtype makes all of it float32.

    Args:
        backend: ``auto``; ``reference``; ``lean`` (same formula in fewer passes over memory, no gradient).
    Returns: the shape and dtype of x.
    """
    name = _choose(x_BLD, weight_D) if backend == "auto" else backend
    return load_kernel("rms_norm", name)(x_BLD, weight_D, eps)


def inverse_rms(x_BLD: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean(x^2) + eps) as [B, L, 1], in one pass over x and without gradient."""
    norm_BL1 = torch.linalg.vector_norm(x_BLD, dim=-1, keepdim=True)
    return norm_BL1.square_().div_(x_BLD.shape[-1]).add_(eps).rsqrt_()


def _choose(x_BLD: Tensor, weight_D: Tensor) -> str:
    return "lean" if eager_float32_on_cpu(x_BLD, weight_D) else "reference"


@provides("rms_norm", "reference")
def _load_reference():
    return _reference


@provides("rms_norm", "lean")
def _load_lean():
    return _lean


def _reference(x_BLD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    if weight_D.dtype != x_BLD.dtype:  # half activations of autocast beside a float32 weight
        return F.rms_norm(x_BLD.float(), weight_D.shape, weight_D.float(), eps).to(x_BLD.dtype)
    return F.rms_norm(x_BLD, weight_D.shape, weight_D, eps)


@torch.no_grad()
def _lean(x_BLD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    return torch.mul(x_BLD, inverse_rms(x_BLD, eps)).mul_(weight_D)
