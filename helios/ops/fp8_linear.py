"""Matrix product of 8-bit floats with bias: about twice the rate of bfloat16 where the hardware has it, and approximate.

Weights have a scale per output row, activations one per token, found anew at each call: the largest magnitude becomes
448, the largest float8 (e4m3).

L tokens, E input width, D output width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from helios.device import has_fp8_units
from helios.errors import InputError
from helios.ops.backends import load_kernel, log_choice, needs_grad, provides

FLOAT8 = torch.float8_e4m3fn
_LARGEST = torch.finfo(FLOAT8).max


def quantise_rows(x_LE: Tensor) -> tuple[Tensor, Tensor]:
    """float8 values and float32 scales of rows: x = values * scale, up to rounding.

    Args:
        x_LE: [..., E].
    Returns: [..., E] float8, [..., 1] float32; a row of zeros has scale 1.
    """
    x_LE = x_LE.float()
    scale_L1 = x_LE.abs().amax(-1, keepdim=True) / _LARGEST
    scale_L1 = torch.where(scale_L1 == 0, 1.0, scale_L1)
    return (x_LE / scale_L1).clamp(-_LARGEST, _LARGEST).to(FLOAT8), scale_L1


def fp8_linear(
    x_E: Tensor, weight_DE: Tensor, scale_D1: Tensor, bias_D: Tensor | None, *, backend: str = "auto"
) -> Tensor:
    """x @ (weight * scale)^T + bias, with x rounded to float8 first.

    Args:
        x_E: [..., E].
        weight_DE, scale_D1: from :func:`quantise_rows`.
        backend: ``auto``; ``reference`` (products in float32, slow); ``scaled_mm`` (PyTorch's product of float8: in bfloat16
            on GPUs that have units for it, for widths in multiples of 16, and on the CPU; no GPU has run it here yet).
    Returns: [..., D] in the dtype of x.
    Raises: InputError when a gradient is wanted, which there is none of.
    """
    if needs_grad(x_E, bias_D):
        raise InputError("8-bit layers have no gradient: train the exact model, or call this one under torch.no_grad()")
    name = _choose(x_E) if backend == "auto" else backend
    return load_kernel("fp8_linear", name)(x_E, weight_DE, scale_D1, bias_D)


def _choose(x_E: Tensor) -> str:
    fast = has_fp8_units(x_E.device) and x_E.dtype == torch.bfloat16
    return log_choice("fp8_linear", "scaled_mm" if fast else "reference", x_E)


@provides("fp8_linear", "reference")
def _load_reference():
    return _reference


@provides("fp8_linear", "scaled_mm")
def _load_scaled_mm():
    return _scaled_mm


def _reference(x_E: Tensor, weight_DE: Tensor, scale_D1: Tensor, bias_D: Tensor | None) -> Tensor:
    values_E, scale_1 = quantise_rows(x_E)
    product_D = F.linear(values_E.float(), weight_DE.float()) * scale_1 * scale_D1.squeeze(-1)
    return (product_D if bias_D is None else product_D + bias_D.float()).to(x_E.dtype)


def _scaled_mm(x_E: Tensor, weight_DE: Tensor, scale_D1: Tensor, bias_D: Tensor | None) -> Tensor:
    values_LE, scale_L1 = quantise_rows(x_E.reshape(-1, x_E.shape[-1]))
    product_LD = torch._scaled_mm(values_LE, weight_DE.t(), scale_a=scale_L1, scale_b=scale_D1.t(), out_dtype=x_E.dtype)
    product_D = product_LD.unflatten(0, x_E.shape[:-1])
    return product_D if bias_D is None else product_D + bias_D.to(x_E.dtype)
