"""Every operation's backends against its reference, on one device: forward, and backward of what ``auto`` takes.

B batch, C channels, T frames, H W height and width, L tokens, D width, N heads, K head width, R runs, P pairs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from helios.errors import InputError
from helios.ops import adaln, attention, channel_norm, conv3d, fp8_linear, gelu, linear, rms_norm, rope
from helios.ops.backends import backends

RUNS = (37, 90)  # odd on purpose: history and noisy tokens
# ||out - reference|| / ||reference||, the reference in float32 on the same inputs. Matrix units may take TF32.
TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 2e-2, torch.float16: 4e-3}


def _half_on_accelerator(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type != "cpu" and dtype != torch.float32


# What a backend takes, where that is less than everything: beyond it, and only there, an error of its own is no fault.
TAKES: dict[tuple[str, str], Callable[[torch.device, torch.dtype], bool]] = {
    ("linear", "onednn"): lambda device, dtype: device.type == "cpu" and dtype == torch.float32,
    ("norm_rotate", "complex"): lambda device, dtype: dtype == torch.float32,
    ("norm_rotate", "trained"): lambda device, dtype: dtype == torch.float32,
    ("fp8_linear", "scaled_mm"): lambda device, dtype: device.type == "cpu" or dtype == torch.bfloat16,
    ("attention", "cudnn"): _half_on_accelerator,
    ("attention", "flash3"): _half_on_accelerator,
    ("attention", "flash4"): _half_on_accelerator,
}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation: how it is called with a backend, and its inputs.

    Those named ``wide`` stay float32; those named ``constant`` are never trained, and ``trains`` is False for an operation
    without a gradient.
    """

    name: str
    call: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]
    wide: tuple[int, ...] = ()
    constant: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    trains: bool = True

    def inputs(self, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        """Fresh normal numbers, never zeros."""
        made = [torch.randn(shape, device=device) for shape in self.shapes]
        return [x if index in self.wide else x.to(dtype) for index, x in enumerate(made)]


def operations() -> list[Operation]:
    tokens, heads, width = sum(RUNS), 3, 48
    x, rows, table = (2, tokens, heads * width), (1, 2, heads * width), (1, tokens, width // 2, 2)
    return [
        Operation(name="linear", call=linear.linear, shapes=(x, (200, x[-1]), (200,)), names=tuple(backends("linear"))),
        Operation(
            name="fp8_linear",
            call=lambda x, weight, bias, backend: fp8_linear.fp8_linear(
                x, *fp8_linear.quantise_rows(weight), bias, backend=backend
            ),
            shapes=(x, (208, x[-1]), (208,)),
            names=tuple(backends("fp8_linear")),
            trains=False,
        ),
        Operation(
            name="rms_norm",
            call=partial(rms_norm.rms_norm, eps=1e-6),
            shapes=(x, x[-1:]),
            names=tuple(backends("rms_norm")),
        ),
        Operation(
            name="norm_rotate",
            call=partial(rope.norm_rotate, eps=1e-6),
            shapes=(x, x[-1:], table),
            wide=(2,),
            constant=(2,),
            names=tuple(backends("norm_rotate")),
        ),
        Operation(name="gelu_tanh", call=gelu.gelu_tanh, shapes=(x,), names=tuple(backends("gelu_tanh"))),
        Operation(
            name="layer_norm_modulate",
            call=lambda x, shift, scale, backend: adaln.layer_norm_modulate(
                x, shift, scale, RUNS, eps=1e-6, backend=backend
            ),
            shapes=(x, rows, rows),
            wide=(1, 2),
            names=tuple(backends("layer_norm_modulate")),
        ),
        Operation(
            name="gated_residual",
            call=lambda x, branch, gate, backend: adaln.gated_residual(x, branch, gate, RUNS, backend=backend),
            shapes=(x, x, rows),
            wide=(2,),
            names=tuple(backends("gated_residual")),
        ),
        Operation(
            name="attention",
            call=attention.attention,
            shapes=((2, 127, 3, 64), (2, 301, 3, 64), (2, 301, 3, 64)),
            names=tuple(backends("attention")),
        ),
        Operation(
            name="conv3d",
            call=conv3d.causal_conv3d,
            shapes=((1, 24, 5, 18, 22), (40, 24, 3, 3, 3), (40,)),
            names=("reference", "native", "onednn"),
        ),
        Operation(
            name="channel_norm_silu",
            call=_norm_silu,
            shapes=((1, 24, 5, 18, 22), (24,)),
            names=tuple(backends("channel_norm_silu")),
        ),
    ]


def _norm_silu(x_BCTHW: Tensor, gamma_C: Tensor, backend: str) -> Tensor:
    window_BCTHW = conv3d.empty_video(x_BCTHW, x_BCTHW.shape[2])
    return channel_norm.channel_norm_silu_into(window_BCTHW, x_BCTHW, gamma_C, backend=backend)


def check_kernels(device: torch.device, dtypes: tuple[torch.dtype, ...]) -> list[dict]:
    """One row per operation, backend and precision: its error, or why it did not run."""
    torch.manual_seed(0)
    return [
        {
            "op": op.name,
            "backend": backend,
            "dtype": str(dtype).removeprefix("torch."),
            **_check(op, backend, device, dtype),
        }
        for op in operations()
        for dtype in dtypes
        for backend in ("auto", *op.names)
    ]


def _check(op: Operation, backend: str, device: torch.device, dtype: torch.dtype) -> dict:
    inputs = op.inputs(device, dtype)
    expected = op.call(*[x.float() for x in inputs], backend="reference")
    try:
        with torch.no_grad():
            out = op.call(*inputs, backend=backend)
    except Exception as error:  # noqa: BLE001 - vendors' kernels raise what they like
        note = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        return {"ok": _may_refuse(op.name, backend, error, device, dtype), "error": None, "note": note}
    worst = _distance(out, expected)
    if backend == "auto" and op.trains:
        worst = max(worst, *(_backward_distance(op, inputs, expected, constant) for constant in {(), op.constant}))
    return {"ok": worst <= TOLERANCE[dtype], "error": worst, "note": ""}


def _may_refuse(op: str, backend: str, error: Exception, device: torch.device, dtype: torch.dtype) -> bool:
    """A named backend that is not on this machine says so itself (InputError); any other error must be declared."""
    if backend in ("auto", "reference"):
        return False
    takes = TAKES.get((op, backend))
    return isinstance(error, InputError) or (takes is not None and not takes(device, dtype))


def _backward_distance(op: Operation, inputs: list[Tensor], expected: Tensor, constant: tuple[int, ...]) -> float:
    weight = torch.randn_like(expected)
    grads = []
    for backend, made in (("auto", inputs), ("reference", [x.float() for x in inputs])):
        leaves = [x.detach().clone().requires_grad_(index not in constant) for index, x in enumerate(made)]
        (op.call(*leaves, backend=backend).float() * weight).sum().backward()
        grads.append([leaf.grad for leaf in leaves if leaf.requires_grad])
    return max(_distance(ours, theirs) for ours, theirs in zip(*grads))


def _distance(out: Tensor, expected: Tensor) -> float:
    difference = torch.linalg.vector_norm(out.float() - expected.float()) / torch.linalg.vector_norm(expected.float())
    return float(difference) if torch.isfinite(difference) else float("inf")
