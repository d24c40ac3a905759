"""The leaf modules of the transformer: PyTorch's own classes, computed through :mod:`helios.ops`.

They stay subclasses of ``nn.Linear``, ``nn.LayerNorm`` and ``nn.Conv3d`` and are always called as modules, so adapters
(peft), quantisers, offload hooks and sharding find them as they expect. (:class:`Fp8Linear` is none of these: it takes the
place of a layer in a model that is finished.)

B batch, C channels, T H W frames, rows, columns; L tokens, D width, E input width of a linear layer.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from helios.ops.fp8_linear import FLOAT8, fp8_linear, quantise_rows
from helios.ops.gelu import gelu_tanh
from helios.ops.linear import linear


class Linear(nn.Linear):
    """A linear layer with the fastest exact path of the device."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


class Fp8Linear(nn.Module):
    """A linear layer whose weights and inputs are rounded to 8-bit floats: approximate, for inference alone."""

    weight_DE: Tensor
    scale_D1: Tensor

    def __init__(self, weight_DE: Tensor, bias: nn.Parameter | None) -> None:
        """Round an exact layer's weight; its bias is taken over."""
        super().__init__()
        rounded_DE, scale_D1 = quantise_rows(weight_DE.detach())
        self.register_buffer("weight_DE", rounded_DE)
        self.register_buffer("scale_D1", scale_D1)
        self.bias = bias

    def forward(self, input: Tensor) -> Tensor:
        assert self.weight_DE.dtype == FLOAT8, "8-bit weights were cast: make the model approximate after moving it"
        return fp8_linear(input, self.weight_DE, self.scale_D1, self.bias)


class LayerNorm32(nn.LayerNorm):
    """LayerNorm computed in float32; the result has the dtype of the input."""

    def forward(self, input: Tensor) -> Tensor:
        normed = F.layer_norm(input.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)
        return normed.to(input.dtype)


class PatchConv(nn.Conv3d):
    """A convolution whose stride is its kernel, computed as one matrix product over the patches.

    Returns [B, D, T', H', W'] as a convolution does, laid out so that flattening it to tokens [B, L, D] copies nothing.
    The constructor is ``nn.Conv3d``'s, because adapters build their own small layers of the same class.
    """

    def forward(self, input: Tensor) -> Tensor:
        assert self.stride == self.kernel_size and not any(self.padding), "a patch neither overlaps nor pads"
        batch, channels, *size = input.shape
        grid = tuple(length // step for length, step in zip(size, self.kernel_size))
        blocks = [part for pair in zip(grid, self.kernel_size) for part in pair]
        patches = input.reshape(batch, channels, *blocks).permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
        tokens_BLD = linear(patches.flatten(1, 3), self.weight.flatten(1), self.bias)
        return tokens_BLD.transpose(1, 2).unflatten(2, grid)


def patch_conv(channels: int, width: int, patch: tuple[int, int, int]) -> PatchConv:
    """The layer that makes one token of every patch."""
    return PatchConv(channels, width, kernel_size=patch, stride=patch)


class GeluProjection(nn.Module):
    """First half of the feed-forward: linear, then tanh GELU."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.proj = Linear(width, hidden)

    def forward(self, x_BLD: Tensor) -> Tensor:
        return gelu_tanh(self.proj(x_BLD))


class FeedForward(nn.Module):
    """linear, tanh GELU, linear. The list keeps the published names ``net.0.proj`` and ``net.2``."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.net = nn.ModuleList([GeluProjection(width, hidden), nn.Identity(), Linear(hidden, width)])

    def forward(self, x_BLD: Tensor) -> Tensor:
        for layer in self.net:
            x_BLD = layer(x_BLD)
        return x_BLD
