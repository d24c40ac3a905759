"""Softmax attention without a mask, whole or block-diagonal over packed segments.

B batch, L query tokens, S key tokens, N heads, K head width. Segments: ``lengths`` hold one number of tokens per
segment, in order; queries of a segment see the keys of the same segment only.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from helios.errors import InputError
from helios.ops.backends import load_kernel, log_choice, provides

Lengths = tuple[int, ...]


def attention(
    q_BLNK: Tensor,
    k_BSNK: Tensor,
    v_BSNK: Tensor,
    *,
    q_lengths: Lengths | None = None,
    kv_lengths: Lengths | None = None,
    backend: str = "auto",
) -> Tensor:
    """softmax(q k^T / sqrt(K)) v per head, not causal.

    Args:
        q_BLNK, k_BSNK, v_BSNK: queries, keys and values.
        q_lengths, kv_lengths: tokens of each packed segment; None is one segment.
        backend: ``auto``; ``reference`` (the formula, float32); ``sdpa`` (PyTorch's own choice); ``cudnn`` (PyTorch's
            cuDNN path); ``flash3`` or ``flash4`` (packages installed separately). The last three need half precision
            on an NVIDIA GPU, and no GPU has run them here yet.
    Returns: [B, L, N, K] in the dtype of q.
    Raises: InputError when a backend asked for by name is missing.
    """
    name = _choose(q_BLNK) if backend == "auto" else backend
    kernel = load_kernel("attention", name)
    k_BSNK, v_BSNK = k_BSNK.to(q_BLNK.dtype), v_BSNK.to(q_BLNK.dtype)
    if q_lengths is None or len(q_lengths) == 1:
        return kernel(q_BLNK, k_BSNK, v_BSNK)
    segments = zip(q_BLNK.split(q_lengths, 1), k_BSNK.split(kv_lengths, 1), v_BSNK.split(kv_lengths, 1))
    return torch.cat([kernel(q, k, v) for q, k, v in segments], dim=1)


def _choose(q_BLNK: Tensor) -> str:
    return log_choice("attention", "sdpa", q_BLNK)


@provides("attention", "reference")
def _load_reference():
    return _reference


@provides("attention", "sdpa")
def _load_sdpa():
    return _sdpa


@provides("attention", "cudnn")
def _load_cudnn():
    if not torch.backends.cudnn.is_available():
        raise InputError("attention backend 'cudnn' needs a PyTorch built with cuDNN: use backend='auto'")
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def cudnn(q_BLNK: Tensor, k_BSNK: Tensor, v_BSNK: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return _sdpa(q_BLNK, k_BSNK, v_BSNK)

    return cudnn


@provides("attention", "flash3")
def _load_flash3():
    from flash_attn_interface import flash_attn_func

    return _without_statistics(flash_attn_func)


@provides("attention", "flash4")
def _load_flash4():
    from flash_attn.cute import flash_attn_func

    return _without_statistics(flash_attn_func)


def _without_statistics(flash) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The attention output alone, of a kernel that, by its version, returns it alone or with the log-sum-exp."""

    def kernel(q_BLNK: Tensor, k_BSNK: Tensor, v_BSNK: Tensor) -> Tensor:
        result = flash(q_BLNK, k_BSNK, v_BSNK)
        return result[0] if isinstance(result, tuple) else result

    return kernel


def _reference(q_BLNK: Tensor, k_BSNK: Tensor, v_BSNK: Tensor) -> Tensor:
    scores_BNLS = torch.einsum("blnk,bsnk->bnls", q_BLNK.float(), k_BSNK.float()) * q_BLNK.shape[-1] ** -0.5
    return torch.einsum("bnls,bsnk->blnk", scores_BNLS.softmax(-1), v_BSNK.float()).to(q_BLNK.dtype)


def _sdpa(q_BLNK: Tensor, k_BSNK: Tensor, v_BSNK: Tensor) -> Tensor:
    q_BNLK, k_BNSK, v_BNSK = (x.transpose(1, 2) for x in (q_BLNK, k_BSNK, v_BSNK))
    return F.scaled_dot_product_attention(q_BNLK, k_BNSK, v_BNSK).transpose(1, 2)
