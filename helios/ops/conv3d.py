"""Convolution of a video that is causal in time, and convolution of its frames one by one.

Letters: B batch, C channels, T frames, H W height and width of a frame, O output channels.

A causal convolution sees ``kernel - 1`` past frames and no future one. The past travels inside the input (a *window* =
past frames followed by the new ones), so no kernel here has to pad time, and a stream hands over its last frames in
place of the zeros that stand before the first.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from helios.errors import InputError

Backend = Literal["auto", "reference"]
BACKENDS = ("auto", "reference")


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
        past_BCTHW: the ``kernel - 1`` frames before them; None for zeros.
        backend: see :func:`window_conv3d`.
    Returns: [B, O, T, H, W].
    """
    return window_conv3d(with_past(x_BCTHW, weight.shape[2] - 1, past_BCTHW), weight, bias_O, backend=backend)


def with_past(x_BCTHW: Tensor, frames: int, past_BCTHW: Tensor | None = None) -> Tensor:
    """``x`` behind ``frames`` past frames: the given ones, or zeros."""
    if frames == 0:
        return x_BCTHW
    if past_BCTHW is None:
        batch, channels, _, height, width = x_BCTHW.shape
        past_BCTHW = x_BCTHW.new_zeros(()).expand(batch, channels, frames, height, width)
    return torch.cat([past_BCTHW, x_BCTHW], dim=2)


def window_conv3d(
    window_BCTHW: Tensor,
    weight: Tensor,
    bias_O: Tensor | None = None,
    *,
    time_stride: int = 1,
    backend: Backend = "auto",
) -> Tensor:
    """Convolution without padding in time (the window holds the past) and with zeros around each frame.

    Args:
        window_BCTHW: past and new frames.
        weight: [O, C, kernel over time, height, width].
        time_stride: distance between output frames.
    Returns: [B, O, (T - kernel) // time_stride + 1, H, W].
    Raises: InputError when the backend does not exist or cannot run here.
    """
    check_backend(backend)
    padding = (0, weight.shape[3] // 2, weight.shape[4] // 2)
    return F.conv3d(window_BCTHW, weight, bias_O, (time_stride, 1, 1), padding)


def check_backend(backend: str) -> None:
    """Refuse a backend name that does not exist."""
    if backend not in BACKENDS:
        raise InputError(f"conv3d backend={backend!r} does not exist: use one of {', '.join(BACKENDS)}")


def frame_conv2d(
    x_BCTHW: Tensor, weight: Tensor, bias_O: Tensor | None = None, *, stride: int = 1, padding=None
) -> Tensor:
    """The same 2D convolution on every frame: zeros around it, or the given ``padding``."""
    batch, _, frames = x_BCTHW.shape[:3]
    padding = weight.shape[-1] // 2 if padding is None else padding
    x_NCHW = x_BCTHW.transpose(1, 2).flatten(0, 1)
    y_NCHW = F.conv2d(x_NCHW, weight, bias_O, stride, padding)
    return y_NCHW.unflatten(0, (batch, frames)).transpose(1, 2)
