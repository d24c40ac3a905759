"""Building blocks of AMT-S; the attribute names are the published parameter names.

B batch, C channels, H W height and width of a map.
"""

import torch
from torch import Tensor, nn

from helios.bench.networks.amt.sampling import resize, warp


def conv_prelu(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution and a PReLU with one slope per channel."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.PReLU(outputs))


class Bottleneck(nn.Module):
    """1x1, 3x3 (carries the stride), 1x1, each with instance norm and ReLU, around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        inner = outputs // 4
        self.conv1 = nn.Conv2d(inputs, inner, 1)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1)
        self.conv3 = nn.Conv2d(inner, outputs, 1)
        self.norm1, self.norm2, self.norm3 = (
            nn.InstanceNorm2d(inner),
            nn.InstanceNorm2d(inner),
            nn.InstanceNorm2d(outputs),
        )
        self.downsample = None
        if stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.InstanceNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2), (self.conv3, self.norm3)):
            y = torch.relu(norm(conv(y)))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class FeatureEncoder(nn.Module):
    """Correlation features at an eighth of the size: 84 channels."""

    def __init__(self, outputs: int = 84, widths: tuple[int, int, int] = (32, 64, 96)):
        super().__init__()
        first, second, third = widths
        self.conv1 = nn.Conv2d(3, first, 7, 2, 3)
        self.norm1 = nn.InstanceNorm2d(first)
        self.layer1 = nn.Sequential(Bottleneck(first, first, 1), Bottleneck(first, first, 1))
        self.layer2 = nn.Sequential(Bottleneck(first, second, 2), Bottleneck(second, second, 1))
        self.layer3 = nn.Sequential(Bottleneck(second, third, 2), Bottleneck(third, third, 1))
        self.conv2 = nn.Conv2d(third, outputs, 1)

    def forward(self, picture: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.conv1(picture)))
        return self.conv2(self.layer3(self.layer2(self.layer1(x))))


class PyramidEncoder(nn.Module):
    """Context features at 1/2, 1/4, 1/8 and 1/16 of the size."""

    def __init__(self, channels: tuple[int, int, int, int]):
        super().__init__()
        for level, (inputs, outputs) in enumerate(zip((3, *channels), channels), 1):
            setattr(
                self, f"pyramid{level}", nn.Sequential(conv_prelu(inputs, outputs, 2), conv_prelu(outputs, outputs))
            )

    def forward(self, picture: Tensor) -> list[Tensor]:
        found = []
        for level in range(1, 5):
            picture = getattr(self, f"pyramid{level}")(picture)
            found.append(picture)
        return found


class ResidualBlock(nn.Module):
    """Convolutions on all channels, every second one only on the last ``side`` channels, around a shortcut."""

    def __init__(self, width: int, side: int):
        super().__init__()
        self.conv1, self.conv2 = conv_prelu(width, width), conv_prelu(side, side)
        self.conv3, self.conv4 = conv_prelu(width, width), conv_prelu(side, side)
        self.conv5 = nn.Conv2d(width, width, 3, 1, 1)
        self.prelu = nn.PReLU(width)
        self._split = [width - side, side]

    def forward(self, x: Tensor) -> Tensor:
        y = self._on_side(self.conv2, self.conv1(x))
        y = self._on_side(self.conv4, self.conv3(y))
        return self.prelu(x + self.conv5(y))

    def _on_side(self, conv: nn.Module, x: Tensor) -> Tensor:
        main, side = x.split(self._split, 1)
        return torch.cat([main, conv(side)], 1)


class Decoder(nn.Module):
    """Convolution, residual block, transposed convolution to twice the size; keys ``convblock``."""

    def __init__(self, inputs: int, width: int, outputs: int, side: int):
        super().__init__()
        self.convblock = nn.Sequential(
            conv_prelu(inputs, width), ResidualBlock(width, side), nn.ConvTranspose2d(width, outputs, 4, 2, 1)
        )


class FirstDecoder(Decoder):
    """Both pictures' coarsest features and the time plane to two flows and a feature at 1/8."""

    def __init__(self, channels: int, feature: int, side: int):
        super().__init__(2 * channels + 1, 2 * channels, 4 + feature, side)

    def forward(self, f0: Tensor, f1: Tensor, time: float) -> tuple[Tensor, Tensor, Tensor]:
        plane = torch.full_like(f0[:, :1], time)
        out = self.convblock(torch.cat([f0, f1, plane], 1))
        return out[:, :2], out[:, 2:4], out[:, 4:]


class MiddleDecoder(Decoder):
    """Refines the flows at twice the size, from features warped by them."""

    def __init__(self, channels: int, feature: int, side: int):
        super().__init__(3 * channels + 4, 3 * channels, 4 + feature, side)

    def forward(self, feature: Tensor, f0: Tensor, f1: Tensor, flow0: Tensor, flow1: Tensor):
        out = self.convblock(torch.cat([feature, warp(f0, flow0), warp(f1, flow1), flow0, flow1], 1))
        return out[:, :2] + 2 * resize(flow0, 2), out[:, 2:4] + 2 * resize(flow1, 2), out[:, 4:]


class LastDecoder(Decoder):
    """Three pairs of flows, blend masks and colour residuals at full size."""

    def __init__(self, channels: int, flows: int, side: int):
        super().__init__(3 * channels + 4, 3 * channels, 8 * flows, side)
        self._split = [2 * flows, 2 * flows, flows, 3 * flows]
        self._flows = flows

    def forward(self, feature: Tensor, f0: Tensor, f1: Tensor, flow0: Tensor, flow1: Tensor):
        out = self.convblock(torch.cat([feature, warp(f0, flow0), warp(f1, flow1), flow0, flow1], 1))
        delta0, delta1, mask, residual = out.split(self._split, 1)
        up0, up1 = (2 * resize(flow, 2).repeat(1, self._flows, 1, 1) for flow in (flow0, flow1))
        return delta0 + up0, delta1 + up1, torch.sigmoid(mask), residual


class UpdateBlock(nn.Module):
    """Corrects flows and feature from correlations looked up along the flows; works at an eighth of the size.

    Args:
        feature: channels of the feature.
        correlation: channels of the lookup (both directions together).
        shrink: how many times larger than 1/8 the flows and feature come in.
    """

    def __init__(self, feature: int, correlation: int, shrink: int, width: int = 76):
        super().__init__()
        self.convc1 = nn.Conv2d(correlation, 64, 1)
        self.convf1 = nn.Conv2d(4, 40, 7, 1, 3)
        self.convf2 = nn.Conv2d(40, 20, 3, 1, 1)
        self.conv = nn.Conv2d(84, 68, 3, 1, 1)
        self.gru = _two_convs(68 + 4 + feature, width, width)
        self.feat_head = _two_convs(width, width, feature)
        self.flow_head = _two_convs(width, width, 4)
        self.lrelu = nn.LeakyReLU(0.1)
        self.shrink = shrink

    def forward(self, feature: Tensor, flows: Tensor, correlations: Tensor) -> tuple[Tensor, Tensor]:
        """(change of feature, change of flows) at the size the feature came in; flows and lookups are at 1/8."""
        from_flow = self.lrelu(self.convf2(self.lrelu(self.convf1(flows))))
        from_correlation = self.lrelu(self.convc1(correlations))
        motion = self.lrelu(self.conv(torch.cat([from_correlation, from_flow], 1)))
        small = resize(feature, 1 / self.shrink)
        hidden = self.gru(torch.cat([motion, flows, small], 1))
        delta_feature, delta_flow = self.feat_head(hidden), self.flow_head(hidden)
        return resize(delta_feature, self.shrink), self.shrink * resize(delta_flow, self.shrink)


def _two_convs(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, width, 3, 1, 1), nn.LeakyReLU(0.1), nn.Conv2d(width, outputs, 3, 1, 1))
