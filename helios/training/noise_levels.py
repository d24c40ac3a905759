"""Which noise levels training draws, from tables of 1000 (sigma, timestep) pairs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from helios.errors import InputError
from helios.schedulers.tables import NoiseTable


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """Every entry of the table equally often. The released stage 2."""

    def fractions(self, u: Tensor) -> Tensor:
        """Fraction of the table, 0 its noisiest entry, for a uniform draw."""
        return u


@dataclass(frozen=True, kw_only=True)
class LogitNormal:
    """``sigmoid(mean + std * normal)``: the middle of the range more often (Esser et al. 2024). The released stage 1.

    It is a sampling density and no weight: every sample counts the same in the loss. A negative mean draws more noise.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if self.std <= 0:
            raise InputError(f"std={self.std} draws one level only: use more than 0")

    def fractions(self, u: Tensor) -> Tensor:
        """Fraction of the table for a uniform draw, through the normal's quantile."""
        normal = torch.special.ndtri(u.double().clamp(1e-12, 1 - 1e-12))
        return torch.sigmoid(self.mean + self.std * normal)


NoiseLaw = Uniform | LogitNormal


def look_up(table: NoiseTable, fractions: Tensor) -> tuple[Tensor, Tensor]:
    """(sigma, timestep), float32, of the entry ``floor(count * fraction)`` for every fraction in [0, 1]."""
    index = (fractions * len(table)).long().clamp(max=len(table) - 1)
    sigmas, timesteps = (torch.tensor(column, dtype=torch.float64) for column in (table.sigmas, table.timesteps))
    return sigmas[index].float(), timesteps[index].float()
