"""Matrix product with bias and, where asked, the tanh GELU after it.

E input width, D output width; any leading axes.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from helios.ops.backends import load_kernel, provides

Activation = Literal["none", "gelu_tanh"]


def linear(
    x_E: Tensor,
    weight_DE: Tensor,
    bias_D: Tensor | None = None,
    *,
    activation: Activation = "none",
    backend: str = "auto",
) -> Tensor:
    """activation(x @ weight^T + bias). Returns: [..., D] in the dtype of x (of autocast, under autocast)."""
    name = "reference" if backend == "auto" else backend
    return load_kernel("linear", name)(x_E, weight_DE, bias_D, activation)


@provides("linear", "reference")
def _load_reference():
    return _reference


def _reference(x_E: Tensor, weight_DE: Tensor, bias_D: Tensor | None, activation: Activation) -> Tensor:
    y_D = F.linear(x_E, weight_DE, bias_D)
    return F.gelu(y_D, approximate="tanh") if activation == "gelu_tanh" else y_D
