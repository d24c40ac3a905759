"""Convolution of a video that is causal in time, and convolution of its frames one by one.

Letters: B batch, C channels, T frames, H W height and width of a frame, O output channels.

A causal convolution sees ``kernel - 1`` past frames and no future one. The past travels inside the input (a *window* =
past frames followed by the new ones), so no kernel here has to pad time, and a stream hands over its last frames in
place of the zeros that stand before the first.

Backends:
    reference: PyTorch's operators as they are; the definition.
    native: the same operators on channels-last memory, for accelerators and half precision.
    onednn: float32 on CPUs. PyTorch sends small float32 3D convolutions to a loop many times slower than the oneDNN
        kernel it also ships; this backend always calls the latter, forward and backward. Half precision is computed in
        float32 and rounded, which on a processor without half-precision units is far faster than its emulation.
    auto: on CPUs onednn, unless the input is half precision and the processor has units for it; elsewhere native.
"""

import logging
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from helios.errors import InputError

Backend = Literal["auto", "reference", "native", "onednn"]
BACKENDS = ("auto", "reference", "native", "onednn")
logger = logging.getLogger(__name__)


def causal_conv3d(
    x_BCTHW: Tensor,
    weight: Tensor,
    bias_O: Tensor | None = None,
    *,
    past_BCTHW: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Stride-1 convolution whose output at frame t depends on frames ``t - kernel + 1 .. t``; frames are padded by zeros.

    Args:
        x_BCTHW: the new frames.
        weight: [O, C, kernel over time, height, width]; the two spatial kernels are odd.
        bias_O: added to every output pixel.
        past_BCTHW: the ``kernel - 1`` frames before them; None for zeros.
        backend: see the top of this file.
    Returns: [B, O, T, H, W].
    Raises: InputError when the backend does not exist or cannot take this input.
    """
    window = open_window(x_BCTHW, weight.shape[2] - 1, past_BCTHW)
    return window_conv3d(window, weight, bias_O, backend=backend)


def open_window(x_BCTHW: Tensor, frames: int, past_BCTHW: Tensor | None = None) -> Tensor:
    """``x`` behind ``frames`` past frames: the given ones, or zeros. Channels-last memory; ``x`` itself for 0 frames."""
    if frames == 0:
        return x_BCTHW
    window = empty_video(x_BCTHW, frames + x_BCTHW.shape[2])
    window[:, :, :frames] = 0.0 if past_BCTHW is None else past_BCTHW
    window[:, :, frames:] = x_BCTHW
    return window


def empty_video(like_BCTHW: Tensor, frames: int) -> Tensor:
    """Uninitialised channels-last tensor that differs from ``like`` in its number of frames only."""
    batch, channels, _, height, width = like_BCTHW.shape
    return torch.empty(
        (batch, channels, frames, height, width),
        dtype=like_BCTHW.dtype,
        device=like_BCTHW.device,
        memory_format=torch.channels_last_3d,
    )


def window_conv3d(
    window_BCTHW: Tensor,
    weight: Tensor,
    bias_O: Tensor | None = None,
    *,
    time_stride: int = 1,
    residual: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Convolution without padding in time (the window holds the past) and with zeros around each frame.

    Args:
        window_BCTHW: past and new frames.
        weight: [O, C, kernel over time, height, width]; the two spatial kernels are odd.
        bias_O: added to every output pixel.
        time_stride: distance between output frames.
        residual: added to the output. Where no gradients are recorded its memory may be overwritten by the result.
        backend: see the top of this file.
    Returns: [B, O, (T - kernel) // time_stride + 1, H, W].
    Raises: InputError when the backend does not exist or cannot take this input.
    """
    chosen = choose_backend(backend, window_BCTHW)
    if chosen == "onednn":
        kernel = load_kernel(chosen).window_conv3d
        return _in_float32(kernel, window_BCTHW, weight, bias_O, residual, time_stride=time_stride)
    if chosen == "native":
        window_BCTHW = window_BCTHW.contiguous(memory_format=torch.channels_last_3d)
        weight = weight.contiguous(memory_format=torch.channels_last_3d)
    padding = (0, weight.shape[3] // 2, weight.shape[4] // 2)
    out = F.conv3d(window_BCTHW, weight, bias_O, (time_stride, 1, 1), padding)
    if residual is None:
        return out
    return (
        out.add_(residual) if out.dtype == residual.dtype else out + residual
    )  # autocast narrows the convolution only


def frame_conv2d(
    x_BCTHW: Tensor,
    weight: Tensor,
    bias_O: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """The same 2D convolution on every frame.

    Args:
        x_BCTHW: frames.
        weight: [O, C, kernel over height, width], odd where ``padding`` is None.
        bias_O: added to every output pixel.
        stride: distance between output pixels.
        padding: zeros on every side of a frame; None keeps the size at stride 1.
        backend: see the top of this file.
    """
    padding = weight.shape[-1] // 2 if padding is None else padding
    chosen = choose_backend(backend, x_BCTHW)
    frames = frames_of(x_BCTHW)
    if chosen == "onednn":
        out = _in_float32(load_kernel(chosen).conv2d, frames, weight, bias_O, stride=stride, padding=padding)
    else:
        out = F.conv2d(frames, weight, bias_O, stride, padding)
    return video_of(out, x_BCTHW.shape[0])


def upsample_conv2d(
    x_BCTHW: Tensor, weight: Tensor, bias_O: Tensor | None = None, *, backend: Backend = "auto"
) -> Tensor:
    """Double every frame (each pixel becomes a 2 x 2 block), then convolve it by a 3 x 3 kernel.

    Args:
        x_BCTHW: frames.
        weight: [O, C, 3, 3].
        bias_O: added to every output pixel.
        backend: see the top of this file; ``onednn`` never makes the doubled frames.
    Returns: [B, O, T, 2 H, 2 W].
    """
    chosen = choose_backend(backend, x_BCTHW)
    frames = frames_of(x_BCTHW)
    if chosen == "onednn":
        out = _in_float32(load_kernel(chosen).upsample_conv2d, frames, weight, bias_O)
        return video_of(out, x_BCTHW.shape[0])
    doubled = F.interpolate(frames, scale_factor=2.0, mode="nearest")
    return video_of(F.conv2d(doubled, weight, bias_O, padding=1), x_BCTHW.shape[0])


def frames_of(x_BCTHW: Tensor) -> Tensor:
    """All frames as one batch of pictures [B * T, C, H, W]; a view when the memory is channels-last."""
    return x_BCTHW.transpose(1, 2).flatten(0, 1)


def video_of(frames: Tensor, batch: int) -> Tensor:
    """Inverse of :func:`frames_of`."""
    return frames.unflatten(0, (batch, -1)).transpose(1, 2)


def choose_backend(backend: Backend, x: Tensor) -> str:
    """The backend that will run on ``x``.

    Raises: InputError when a backend asked for by name does not exist or cannot take ``x``.
    """
    if backend not in BACKENDS:
        raise InputError(f"conv3d backend={backend!r} does not exist: use one of {', '.join(BACKENDS)}")
    half = x.dtype in (torch.bfloat16, torch.float16)
    fits = x.device.type == "cpu" and onednn_available() and (half or x.dtype == torch.float32)
    if backend == "auto":
        pays = fits and not (half and half_units(x.dtype))
        return _announce("onednn" if pays else "native", x.device.type, x.dtype)
    if backend == "onednn" and not fits:
        raise InputError(f"conv3d backend='onednn' cannot take {x.dtype} on {x.device.type} here: use auto or native")
    return backend


def _in_float32(kernel: Callable[..., Tensor], x: Tensor, *tensors: Tensor | None, **options) -> Tensor:
    """Call a kernel that takes float32 only; a float32 input passes as it is."""
    return kernel(x.float(), *(None if t is None else t.float() for t in tensors), **options).to(x.dtype)


@cache
def _announce(backend: str, device: str, dtype: torch.dtype) -> str:
    logger.info("conv3d on %s in %s: backend %s", device, dtype, backend)
    return backend


@cache
def onednn_available() -> bool:
    """True when this PyTorch was built with oneDNN and lets us call its convolution."""
    operators = hasattr(torch.ops.aten, "mkldnn_convolution") and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
    return torch.backends.mkldnn.is_available() and operators


@cache
def half_units(dtype: torch.dtype) -> bool:
    """True when this processor computes bfloat16 or float16 convolutions in hardware."""
    name = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}[dtype]
    return onednn_available() and getattr(torch.ops.mkldnn, name)()


@cache
def load_kernel(backend: str):
    """The module that implements a backend."""
    return import_module(f"helios.ops.conv3d_{backend}")
