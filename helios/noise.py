"""Where random numbers come from.

:class:`AddressedNoise` gives every draw an address, so that chunk 40 reproduces without replaying the 39 before it and
a video does not depend on the batch it was made in, on the device, or on what stays in memory. :class:`ReferenceNoise`
draws from one ``torch.Generator`` in the order of the published pipelines, for parity with them.

All draws are float32 on the host; the caller moves them. B batch, C channels, T latent frames, H W latent height, width.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from helios.errors import InputError
from helios.schedulers.renoise import block_noise_cholesky, block_noise_closed_form


class Purpose(IntEnum):
    """What a draw is for. Part of its address: never renumber, or old seeds make other videos."""

    CHUNK = 0
    BLOCK = 1
    ANCHOR_POSTERIOR = 2
    HISTORY_POSTERIOR = 3
    ANCHOR_SIGMA = 4
    ANCHOR_NOISE = 5
    HISTORY_SIGMA = 6
    HISTORY_NOISE = 7


@dataclass(frozen=True)
class Address:
    """The place of a draw in a video: its purpose, the chunk and the pyramid level."""

    purpose: Purpose
    chunk: int = 0
    level: int = 0


class NoiseSource(Protocol):
    """Standard normal and uniform numbers for the addresses of a batch of videos."""

    def normal(self, address: Address, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers of ``shape`` (its first axis is the batch), float32 on the host."""
        ...

    def uniform(self, address: Address, count: int, low: float, high: float) -> Tensor:
        """[B or 1, count] numbers in [low, high), float32 on the host."""
        ...

    def block(self, address: Address, shape: tuple[int, ...], gamma: float) -> Tensor:
        """Noise [B, C, T, H, W] that is correlated by -gamma inside 2x2 blocks and independent across them."""
        ...


@dataclass(frozen=True)
class AddressedNoise:
    """Counter-based noise (Philox) keyed by seed, purpose, chunk and level.

    Args:
        seeds: one per video of the batch, each in [0, 2**64).
    """

    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        for seed in self.seeds:
            if not 0 <= seed < 1 << 64:
                raise InputError(f"seed={seed} is out of range: use 0 to 2**64 - 1")

    def normal(self, address: Address, shape: tuple[int, ...]) -> Tensor:
        self._check_batch(shape)
        draws = [self._generator(seed, address).standard_normal(shape[1:], dtype=np.float32) for seed in self.seeds]
        return torch.from_numpy(np.stack(draws))

    def uniform(self, address: Address, count: int, low: float, high: float) -> Tensor:
        draws = np.stack([self._generator(seed, address).random(count, dtype=np.float32) for seed in self.seeds])
        return torch.from_numpy(draws) * (high - low) + low

    def block(self, address: Address, shape: tuple[int, ...], gamma: float) -> Tensor:
        return block_noise_closed_form(self.normal(address, shape), gamma)

    def _check_batch(self, shape: tuple[int, ...]) -> None:
        if shape[0] != len(self.seeds):
            raise ValueError(f"a batch of {shape[0]} videos needs as many seeds, got {len(self.seeds)}")

    @staticmethod
    def _generator(seed: int, address: Address) -> np.random.Generator:
        # The lowest counter word is the generator's own and runs within a draw.
        counter = np.array([0, address.level, address.chunk, address.purpose], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=np.array([seed, 0], dtype=np.uint64), counter=counter))


@dataclass(frozen=True)
class ReferenceNoise:
    """The published pipelines' order of draws from one generator; addresses are ignored, so it cannot skip or resume."""

    generator: torch.Generator

    def normal(self, address: Address, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.generator.device).cpu()

    def uniform(self, address: Address, count: int, low: float, high: float) -> Tensor:
        draws = torch.rand(count, generator=self.generator, device=self.generator.device).cpu()
        return (draws * (high - low) + low)[None]

    def block(self, address: Address, shape: tuple[int, ...], gamma: float) -> Tensor:
        rows = int(np.prod(shape)) // 4
        return block_noise_cholesky(self.normal(address, (rows, 4)), shape, gamma)
