"""Softmax attention without a mask, whole or block-diagonal over packed segments.

B batch, L query tokens, S key tokens, N heads, K head width. Segments: ``lengths`` hold one number of tokens per
segment, in order; queries of a segment see the keys of the same segment only.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

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
        backend: ``auto``; ``reference`` (the formula, float32); ``sdpa`` (PyTorch's own); ``flash3`` or ``flash4``
            (installed separately; half precision on a GPU).
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
    log_choice("attention", "sdpa", q_BLNK.device.type)
    return "sdpa"


@provides("attention", "reference")
def _load_reference():
    return _reference


@provides("attention", "sdpa")
def _load_sdpa():
    return _sdpa


def _reference(q_BLNK: Tensor, k_BSNK: Tensor, v_BSNK: Tensor) -> Tensor:
    scores_BNLS = torch.einsum("blnk,bsnk->bnls", q_BLNK.float(), k_BSNK.float()) * q_BLNK.shape[-1] ** -0.5
    return torch.einsum("bnls,bsnk->blnk", scores_BNLS.softmax(-1), v_BSNK.float()).to(q_BLNK.dtype)


def _sdpa(q_BLNK: Tensor, k_BSNK: Tensor, v_BSNK: Tensor) -> Tensor:
    q_BNLK, k_BNSK, v_BNSK = (x.transpose(1, 2) for x in (q_BLNK, k_BSNK, v_BSNK))
    return F.scaled_dot_product_attention(q_BNLK, k_BNSK, v_BNSK).transpose(1, 2)
