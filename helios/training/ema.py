"""A moving average of the trained weights, in float32, of what is trained and nothing else.

Under LoRA that is the adapter alone: an average of merged weights would hold eleven times as much and be the same model.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from helios.errors import InputError


@dataclass(frozen=True, kw_only=True)
class NoEma:
    """The weights as they are."""


@dataclass(frozen=True, kw_only=True)
class Ema:
    """An exponential moving average that begins late and slowly.

        average <- weights                              while updates <= start
        average <- d * average + (1 - d) * weights      d = min((1 + m) / (10 + m), decay), m averages since then

    Args:
        decay: the largest d.
        start: updates during which the average just follows.
    """

    decay: float = 0.99
    start: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.decay < 1 and self.start >= 0):
            raise InputError(f"ema decay={self.decay} must be in [0, 1) and start={self.start} not negative")

    def decay_at(self, update: int) -> float:
        """The d of update number ``update`` (from 1)."""
        averaged = update - self.start
        return 0.0 if averaged <= 0 else min((1 + averaged) / (10 + averaged), self.decay)


class MovingAverage:
    """The average itself: one float32 tensor per trained parameter, sharded as the parameter is."""

    def __init__(self, config: Ema, parameters: Mapping[str, nn.Parameter]):
        self.config = config
        self.updates = 0
        self.shadow: dict[str, Tensor] = {name: p.detach().float().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Take in the weights after an update of the optimiser."""
        self.updates += 1
        weight = 1 - self.config.decay_at(self.updates)
        for name, parameter in parameters.items():
            self.shadow[name].lerp_(parameter.detach().float(), weight)

    @contextmanager
    def swapped_in(self, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
        """The model holds the average inside the block, and its own weights again after it, whatever happens."""
        kept = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        try:
            self._copy(self.shadow, parameters)
            yield
        finally:
            self._copy(kept, parameters)

    @staticmethod
    @torch.no_grad()
    def _copy(values: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
        for name, parameter in parameters.items():
            parameter.copy_(values[name])
