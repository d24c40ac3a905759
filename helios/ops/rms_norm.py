"""Root-mean-square norm with a learned weight. Helios normalises queries and keys over the whole width with it.

B batch, L tokens, D width.
"""

import torch.nn.functional as F
from torch import Tensor

from helios.ops.backends import load_kernel, provides


def rms_norm(x_BLD: Tensor, weight_D: Tensor, *, eps: float, backend: str = "auto") -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight, over the last axis (Zhang and Sennrich 2019).

    Statistics are float32; in half precision the normalised value is rounded to the dtype of x before the weight, as
    the framework's operator does. Returns: the shape and dtype of x.
    """
    name = _choose(x_BLD, weight_D) if backend == "auto" else backend
    return load_kernel("rms_norm", name)(x_BLD, weight_D, eps)


def _choose(x_BLD: Tensor, weight_D: Tensor) -> str:
    return "reference"


@provides("rms_norm", "reference")
def _load_reference():
    return _reference


def _reference(x_BLD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x_BLD, weight_D.shape, weight_D, eps).to(x_BLD.dtype)
