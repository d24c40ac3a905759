"""From one resolution level to the next: halving, enlarging, and the block noise that makes the noise white again.

Letters: B batch, C channels, T latent frames, H W latent height and width, M number of 2x2 blocks.

Enlarging by nearest neighbour copies each noise value into a 2x2 block, so the four are equal. Block noise has variance
1 and covariance -gamma inside a block (independent between blocks); mixed in with the right weight it cancels that
correlation and leaves white noise of exactly the level's ``start`` sigma.
"""

import math
from functools import lru_cache, reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from helios.errors import InputError
from helios.schedulers.stages import Stage

PUBLISHED_JITTER = 1e-8  # the published code adds it to the covariance's diagonal; at gamma = 1/3 that is singular
_BLOCK = 4


def upsample_nearest(x_BCTHW: Tensor) -> Tensor:
    """Twice the height and width, every latent copied into a 2x2 block; frame by frame, differentiable."""
    batch, channels, frames, height, width = x_BCTHW.shape
    blocks = x_BCTHW[..., None, :, None].expand(batch, channels, frames, height, 2, width, 2)
    return blocks.reshape(batch, channels, frames, 2 * height, 2 * width)


def downsample_mean(x_BCTHW: Tensor) -> Tensor:
    """Half the height and width: bilinear without antialiasing, which at one half is the mean of each 2x2 block.

    Raises: InputError for an odd height or width.
    """
    channels, frames, height, width = x_BCTHW.shape[1:]
    if height % 2 or width % 2:
        raise InputError(f"latents of {height}x{width} cannot be halved: use a size that is even at every level")
    halved = F.interpolate(x_BCTHW.flatten(1, 2), size=(height // 2, width // 2), mode="bilinear")
    return halved.unflatten(1, (channels, frames))


def downsample_noise(x_BCTHW: Tensor) -> Tensor:
    """Half the height and width of white noise, scaled by 2 so that it stays white with the same variance."""
    return downsample_mean(x_BCTHW) * 2


def transition(x_BCTHW: Tensor, block_noise_BCTHW: Tensor, stage: Stage) -> Tensor:
    """Enter a level: ``alpha * upsample_nearest(x) + beta * block_noise``.

    Args:
        x_BCTHW: latents at the end of the level before, [B, C, T, H, W].
        block_noise_BCTHW: noise with covariance 1 and -gamma in each block, [B, C, T, 2H, 2W]. The published pipeline
            rounds it to the transformer's dtype first; a caller after bit parity does the same.
        stage: the level that is entered.
    Returns: [B, C, T, 2H, 2W], float32.
    """
    return stage.alpha * upsample_nearest(x_BCTHW.float()) + stage.beta * block_noise_BCTHW.float()


def block_noise_closed_form(z_BCTHW: Tensor, gamma: float) -> Tensor:
    """White noise to block noise through the symmetric square root of the block covariance.

        noise = sqrt(1 + gamma) * (z - mean(z)) + sqrt(1 - 3 * gamma) * mean(z)      (mean over each 2x2 block)

    The covariance has the eigenvalue 1 + gamma three times and 1 - 3 * gamma along the constant, so this is exact for
    every gamma up to 1/3, where the Cholesky factor of the published code breaks down.

    Args:
        z_BCTHW: standard normal draw of the result's shape; height and width even.
        gamma: above 0, at most 1/3; at 1/3 every block sums to zero.
    """
    mean_BCTHW = upsample_nearest(downsample_mean(z_BCTHW))
    constant = math.sqrt(max(0.0, 1 - (_BLOCK - 1) * gamma))
    return math.sqrt(1 + gamma) * (z_BCTHW - mean_BCTHW) + constant * mean_BCTHW


def block_noise_cholesky(z_rows_M4: Tensor, shape: tuple[int, ...], gamma: float) -> Tensor:
    """Block noise in the order of the published code: one row of four draws per block, times the Cholesky factor.

    The factor is computed in float64 on the host: in float32 the jitter of 1e-8 is lost and the published code fails
    on the CPU at its own gamma of 1/3.

    Args:
        z_rows_M4: standard normal draw, [M, 4], blocks ordered by batch, channel, frame, row, column.
        shape: (B, C, T, H, W) of the result; the four numbers of a row fill a block row by row.
        gamma: above 0, at most 1/3.
    Raises: ValueError when the rows do not fit the shape.
    """
    batch, channels, frames, height, width = shape
    if z_rows_M4.shape != (math.prod(shape) // _BLOCK, _BLOCK) or height % 2 or width % 2:
        raise ValueError(f"draw of shape {tuple(z_rows_M4.shape)} does not fill the blocks of {tuple(shape)}")
    weighted = [[weight * z_rows_M4[:, j] for j, weight in enumerate(row)] for row in cholesky_rows(gamma)]
    blocks = torch.stack([reduce(torch.add, terms) for terms in weighted], dim=1).view(
        batch, channels, frames, height // 2, width // 2, 2, 2
    )
    return blocks.transpose(-3, -2).reshape(shape)


@lru_cache
def cholesky_rows(gamma: float, jitter: float = PUBLISHED_JITTER) -> tuple[tuple[float, ...], ...]:
    """Lower triangle L with L L^T = (1 + gamma) I - gamma 11^T + jitter I, row i holding i + 1 entries; float64."""
    rows: list[list[float]] = []
    for i in range(_BLOCK):
        row: list[float] = []
        for j in range(i):
            row.append((-gamma - sum(a * b for a, b in zip(row, rows[j]))) / rows[j][j])
        row.append(math.sqrt(1 + jitter - sum(entry * entry for entry in row)))
        rows.append(row)
    return tuple(tuple(row) for row in rows)
