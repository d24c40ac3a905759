"""What a pyramid level is trained on: the straight line from its start to its end (paper arXiv 2603.04379).

Letters: B batch, C channels, T latent frames, H W latent height and width.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from helios.schedulers.renoise import downsample_mean, downsample_noise, upsample_nearest
from helios.schedulers.stages import PyramidStages


@dataclass(frozen=True, kw_only=True)
class LevelPair:
    """Both ends of a level's flow, [B, C, T, H, W] at the level's own size, float32.

    Attributes:
        start_BCTHW: in-level sigma 1.
        end_BCTHW: in-level sigma 0.
    """

    start_BCTHW: Tensor
    end_BCTHW: Tensor

    @property
    def velocity(self) -> Tensor:
        """The regression target ``start - end``; the same at every sigma."""
        return self.start_BCTHW - self.end_BCTHW

    def at(self, sigma_B: Tensor) -> Tensor:
        """The point ``sigma * start + (1 - sigma) * end``, one in-level sigma per sample."""
        sigma = sigma_B.float().view(-1, 1, 1, 1, 1)
        return sigma * self.start_BCTHW + (1 - sigma) * self.end_BCTHW


def latent_pyramid(x0_BCTHW: Tensor, levels: int) -> list[Tensor]:
    """Clean latents at every level, coarse to fine: repeated means over 2x2 blocks, frames kept."""
    return _pyramid(x0_BCTHW, levels, downsample_mean)


def noise_pyramid(noise_BCTHW: Tensor, levels: int) -> list[Tensor]:
    """White noise at every level, coarse to fine: each is unit variance and white, and all come from one draw."""
    return _pyramid(noise_BCTHW, levels, downsample_noise)


def level_pairs(x0_BCTHW: Tensor, noise_BCTHW: Tensor, stages: PyramidStages) -> list[LevelPair]:
    """Start and end of every level, coarse to fine.

        start_0 = noise_0
        start_i = s_i * noise_i + (1 - s_i) * upsample_nearest(clean_{i-1})
        end_i   = e_i * noise_i + (1 - e_i) * clean_i

    with ``s_i`` and ``e_i`` the ``start`` and ``end`` sigma of the stage. Both ends share their noise, so the path
    between them is straight. The coarsest start is pure noise: its coefficient is 1 and not 0.999.

    Args:
        x0_BCTHW: clean full-resolution latents, height and width multiples of ``2 ** (levels - 1)``.
        noise_BCTHW: standard normal draw of the same shape.
        stages: the pyramid.
    """
    clean = latent_pyramid(x0_BCTHW.float(), stages.levels)
    noise = noise_pyramid(noise_BCTHW.float(), stages.levels)
    starts = [noise[0], *(_level_start(noise[i], clean[i - 1], stages.stage(i).start) for i in range(1, stages.levels))]
    ends = [stages.stage(i).end * noise[i] + (1 - stages.stage(i).end) * clean[i] for i in range(stages.levels)]
    return [LevelPair(start_BCTHW=start, end_BCTHW=end) for start, end in zip(starts, ends)]


def _level_start(noise_BCTHW: Tensor, coarser_BCTHW: Tensor, sigma: float) -> Tensor:
    return sigma * noise_BCTHW + (1 - sigma) * upsample_nearest(coarser_BCTHW)


def _pyramid(x_BCTHW: Tensor, levels: int, halve: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Coarse to fine; the last entry is ``x`` itself."""
    pyramid = [x_BCTHW]
    for _ in range(levels - 1):
        pyramid.append(halve(pyramid[-1]))
    return pyramid[::-1]
