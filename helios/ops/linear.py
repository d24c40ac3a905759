"""Matrix product with bias.

E input width, D output width; any leading axes.
"""

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from helios.ops.backends import eager_float32_on_cpu, load_kernel, log_choice, provides

# Below this oneDNN's fixed cost per call (about 20 us) eats what its faster product wins.
_WORTH_ONEDNN_FLOP = 1.6e7


def linear(x_E: Tensor, weight_DE: Tensor, bias_D: Tensor | None = None, *, backend: str = "auto") -> Tensor:
    """x @ weight^T + bias.

    Args:
        backend: ``auto``; ``reference`` (PyTorch's own); ``onednn`` (float32 on the CPU, no gradient).
    Returns: [..., D] in the dtype of x (of autocast, under autocast).
    """
    name = _choose(x_E, weight_DE, bias_D) if backend == "auto" else backend
    return load_kernel("linear", name)(x_E, weight_DE, bias_D)


def _choose(x_E: Tensor, weight_DE: Tensor, bias_D: Tensor | None) -> str:
    return log_choice("linear", "onednn" if _onednn_pays(x_E, weight_DE, bias_D) else "reference", x_E)


def _onednn_pays(x_E: Tensor, weight_DE: Tensor, bias_D: Tensor | None) -> bool:
    if not eager_float32_on_cpu(x_E, weight_DE, bias_D) or not mkl_is_slow_here():  # a compiler stops at the first
        return False
    plain = type(weight_DE) in (Tensor, torch.nn.Parameter) and weight_DE.is_contiguous()
    return plain and 2 * x_E.numel() * weight_DE.shape[0] >= _WORTH_ONEDNN_FLOP


@cache
def mkl_is_slow_here() -> bool:
    """Whether oneDNN's float32 product beats PyTorch's default on this CPU.

    MKL runs its AVX2 code on AMD, whatever the CPU can do. With AVX-512 (Zen 4 and 5) oneDNN was measured 1.9 to 2.4
    times as fast; on AVX2 machines (Zen 3) it was measured 5 to 30 % slower, and on Intel the two are equals.
    """
    cpuinfo = Path("/proc/cpuinfo")
    amd = cpuinfo.is_file() and "AuthenticAMD" in cpuinfo.read_text()
    return amd and torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"


@provides("linear", "reference")
def _load_reference():
    return F.linear


@provides("linear", "onednn")
def _load_onednn():
    return _onednn


@torch.no_grad()
def _onednn(x_E: Tensor, weight_DE: Tensor, bias_D: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x_E, weight_DE, bias_D, "none", [], "")
