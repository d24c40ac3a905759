"""The resolution levels of a chunk and the share of the noise range that each of them covers.

The pyramid denoises the coarse picture first (paper arXiv 2603.04379, pyramid unified predictor-corrector; after
Jin et al. 2024, "Pyramidal flow matching"). Level i runs from ``start`` (more noise) to ``end`` (less noise) on its own
grid and sees itself as a complete flow from in-level sigma 1 to 0. Between two levels the picture is enlarged, which
makes its noise blocky, and fresh block noise turns that into the white noise of the next ``start``; see
:mod:`helios.schedulers.renoise`.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from helios.errors import InputError
from helios.schedulers.shift import shift_sigma
from helios.schedulers.tables import NoiseTable

FIRST_SIGMA = 0.999  # every published table starts here and not at 1; the released weights were trained with it
HIGHEST_TIMESTEP = 999.0
TRAIN_TIMESTEPS = 1000


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The constants of one level. Sigmas here are those of the whole flow, 1 noise and 0 data.

    Attributes:
        original_start: sigma of the whole flow at which the level before ended (its ``end``).
        start: sigma of the level's first point, after enlarging and adding noise.
        end: sigma of the level's last point; 0 at full resolution.
        first_timestep, last_timestep: time values of the level's first and last table entry.
        alpha, beta: the transition into this level, ``alpha * enlarged + beta * block_noise``; (1, 0) at level 0,
            which nothing precedes.
    """

    original_start: float
    start: float
    end: float
    first_timestep: float
    last_timestep: float
    alpha: float
    beta: float


@dataclass(frozen=True, kw_only=True)
class SingleStage:
    """One resolution, one flow over the whole noise range (Base)."""

    num_train_timesteps: int = TRAIN_TIMESTEPS

    def __post_init__(self):
        _check_train_timesteps(self.num_train_timesteps)

    @property
    def levels(self) -> int:
        return 1

    def grid(self, level: int, steps: int) -> NoiseTable:
        """``steps`` points, evenly spaced from 0.999 towards (and without) 0; timestep = 1000 * sigma."""
        return self._table(np.linspace(FIRST_SIGMA, 0.0, steps + 1)[:-1])

    def distilled_grid(self, level: int, steps: int) -> NoiseTable:
        """``steps`` points of a distilled model at one resolution: 1 to 1/1000 on steps + 2 points, last two dropped.

        No such model is published; this is what Diffusers' distilled scheduler does with one stage.
        """
        return self._table(np.linspace(1.0, 1 / self.num_train_timesteps, steps + 2)).without_last(2)

    def noise_table(self, level: int = 0) -> NoiseTable:
        """The 1000 entries that stage-1 training and the scores of stage 3 draw from: sigma 1, 0.999 ... 0.001."""
        return self._table(1.0 - np.arange(self.num_train_timesteps) / self.num_train_timesteps)

    def _table(self, sigmas: np.ndarray) -> NoiseTable:
        timesteps = sigmas * self.num_train_timesteps
        return NoiseTable(
            sigmas=tuple(sigmas.tolist()),
            timesteps=tuple(timesteps.tolist()),
            low_timestep=0.0,
            high_timestep=float(self.num_train_timesteps),
        )


@dataclass(frozen=True, kw_only=True)
class PyramidStages:
    """Two or more levels, coarse to fine, each at twice the height and width of the one before.

    Args:
        stage_range: borders of the levels as fractions of the whole flow, from 0 to 1, levels + 1 of them.
        gamma: strength of the block noise: correlation -gamma between the four pixels of a 2x2 block, at most 1/3.
        num_train_timesteps: entries of a training table.
        table_shift: static shift of the global sigma table that the borders are read from; 1 is none.
    Raises: InputError for borders that do not rise from 0 to 1 or numbers out of range.
    """

    stage_range: tuple[float, ...] = (0.0, 1 / 3, 2 / 3, 1.0)
    gamma: float = 1 / 3
    num_train_timesteps: int = TRAIN_TIMESTEPS
    table_shift: float = 1.0

    def __post_init__(self):
        _check_train_timesteps(self.num_train_timesteps)
        if not 0 < self.gamma <= 1 / 3:
            raise InputError(f"gamma={self.gamma} makes no valid block noise: it must be above 0 and at most 1/3")
        if not (math.isfinite(self.table_shift) and self.table_shift > 0):
            raise InputError(f"shift={self.table_shift} turns the schedule around: pass a positive number (1 is none)")
        borders, rising = self.stage_range, all(a < b for a, b in pairwise(self._borders))
        if len(borders) < 3 or borders[0] != 0 or borders[-1] != 1 or not rising:
            raise InputError(
                f"stage_range={list(borders)} must rise from 0 to 1 over two or more levels, for example [0, 0.5, 1]"
            )

    @property
    def levels(self) -> int:
        return len(self.stage_range) - 1

    def stage(self, level: int) -> Stage:
        """Constants of a level; 0 is the coarsest."""
        return self._stages[level]

    def grid(self, level: int, steps: int) -> NoiseTable:
        """``steps`` points, evenly spaced from the level's first table entry to its last, both included."""
        stage = self._stages[level]
        last_sigma = FIRST_SIGMA / self.num_train_timesteps
        return NoiseTable(
            sigmas=tuple(np.linspace(FIRST_SIGMA, last_sigma, steps).tolist()),
            timesteps=tuple(np.linspace(stage.first_timestep, stage.last_timestep, steps).tolist()),
            low_timestep=stage.last_timestep,
            high_timestep=stage.first_timestep,
        )

    def distilled_grid(self, level: int, steps: int) -> NoiseTable:
        """``steps`` points of a distilled model: the even grid of one point more, without its last."""
        return self.grid(level, steps + 1).without_last()

    def noise_table(self, level: int) -> NoiseTable:
        """The 1000 (in-level sigma, timestep) entries that stage-2 training draws from; sigma 0.999 ... 0.000999."""
        return self.grid(level, self.num_train_timesteps)

    def global_sigma(self, index: int) -> float:
        """Entry of the global table, 0.999 * (1 - index / 1000), under the table's own shift."""
        count = self.num_train_timesteps
        return shift_sigma((1 - 1 / count) * (count - index) / count, self.table_shift)

    @cached_property
    def fractions(self) -> tuple[float, ...]:
        """Borders of the levels' shares of the time axis: each level gets a share as long as its flow."""
        lengths = [start - end for _, start, end in self._sigmas]
        inner = [sum(lengths[:level]) / sum(lengths) for level in range(1, self.levels)]
        return (0.0, *inner, 1.0)

    @property
    def _borders(self) -> list[int]:
        return [int(fraction * self.num_train_timesteps) for fraction in self.stage_range]

    @cached_property
    def _sigmas(self) -> tuple[tuple[float, float, float], ...]:
        """(original start, start, end) of each level."""
        originals = [self.global_sigma(index) for index in self._borders[:-1]]
        starts = [originals[0], *(1 - (1 - sigma) * self._alpha(sigma) for sigma in originals[1:])]
        return tuple(zip(originals, starts, [*originals[1:], 0.0]))

    @cached_property
    def _stages(self) -> tuple[Stage, ...]:
        return tuple(self._make_stage(level) for level in range(self.levels))

    def _make_stage(self, level: int) -> Stage:
        original, start, end = self._sigmas[level]
        first, lower = self._time_bound(self.fractions[level]), self._time_bound(self.fractions[level + 1])
        first = min(first, HIGHEST_TIMESTEP)
        alpha = self._alpha(original) if level else 1.0
        return Stage(
            original_start=original,
            start=start,
            end=end,
            first_timestep=first,
            last_timestep=first + (lower - first) * (self.num_train_timesteps - 1) / self.num_train_timesteps,
            alpha=alpha,
            beta=alpha * original / math.sqrt(self.gamma) if level else 0.0,
        )

    def _time_bound(self, fraction: float) -> float:
        index = min(int(fraction * self.num_train_timesteps), self.num_train_timesteps - 1)
        return self.num_train_timesteps * self.global_sigma(index)

    def _alpha(self, original_start: float) -> float:
        """Signal kept by the transition: with it the sum of enlarged noise and block noise is white."""
        return 1 / (math.sqrt(1 + 1 / self.gamma) * original_start + (1 - original_start))


def _check_train_timesteps(count: int) -> None:
    if not 2 <= count <= TRAIN_TIMESTEPS:
        raise InputError(f"num_train_timesteps={count} does not fit the time embedding: use {TRAIN_TIMESTEPS}")
