"""What the trainer asks of a method."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from helios.errors import InputError
from helios.training.player import Player
from helios.training.seeds import Draws

Numbers = Mapping[str, Tensor]


class Method(Protocol):
    """One way of training: its networks, who moves when, and the losses.

    Attributes:
        players: every network that is trained.
    """

    players: tuple[Player, ...]

    def turns(self, step: int) -> tuple[str, ...]:
        """Names of the players that move in a step, in order."""
        ...

    def backward(self, player: str, items: Sequence[Any], draws: Draws, scale: float) -> Numbers:
        """Add this micro-batch's gradient to a player's parameters.

        Args:
            player: who moves. Gradients that reach other players are thrown away.
            items: the clips of the micro-batch.
            draws: its random numbers.
            scale: multiply every loss by this before its backward pass (1 / accumulated micro-batches).
        Returns: numbers for the curves, among them ``loss``: scalars without graph, not multiplied by ``scale``.
        """
        ...


def checked_share(**named: float) -> float:
    """The one share that is given by name, when it is one.

    Raises: InputError otherwise.
    """
    ((name, share),) = named.items()
    if not 0 <= share <= 1:
        raise InputError(f"{name}={share} is not a share of steps: use 0 to 1")
    return share
