"""One solver per way of walking a level's sigmas from noise to the level's end.

All coefficients are Python floats (float64) that the constructor computes on the host. The tensors are float32 on
whatever device they come on: nothing here waits for the device, needs float64 there, or changes a tensor in place, so
the same steps run inside a captured graph and under autograd.

A solver lives for one level of one chunk; multistep memory never crosses a level.
"""

import math
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from helios.errors import InputError
from helios.schedulers.tables import LevelSchedule, nearest_index

LOWEST_SIGMA = 1e-8  # stands in for a sigma of 0 under the logarithm; the published value


class Solver(Protocol):
    """Takes the network's velocity at a point and returns the next point."""

    def step(self, index: int, velocity: Tensor, x: Tensor) -> Tensor:
        """Go from point ``index`` of the schedule to the one after it.

        Args:
            index: 0 for the first step.
            velocity: the network's output at ``x``, any float dtype.
            x: the latents the network saw, as the step before returned them.
        Returns: the latents at the next point, float32, of the shape of ``x``.
        """
        ...


class EulerSolver:
    """``x <- x + (sigma_next - sigma) * velocity``."""

    def __init__(self, schedule: LevelSchedule):
        self.schedule = schedule
        self._strides = [after - before for before, after in pairwise(schedule.sigmas)]

    def step(self, index: int, velocity: Tensor, x: Tensor) -> Tensor:
        """See :class:`Solver`."""
        return x.float() + self._strides[index] * velocity.float()


class UniPCSolver:
    """Predictor and corrector of order 2 (UniPC, Zhao et al. 2023; B(h) = expm1(-h), "bh2"; predicts the clean end).

    Each step turns the velocity into an estimate ``m = x - sigma * velocity`` of the level's end, corrects the point it
    stands on with that estimate, and predicts the next point from the corrected one. The first and the last step are
    of order 1. Steps must be taken in order, from 0, each once.

    Raises: InputError when the first sigma is not below 1 (the half log-SNR is infinite there).
    """

    def __init__(self, schedule: LevelSchedule):
        if schedule.sigmas[0] >= 1:
            raise InputError(f"UniPC cannot start at sigma {schedule.sigmas[0]}: use a smaller shift or another solver")
        self.schedule = schedule
        self._moves = _unipc_moves(schedule.sigmas)
        self._next_index = 0
        self._x: Tensor | None = None  # corrected latents of the step before
        self._ends: list[Tensor] = []  # estimates of the level's end by the one or two steps before, newest last

    def step(self, index: int, velocity: Tensor, x: Tensor) -> Tensor:
        """See :class:`Solver`.

        Raises: ValueError when a step is skipped or repeated.
        """
        if index != self._next_index:
            raise ValueError(f"step {index} out of turn: UniPC expects step {self._next_index}")
        x = x.float()
        end = x - self.schedule.sigmas[index] * velocity.float()
        corrector, predictor = self._moves[index]
        if corrector is not None and self._x is not None:
            x = corrector.apply(self._x, self._ends, end)
        self._x, self._ends, self._next_index = x, [*self._ends[-1:], end], index + 1
        return predictor.apply(x, self._ends)


class DistilledSolver:
    """Jumps to the level's end and goes back up to the next sigma with the noise the level started from.

        x0 = x - sigma * velocity;    x <- (1 - sigma_next) * x0 + sigma_next * start;    the last step returns x0

    ``x0`` is the end of the *level*, which is partly noisy on all levels but the last. No fresh noise is drawn. As in
    the published code, a sigma is the entry whose timestep lies closest to the step's timestep cut to an integer;
    with many steps close together that can be a neighbour of the step's own sigma.

    Args:
        schedule: the level's points.
        start: the level's first latents (downsampled noise, or what the transition made), [B, C, T, H, W].
    """

    def __init__(self, schedule: LevelSchedule, start: Tensor):
        self.schedule = schedule
        self._start = start.float()
        self._sigmas = [schedule.sigmas[nearest_index(schedule.timesteps, int(t))] for t in schedule.timesteps]

    def step(self, index: int, velocity: Tensor, x: Tensor) -> Tensor:
        """See :class:`Solver`."""
        x0 = self.x0(index, velocity, x)
        return x0 if index == self.schedule.steps - 1 else self.renoise(index, x0)

    def x0(self, index: int, velocity: Tensor, x: Tensor) -> Tensor:
        """The end of the level as seen from point ``index``; float32."""
        return x.float() - self._sigmas[index] * velocity.float()

    def renoise(self, index: int, x0: Tensor) -> Tensor:
        """Back from the level's end to the point after ``index``, which must not be the last; float32."""
        sigma = self._sigmas[index + 1]
        return (1 - sigma) * x0.float() + sigma * self._start


@dataclass(frozen=True, kw_only=True)
class _Move:
    """From one point to the next: exact for a constant estimate of the level's end, bent by how the estimate changes.

        keep * x + clean * (m + old * (m_before - m) / ratio + new * (m_there - m))

    The old term is there at order 2, the new one in the corrector. Products are formed in the published order, which
    makes float32 results on the CPU equal to Diffusers' bit for bit.
    """

    keep: float
    clean: float
    ratio: float | None
    old: float
    new: float

    def apply(self, x: Tensor, ends: list[Tensor], there: Tensor | None = None) -> Tensor:
        bends = []
        if self.ratio is not None:
            bends.append(self.old * ((ends[-2] - ends[-1]) / self.ratio))
        if there is not None:
            bends.append(self.new * (there - ends[-1]))
        straight = self.keep * x + self.clean * ends[-1]
        return straight + self.clean * reduce(torch.add, bends) if bends else straight


def _unipc_moves(sigmas: tuple[float, ...]) -> list[tuple[_Move | None, _Move]]:
    """Corrector (none at the first step) and predictor of every step."""
    steps = len(sigmas) - 1
    orders = [min(2, steps - index, 1 + index) for index in range(steps)]
    predictors = [_predictor(sigmas, index, order) for index, order in enumerate(orders)]
    correctors = [_corrector(sigmas, index, order) for index, order in enumerate(orders[:-1])]
    return list(zip([None, *correctors], predictors))


def _predictor(sigmas: tuple[float, ...], index: int, order: int) -> _Move:
    """From point ``index`` to the next one, with estimates at ``index`` and, at order 2, the point before."""
    keep, clean, ratio = _exponential_step(sigmas, index)
    return _Move(keep=keep, clean=clean, ratio=ratio if order == 2 else None, old=0.5, new=0.0)


def _corrector(sigmas: tuple[float, ...], index: int, order: int) -> _Move:
    """The same move with the estimate at its end point; weights match the exponential integral to ``order + 1``."""
    keep, clean, ratio = _exponential_step(sigmas, index)
    if order == 1:
        return _Move(keep=keep, clean=clean, ratio=None, old=0.0, new=0.5)
    minus_h = _half_log_snr(sigmas[index]) - _half_log_snr(sigmas[index + 1])
    phi1, phi2, phi3 = (_phi(k, minus_h) for k in (1, 2, 3))
    b1, b2 = phi2 / phi1, 2 * phi3 / phi1
    old = (b1 - b2) / (1 - ratio)  # solves  old + new = b1,  ratio * old + new = b2
    return _Move(keep=keep, clean=clean, ratio=ratio, old=old, new=b1 - old)


def _exponential_step(sigmas: tuple[float, ...], index: int) -> tuple[float, float, float]:
    """(keep, clean, ratio) of the move from ``index`` to the next point.

    ``keep * x + clean * m`` is the exact solution for a constant estimate ``m``; ``ratio`` is the distance to the point
    before over the move's length, both in half log-SNR (negative; 0 when there is no point before).
    """
    here, there = sigmas[index], sigmas[index + 1]
    h = _half_log_snr(there) - _half_log_snr(here)
    ratio = (_half_log_snr(sigmas[index - 1]) - _half_log_snr(here)) / h if index else 0.0
    return _floored(there) / _floored(here), -(1 - there) * math.expm1(-h), ratio


def _phi(k: int, z: float) -> float:
    """``sum of z^n / (n + k)!``, the integrals of an exponential integrator; phi_0 is exp.

    The recursion cancels near 0 (two merged schedules have points that close), the sum does not.
    """
    if abs(z) < 0.5:
        return sum(z**n / math.factorial(n + k) for n in range(18))
    if k == 1:
        return math.expm1(z) / z
    return (_phi(k - 1, z) - 1 / math.factorial(k - 1)) / z


def _half_log_snr(sigma: float) -> float:
    return math.log(1 - sigma) - math.log(_floored(sigma))


def _floored(sigma: float) -> float:
    return max(sigma, LOWEST_SIGMA)
