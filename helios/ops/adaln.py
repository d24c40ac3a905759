"""Adaptive layer norm and gated residual with one modulation row per run of tokens.

Helios modulates history tokens with timestep 0 and noisy tokens with the current one, so a sequence knows two rows of
shift, scale and gate and one split point; packed training has two rows per segment. The published code expands them to
one row per token ([B, L, 6, D], 1.4 GB at full size); the result is the same.

B batch, L tokens, D width, R runs: ``runs`` holds R lengths that sum to L, and row r of a [B, R, D] tensor belongs to
run r. A batch of 1 in the rows serves every sample.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from helios.ops.backends import load_kernel, log_choice, needs_grad, provides, trains_in_float32_on_cpu

Runs = tuple[int, ...]


def layer_norm_modulate(
    x_BLD: Tensor, shift_BRD: Tensor, scale_BRD: Tensor, runs: Runs, *, eps: float, backend: str = "auto"
) -> Tensor:
    """LayerNorm(x) * (1 + scale) + shift, all in float32 (Peebles and Xie 2023, section 3.2).

    Args:
        backend: ``auto``; ``reference``; ``affine``, which hands 1 + scale and shift to the norm as its weight and bias,
            run by run: one pass over memory instead of three; ``trained``, the reference with a backward pass of its own
            (no second derivative).
    Returns: the shape and dtype of x.
    """
    name = _choose_modulate(x_BLD, shift_BRD, scale_BRD) if backend == "auto" else backend
    return load_kernel("layer_norm_modulate", name)(x_BLD, shift_BRD, scale_BRD, runs, eps)


def _choose_modulate(*tensors: Tensor) -> str:
    eager = "trained" if trains_in_float32_on_cpu(*tensors) else "affine"
    return log_choice("layer_norm_modulate", "reference" if torch.compiler.is_compiling() else eager, tensors[0])


def gated_residual(x_BLD: Tensor, branch_BLD: Tensor, gate_BRD: Tensor, runs: Runs, *, backend: str = "auto") -> Tensor:
    """x + branch * gate, in float32.

    Args:
        backend: ``auto``; ``reference``; ``lean`` (fused multiply and add into one buffer, no gradient).
    Returns: the shape and dtype of x, never x itself.
    """
    name = _choose_residual(x_BLD, branch_BLD, gate_BRD) if backend == "auto" else backend
    return load_kernel("gated_residual", name)(x_BLD, branch_BLD, gate_BRD, runs)


def _choose_residual(*tensors: Tensor) -> str:
    plain = torch.compiler.is_compiling() or needs_grad(*tensors)
    return log_choice("gated_residual", "reference" if plain else "lean", tensors[0])


@provides("layer_norm_modulate", "reference")
def _load_modulate():
    return _modulate


@provides("layer_norm_modulate", "affine")
def _load_affine():
    return _affine


@provides("layer_norm_modulate", "trained")
def _load_trained_modulate():
    return _Trained.apply


@provides("gated_residual", "reference")
def _load_residual():
    return _residual


@provides("gated_residual", "lean")
def _load_lean_residual():
    return _lean_residual


def _modulate(x_BLD: Tensor, shift_BRD: Tensor, scale_BRD: Tensor, runs: Runs, eps: float) -> Tensor:
    normed_BLD = F.layer_norm(x_BLD.float(), x_BLD.shape[-1:], eps=eps)
    rows = zip(normed_BLD.split(runs, dim=1), _rows(1 + scale_BRD.float()), _rows(shift_BRD.float()))
    return _join([part * scale + shift for part, scale, shift in rows]).to(x_BLD.dtype)


def _affine(x_BLD: Tensor, shift_BRD: Tensor, scale_BRD: Tensor, runs: Runs, eps: float) -> Tensor:
    x32_BLD, weight_BRD, bias_BRD = x_BLD.float(), 1 + scale_BRD.float(), shift_BRD.float()
    if weight_BRD.shape[0] == 1:  # one set of rows for all samples
        return _affine_runs(x32_BLD, weight_BRD[0], bias_BRD[0], runs, eps).to(x_BLD.dtype)
    samples = [_affine_runs(*sample, runs, eps) for sample in zip(x32_BLD, weight_BRD, bias_BRD)]
    return torch.stack(samples).to(x_BLD.dtype)


def _affine_runs(x_LD: Tensor, weight_RD: Tensor, bias_RD: Tensor, runs: Runs, eps: float) -> Tensor:
    parts = zip(x_LD.split(runs, dim=-2), weight_RD, bias_RD)
    return _join([F.layer_norm(part, weight.shape, weight, bias, eps) for part, weight, bias in parts], dim=-2)


def _residual(x_BLD: Tensor, branch_BLD: Tensor, gate_BRD: Tensor, runs: Runs) -> Tensor:
    rows = zip(x_BLD.split(runs, dim=1), branch_BLD.split(runs, dim=1), _rows(gate_BRD.float()))
    return _join([x.float() + branch * gate for x, branch, gate in rows]).to(x_BLD.dtype)


@torch.no_grad()
def _lean_residual(x_BLD: Tensor, branch_BLD: Tensor, gate_BRD: Tensor, runs: Runs) -> Tensor:
    out_BLD = torch.empty_like(x_BLD, dtype=torch.float32)
    parts = (tensor.split(runs, dim=1) for tensor in (x_BLD, branch_BLD, out_BLD))
    for x, branch, out, gate in zip(*parts, _rows(gate_BRD.float())):
        torch.addcmul(x, branch, gate, out=out)
    return out_BLD.to(x_BLD.dtype)


def _rows(rows_BRD: Tensor) -> tuple[Tensor, ...]:
    return rows_BRD.split(1, dim=1)


def _join(parts: list[Tensor], dim: int = 1) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dim)


class _Trained(torch.autograd.Function):
    """One normalisation of the whole sequence, and rows of modulation without a graph of slices."""

    @staticmethod
    def forward(ctx, x_BLD, shift_BRD, scale_BRD, runs, eps):
        normed_BLD, mean_BL1, inverse_BL1 = torch.native_layer_norm(x_BLD, x_BLD.shape[-1:], None, None, eps)
        ctx.save_for_backward(x_BLD, normed_BLD, mean_BL1, inverse_BL1, scale_BRD)
        ctx.runs = runs
        out_BLD = torch.empty_like(normed_BLD)
        rows = zip(normed_BLD.split(runs, dim=1), out_BLD.split(runs, dim=1), _rows(1 + scale_BRD), _rows(shift_BRD))
        for normed, out, scale, shift in rows:
            torch.addcmul(shift, normed, scale, out=out)
        return out_BLD

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_BLD):
        x_BLD, normed_BLD, mean_BL1, inverse_BL1, scale_BRD = ctx.saved_tensors
        grad_shift_BRD = _row_sums(grad_BLD, ctx.runs)
        grad_scale_BRD = _row_sums(grad_BLD * normed_BLD, ctx.runs)
        scaled_BLD = torch.empty_like(normed_BLD)
        for grad, out, scale in zip(*(t.split(ctx.runs, dim=1) for t in (grad_BLD, scaled_BLD)), _rows(1 + scale_BRD)):
            torch.mul(grad, scale, out=out)
        grad_x_BLD, _, _ = torch.ops.aten.native_layer_norm_backward(
            scaled_BLD, x_BLD, x_BLD.shape[-1:], mean_BL1, inverse_BL1, None, None, (True, False, False)
        )
        return grad_x_BLD, *(g.sum_to_size(scale_BRD.shape) for g in (grad_shift_BRD, grad_scale_BRD)), None, None


def _row_sums(x_BLD: Tensor, runs: Runs) -> Tensor:
    return torch.cat([part.sum(1, keepdim=True) for part in x_BLD.split(runs, dim=1)], dim=1)
