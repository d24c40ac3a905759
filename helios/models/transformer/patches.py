"""Latents to tokens and back, and the three compressed history streams.

B batch, C channels, T H W latent frames, rows, columns; L tokens, D width.
"""

import torch
from torch import Tensor, nn

from helios.ops.rope import pad_to_multiple

Grid = tuple[int, int, int]
MID_POOL, LONG_POOL = 2, 4


def pooled(patch: Grid, pool: int) -> Grid:
    """The patch of a stream whose token stands for ``pool`` plain tokens along each axis."""
    return tuple(pool * edge for edge in patch)


def patchify(conv: nn.Module, latents_BCTHW: Tensor, patch: Grid) -> tuple[Tensor, Grid]:
    """Tokens [B, L, D] ordered by time, row, column, and the grid (frames, rows, columns) they lie on.

    Latents that do not fill the last patch are extended by repeating their last frame, row or column.
    """
    features_BDTHW = conv(pad_to_multiple(latents_BCTHW, patch))
    return features_BDTHW.flatten(2).transpose(1, 2), tuple(features_BDTHW.shape[2:])


def unpatchify(tokens_BLF: Tensor, grid: Grid, patch: Grid) -> Tensor:
    """Latents [B, C, T, H, W] from tokens whose features are ordered patch-time, patch-row, patch-column, channel."""
    x = tokens_BLF.unflatten(2, (*patch, -1)).unflatten(1, grid).permute(0, 7, 1, 4, 2, 5, 3, 6)
    return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)


@torch.no_grad()
def init_memory_patches(model: nn.Module) -> None:
    """Start the history patches from the patch embedding, so that a constant region gives the token it gave before.

    Each kernel repeats the patch embedding's as a periodic pattern and divides by the number of repetitions; biases
    are copied. Call it after the pretrained weights are in place: the published code does it in the constructor, where
    it copies random numbers.
    """
    source = model.patch_embedding
    for patch, pool in ((model.patch_short, 1), (model.patch_mid, MID_POOL), (model.patch_long, LONG_POOL)):
        patch.weight.copy_(source.weight.repeat(1, 1, pool, pool, pool) / pool**3)
        patch.bias.copy_(source.bias)
