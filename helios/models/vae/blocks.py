"""The parts of the Wan VAE: residual block, per-frame attention, resampling in space and time.

Letters: B batch, C channels, T frames (pixel or latent, by depth), H W height and width at that depth, P pixels H * W.

Each part takes the module that holds its weights (Diffusers' names), its input, and the causal memory.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helios.models.vae.memory import CausalMemory
from helios.ops.channel_norm import channel_norm, channel_norm_silu_into
from helios.ops.conv3d import empty_video, frame_conv2d, open_window, upsample_conv2d, window_conv3d

# a Diffusers module, used for the parameters and submodules it holds
Weights = Any


def causal_conv(conv: Weights, x_BCTHW: Tensor, memory: CausalMemory) -> Tensor:
    """A causal convolution with the weights of ``conv``."""
    return window_conv3d(fill_window(conv, x_BCTHW, memory), conv.weight, conv.bias)


def fill_window(conv: Weights, x_BCTHW: Tensor, memory: CausalMemory) -> Tensor:
    """What a causal convolution sees: its past frames and ``x``; remembers what the next part needs."""
    past_frames = conv.weight.shape[2] - 1
    window = open_window(x_BCTHW, past_frames, memory.past(conv))
    memory.keep(conv, window, past_frames)
    return window


def norm_conv(
    norm: Weights, conv: Weights, x_BCTHW: Tensor, memory: CausalMemory, residual: Tensor | None = None
) -> Tensor:
    """Norm, SiLU and a causal convolution, plus ``residual``. The norm writes straight into the convolution's window."""
    past_frames = conv.weight.shape[2] - 1
    window = channel_norm_silu_into(memory.window(conv, x_BCTHW, past_frames), x_BCTHW, norm.gamma)
    memory.keep(conv, window, past_frames)
    return window_conv3d(window, conv.weight, conv.bias, residual=residual)


def residual_block(block: Weights, x_BCTHW: Tensor, memory: CausalMemory) -> Tensor:
    """``shortcut(x) + conv(silu(norm(conv(silu(norm(x))))))``; the shortcut is a 1x1x1 convolution where widths differ.

    Without gradients the result takes the memory of ``x`` where it can.
    """
    shortcut = x_BCTHW
    if isinstance(block.conv_shortcut, nn.Conv3d):
        shortcut = window_conv3d(x_BCTHW, block.conv_shortcut.weight, block.conv_shortcut.bias)
    hidden = norm_conv(block.norm1, block.conv1, x_BCTHW, memory)
    return norm_conv(block.norm2, block.conv2, hidden, memory, residual=shortcut)


def attention_block(block: Weights, x_BCTHW: Tensor) -> Tensor:
    """Single-head self-attention among the pixels of each frame, added to the input."""
    _, channels, _, height, width = x_BCTHW.shape
    qkv = frame_conv2d(channel_norm(x_BCTHW, block.norm.gamma), block.to_qkv.weight, block.to_qkv.bias)
    q_BTPC, k_BTPC, v_BTPC = qkv.permute(0, 2, 3, 4, 1).flatten(2, 3).split(channels, dim=-1)
    mixed_BTPC = F.scaled_dot_product_attention(q_BTPC, k_BTPC, v_BTPC)
    mixed = mixed_BTPC.unflatten(2, (height, width)).permute(0, 4, 1, 2, 3)
    return x_BCTHW + frame_conv2d(mixed, block.proj.weight, block.proj.bias)


def mid_block(block: Weights, x_BCTHW: Tensor, memory: CausalMemory) -> Tensor:
    """Residual block, then (attention, residual block) once or more."""
    x_BCTHW = residual_block(block.resnets[0], x_BCTHW, memory)
    for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
        x_BCTHW = residual_block(resnet, attention_block(attention, x_BCTHW), memory)
    return x_BCTHW


def downsample(block: Weights, x_BCTHW: Tensor, memory: CausalMemory) -> Tensor:
    """Halve height and width, and where the block has a time convolution, the frames after the first as well.

    The frames are padded by zeros at the right and the bottom only.
    """
    conv = block.resample[1]
    x_BCTHW = frame_conv2d(F.pad(x_BCTHW, (0, 1, 0, 1)), conv.weight, conv.bias, stride=2, padding=0)
    return halve_time(block.time_conv, x_BCTHW, memory) if hasattr(block, "time_conv") else x_BCTHW


def halve_time(conv: Weights, x_BCTHW: Tensor, memory: CausalMemory) -> Tensor:
    """The first frame of a chunk passes as it is; each later pair becomes one frame, seen with the frame before it."""
    past = memory.past(conv)
    window = x_BCTHW if past is None else torch.cat([past, x_BCTHW], dim=2)
    memory.keep(conv, window, 1)
    first = [x_BCTHW[:, :, :1]] if past is None else []
    if window.shape[2] == 1:
        return x_BCTHW
    return torch.cat([*first, window_conv3d(window, conv.weight, conv.bias, time_stride=2)], dim=2)


def upsample(block: Weights, x_BCTHW: Tensor, memory: CausalMemory) -> Tensor:
    """Double height and width, and where the block has a time convolution, the frames after the first as well."""
    if hasattr(block, "time_conv"):
        x_BCTHW = double_time(block.time_conv, x_BCTHW, memory)
    conv = block.resample[1]
    return upsample_conv2d(x_BCTHW, conv.weight, conv.bias)


def double_time(conv: Weights, x_BCTHW: Tensor, memory: CausalMemory) -> Tensor:
    """The first frame of a chunk passes as it is; each later one becomes two.

    The causal convolution starts after the first frame and does not see it: its past is zeros there. It has twice the
    channels: the first half of them is the earlier frame of a pair.
    """
    frames = x_BCTHW.shape[2]
    passed = 0 if memory.started else 1
    if frames == passed:
        return x_BCTHW
    window = fill_window(conv, x_BCTHW[:, :, passed:], memory)
    doubled = empty_video(x_BCTHW, 2 * frames - passed)
    doubled[:, :, :passed] = x_BCTHW[:, :, :passed]
    for turn, (weight, bias) in enumerate(zip(conv.weight.chunk(2), conv.bias.chunk(2), strict=True)):
        doubled[:, :, passed + turn :: 2] = window_conv3d(window, weight, bias)
    return doubled
