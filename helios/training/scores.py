"""The two scores of distribution matching: the teacher's (frozen) and the critic's (it follows the student).

B batch, C channels, T latent frames, H W latent height and width, S text tokens, E width of the text encoder.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from helios.models.transformer.context import HistoryLatents
from helios.training.adapt import without_adapters
from helios.training.network import Network


class Scores(Protocol):
    """Velocities at a noisy full-resolution chunk, under one shared condition.

    Attributes:
        fake: the critic's network.
    """

    fake: Network

    def real_velocity(self, x_BCTHW: Tensor, timestep_B: Tensor, text_BSE: Tensor, streams: HistoryLatents) -> Tensor:
        """The teacher's, without gradients."""
        ...

    def fake_velocity(self, x_BCTHW: Tensor, timestep_B: Tensor, text_BSE: Tensor, streams: HistoryLatents) -> Tensor:
        """The critic's, with gradients where they are switched on."""
        ...


@dataclass(frozen=True, kw_only=True)
class SharedScores:
    """One dense model for both: the critic is the teacher with an adapter, and the teacher is the critic without it.

    Args:
        fake: the network with the critic's adapter. It must never be merged.
    """

    fake: Network

    def real_velocity(self, x_BCTHW: Tensor, timestep_B: Tensor, text_BSE: Tensor, streams: HistoryLatents) -> Tensor:
        """See :class:`Scores`."""
        with torch.no_grad(), without_adapters(self.fake.module):
            return predict(self.fake, x_BCTHW, timestep_B, text_BSE, streams)

    def fake_velocity(self, x_BCTHW: Tensor, timestep_B: Tensor, text_BSE: Tensor, streams: HistoryLatents) -> Tensor:
        """See :class:`Scores`."""
        return predict(self.fake, x_BCTHW, timestep_B, text_BSE, streams)


@dataclass(frozen=True, kw_only=True)
class SeparateScores:
    """Two dense models: for small ones, where the critic can be trained in full.

    Args:
        real: the teacher, Base.
        fake: the critic, which starts as a copy of it.
    """

    real: Network
    fake: Network

    def real_velocity(self, x_BCTHW: Tensor, timestep_B: Tensor, text_BSE: Tensor, streams: HistoryLatents) -> Tensor:
        """See :class:`Scores`."""
        with torch.no_grad():
            return predict(self.real, x_BCTHW, timestep_B, text_BSE, streams)

    def fake_velocity(self, x_BCTHW: Tensor, timestep_B: Tensor, text_BSE: Tensor, streams: HistoryLatents) -> Tensor:
        """See :class:`Scores`."""
        return predict(self.fake, x_BCTHW, timestep_B, text_BSE, streams)


def predict(network: Network, x_BCTHW: Tensor, timestep_B: Tensor, text_BSE: Tensor, streams: HistoryLatents) -> Tensor:
    """Velocity of a network for a condition that is not encoded yet."""
    text, history = network.encode_text(text_BSE), network.encode_history(streams)
    return network.velocity(x_BCTHW, timestep_B, text, history)
