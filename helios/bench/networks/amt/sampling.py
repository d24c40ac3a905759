"""All-pairs correlation, backward warping and resizing.

B batch, C channels, H W height and width of a map, Q query positions (H * W).
"""

import torch
from torch import Tensor
from torch.nn import functional


def pixel_grid(like: Tensor) -> Tensor:
    """[1, 2, H, W] coordinates in pixels, x before y, of a map [..., H, W]."""
    height, width = like.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=like.device, dtype=like.dtype),
        torch.arange(width, device=like.device, dtype=like.dtype),
        indexing="ij",
    )
    return torch.stack([x, y])[None]


def sample(picture_BCHW: Tensor, where_B2HW: Tensor, *, border: str) -> Tensor:
    """Bilinear values at pixel coordinates (x, y), corners aligned; ``border`` is ``zeros`` or ``border``."""
    height, width = picture_BCHW.shape[-2:]
    scale = where_B2HW.new_tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1)])
    grid_BHW2 = where_B2HW.permute(0, 2, 3, 1) * scale - 1
    return functional.grid_sample(picture_BCHW, grid_BHW2, mode="bilinear", padding_mode=border, align_corners=True)


def warp(picture_BCHW: Tensor, flow_B2HW: Tensor) -> Tensor:
    """Backward warp: the value at x is the picture's value at x + flow(x), borders replicated."""
    return sample(picture_BCHW, pixel_grid(flow_B2HW) + flow_B2HW, border="border")


def resize(picture_BCHW: Tensor, factor: float) -> Tensor:
    """Bilinear resize without aligned corners; unchanged for factor 1."""
    if factor == 1:
        return picture_BCHW
    return functional.interpolate(picture_BCHW, scale_factor=factor, mode="bilinear", align_corners=False)


class Correlation:
    """Dot products of every position of one map with every position of the other, over sqrt(C), on four scales.

    Args:
        query_BCHW, target_BCHW: feature maps of equal size; the target axes are average-pooled for the coarser scales.
        levels, radius: scales and lookup radius (4 and 3 in AMT-S).
    """

    def __init__(self, query_BCHW: Tensor, target_BCHW: Tensor, *, levels: int = 4, radius: int = 3):
        batch, channels, height, width = query_BCHW.shape
        dots_BQQ = query_BCHW.flatten(2).transpose(1, 2) @ target_BCHW.flatten(2) / channels**0.5
        volume = dots_BQQ.reshape(batch * height * width, 1, height, width)
        self.pyramid = [volume]
        for _ in range(levels - 1):
            self.pyramid.append(functional.avg_pool2d(self.pyramid[-1], 2))
        self._radius = radius

    def lookup(self, where_B2HW: Tensor) -> Tensor:
        """[B, levels * (2 radius + 1)^2, H, W]: correlations around a target position given for each query position.

        Neighbour ``(2 radius + 1) i + j`` of a level has the offset x = i - radius, y = j - radius, counted in that
        level's pixels; positions outside are 0.
        """
        batch, _, height, width = where_B2HW.shape
        centre = where_B2HW.permute(0, 2, 3, 1).reshape(-1, 2, 1, 1)
        steps = torch.arange(-self._radius, self._radius + 1, device=centre.device, dtype=centre.dtype)
        offsets = torch.stack(torch.meshgrid(steps, steps, indexing="ij"))[None]
        found = [
            sample(volume, centre / 2**level + offsets, border="zeros").reshape(batch, height, width, -1)
            for level, volume in enumerate(self.pyramid)
        ]
        return torch.cat(found, -1).permute(0, 3, 1, 2)
