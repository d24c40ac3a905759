"""AMT-S: the frame halfway between two frames, from coarse flows that all-pairs correlations correct.

B batch, C channels, H W height and width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from helios.bench.networks.amt.blocks import (
    FeatureEncoder,
    FirstDecoder,
    LastDecoder,
    MiddleDecoder,
    PyramidEncoder,
    UpdateBlock,
)
from helios.bench.networks.amt.sampling import Correlation, pixel_grid, resize, warp

SIZE_MULTIPLE = 16
LEAST_SIDE = 64  # an eighth of it, pooled three times, is still one cell of the correlation volume


@dataclass(frozen=True, kw_only=True)
class AMTConfig:
    """Hyper-parameters of AMT-S."""

    radius: int = 3
    levels: int = 4
    flows: int = 3
    channels: tuple[int, int, int, int] = (20, 32, 44, 56)
    skip: int = 20

    @property
    def lookup_channels(self) -> int:
        return 2 * self.levels * (2 * self.radius + 1) ** 2


class AMT(nn.Module):
    """Two pictures in 0..1 to the picture at ``time`` between them."""

    def __init__(self, config: AMTConfig | None = None):
        super().__init__()
        config = config or AMTConfig()
        one, two, three, four = config.channels
        self.config = config
        self.feat_encoder = FeatureEncoder()
        self.encoder = PyramidEncoder(config.channels)
        self.decoder4 = FirstDecoder(four, three, config.skip)
        self.decoder3 = MiddleDecoder(three, two, config.skip)
        self.decoder2 = MiddleDecoder(two, one, config.skip)
        self.decoder1 = LastDecoder(one, config.flows, config.skip)
        self.update4 = UpdateBlock(three, config.lookup_channels, 1)
        self.update3 = UpdateBlock(two, config.lookup_channels, 2)
        self.update2 = UpdateBlock(one, config.lookup_channels, 4)
        self.comb_block = nn.Sequential(
            nn.Conv2d(3 * config.flows, 6 * config.flows, 3, 1, 1),
            nn.PReLU(6 * config.flows),
            nn.Conv2d(6 * config.flows, 3, 3, 1, 1),
        )

    def forward(self, first_BCHW: Tensor, second_BCHW: Tensor, time: float = 0.5) -> Tensor:
        """[B, 3, H, W] in 0..1; any size, padded inside by replication to multiples of 16 (64 at least)."""
        height, width = first_BCHW.shape[-2:]
        padding = (0, _padded(width) - width, 0, _padded(height) - height)
        first, second = (functional.pad(x, padding, mode="replicate") for x in (first_BCHW, second_BCHW))
        mean = torch.stack([first, second]).mean((0, 2, 3, 4), keepdim=True)[0]
        merged = self._merge(*self._flows(first - mean, second - mean, time), first - mean, second - mean, mean)
        return merged[..., :height, :width].clamp(0, 1)

    def _flows(self, first: Tensor, second: Tensor, time: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        correlations = self._correlations(first, second)
        f0, f1 = self.encoder(first), self.encoder(second)
        flow0, flow1, feature = self.decoder4(f0[3], f1[3], time)
        flow0, flow1, feature = self._updated(self.update4, correlations, flow0, flow1, feature, time)
        flow0, flow1, feature = self.decoder3(feature, f0[2], f1[2], flow0, flow1)
        flow0, flow1, feature = self._updated(self.update3, correlations, flow0, flow1, feature, time)
        flow0, flow1, feature = self.decoder2(feature, f0[1], f1[1], flow0, flow1)
        flow0, flow1, feature = self._updated(self.update2, correlations, flow0, flow1, feature, time)
        return self.decoder1(feature, f0[0], f1[0], flow0, flow1)

    def _correlations(self, first: Tensor, second: Tensor) -> tuple[Correlation, Correlation]:
        maps = self.feat_encoder(first), self.feat_encoder(second)
        options = {"levels": self.config.levels, "radius": self.config.radius}
        return Correlation(maps[0], maps[1], **options), Correlation(maps[1], maps[0], **options)

    def _updated(self, block: UpdateBlock, correlations, flow0: Tensor, flow1: Tensor, feature: Tensor, time: float):
        """Flows from the halfway frame become flows between the pictures: times 1/(1-t) forward and 1/t backward."""
        small0, small1 = (resize(flow, 1 / block.shrink) / block.shrink for flow in (flow0, flow1))
        grid = pixel_grid(small0)
        forward = correlations[0].lookup(grid + small1 / (1 - time))
        backward = correlations[1].lookup(grid + small0 / time)
        delta_feature, delta_flow = block(feature, torch.cat([small0, small1], 1), torch.cat([forward, backward], 1))
        return flow0 + delta_flow[:, :2], flow1 + delta_flow[:, 2:], feature + delta_feature

    def _merge(self, flow0: Tensor, flow1: Tensor, mask: Tensor, residual: Tensor, first, second, mean) -> Tensor:
        parts = []
        for i in range(self.config.flows):
            pair = slice(2 * i, 2 * i + 2)
            from_first, from_second = warp(first, flow0[:, pair]), warp(second, flow1[:, pair])
            weight = mask[:, i : i + 1]
            blend = weight * from_first + (1 - weight) * from_second
            parts.append(blend + mean + residual[:, 3 * i : 3 * i + 3])
        return torch.stack(parts).mean(0) + self.comb_block(torch.cat(parts, 1))


def _padded(side: int) -> int:
    return max(LEAST_SIDE, side + -side % SIZE_MULTIPLE)
