"""Random numbers of training, addressed by (seed, step, sample, purpose) instead of drawn in turn.

The address of a sample is its place in the *global* batch. So every rank and every sample has draws of its own, one
device and eight give the same numbers, and a resumed run needs no generator state: the step is the state. What steers
control flow (exit indices, number of chunks) is drawn without a sample in its address and is equal on all ranks
(the published code seeds all ranks alike, so that a global batch of 128 holds two noise levels and one task).

B samples of the micro-batch.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from helios.errors import InputError
from helios.noise import Address
from helios.schedulers.renoise import block_noise_closed_form

_NO_SAMPLE = (1 << 64) - 1


class Purpose(IntEnum):
    """What a draw is for. Part of its address: renumbering makes old runs resume with other numbers."""

    ORDER = 0
    CHUNK = 1
    BRANCH = 2
    TRUNCATION = 3
    STILL = 4
    CORRUPTION_MODE = 5
    CORRUPTION_SIGMA = 6
    CORRUPTION_NOISE = 7
    DOWNSAMPLE = 8
    SATURATION = 9
    SIGMA = 10
    NOISE = 11
    ROLLOUT = 12
    EXIT = 13
    SCORE_TIME = 14
    SCORE_NOISE = 15
    CROP = 16
    REAL_NOISE = 17
    PERTURBATION = 18
    ODE_CHUNKS = 19
    ODE_STATE = 20
    POSTERIOR = 21
    CAPTION = 22
    DROPOUT = 23
    COARSE = 24
    FRAMES = 25


@dataclass(frozen=True)
class Draws:
    """The random numbers of one micro-batch.

    Args:
        seed: of the run.
        step: optimisation step; with it every draw changes.
        samples: place of each sample of the micro-batch in the global batch.
        stream: tells several uses of the same purpose in one step apart (primary and secondary selection of
            distillation, draws of the same level).
    """

    seed: int
    step: int
    samples: tuple[int, ...]
    stream: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 64:
            raise InputError(f"seed={self.seed} is out of range: use 0 to 2**64 - 1")

    def on(self, stream: int) -> "Draws":
        """The same samples, other numbers."""
        return replace(self, stream=stream)

    def uniform(self, purpose: Purpose, *shape: int, index: int = 0) -> Tensor:
        """[B, *shape] in [0, 1), float64 on the host. ``index`` tells several draws of one purpose apart."""
        return torch.from_numpy(np.stack([self._of(purpose, s, index).random(shape) for s in self.samples]))

    def normal(self, purpose: Purpose, *shape: int, index: int = 0) -> Tensor:
        """[B, *shape] standard normal, float32 on the host."""
        draws = [self._of(purpose, s, index).standard_normal(shape, dtype=np.float32) for s in self.samples]
        return torch.from_numpy(np.stack(draws))

    def below(self, purpose: Purpose, limits: list[int] | tuple[int, ...]) -> list[int]:
        """One whole number in [0, limit) per sample."""
        return [int(self._of(purpose, s).integers(limit)) for s, limit in zip(self.samples, limits, strict=True)]

    def generators(self, purpose: Purpose) -> list[np.random.Generator]:
        """A generator per sample, for draws that need several kinds of numbers."""
        return [self._of(purpose, sample) for sample in self.samples]

    def together(self, purpose: Purpose) -> np.random.Generator:
        """One generator for the whole micro-batch, as the published code draws its modes and branches."""
        return self._of(purpose, self.samples[0])

    def synchronous(self, purpose: Purpose) -> np.random.Generator:
        """A generator that is equal on every rank and for every micro-batch: for control flow."""
        return self._of(purpose, _NO_SAMPLE)

    def _of(self, purpose: Purpose, sample: int, index: int = 0) -> np.random.Generator:
        # The lowest counter word is the generator's own and runs within a draw.
        key = np.array([self.seed, (self.stream << 32) | purpose], dtype=np.uint64)
        counter = np.array([0, index, sample, self.step], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))


@dataclass(frozen=True)
class RolloutNoise:
    """Training draws as the noise source of :mod:`helios.sampling`: one video per sample of the micro-batch."""

    draws: Draws

    def normal(self, address: Address, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers for an address of the rollout."""
        return self.draws.normal(Purpose.ROLLOUT, *shape[1:], index=self._index(address))

    def uniform(self, address: Address, count: int, low: float, high: float) -> Tensor:
        """[B, count] numbers in [low, high)."""
        unit = self.draws.uniform(Purpose.ROLLOUT, count, index=self._index(address))
        return unit.float() * (high - low) + low

    def block(self, address: Address, shape: tuple[int, ...], gamma: float) -> Tensor:
        """Noise that joins two pyramid levels."""
        return block_noise_closed_form(self.normal(address, shape), gamma)

    @staticmethod
    def _index(address: Address) -> int:
        return (address.chunk << 16) | (address.level << 8) | address.purpose
