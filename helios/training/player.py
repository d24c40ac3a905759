"""A network in training: its module, what of it is trained, how, and its moving average."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import nn

from helios.errors import InputError
from helios.training.ema import Ema, MovingAverage, NoEma
from helios.training.optim import AnyOptim


@dataclass(kw_only=True)
class Player:
    """One network that an optimiser moves. Distillation has two: the student and its critic.

    Args:
        name: of the network; part of checkpoint keys and of the names of curves.
        module: the network (or several in a ``ModuleDict``).
        trainables: the parameters that are trained, by their name in the module.
        optim: their optimiser.
        ema: moving average of them.
        first_steps: of trainables that no loss reaches before a later step: that step.
    Attributes:
        updates: optimiser updates so far.
    """

    name: str
    module: nn.Module
    trainables: dict[str, nn.Parameter]
    optim: AnyOptim
    ema: Ema | NoEma = NoEma()
    first_steps: Mapping[str, int] = field(default_factory=dict)
    updates: int = 0
    optimizer: torch.optim.Optimizer | None = field(default=None, repr=False)
    average: MovingAverage | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.trainables:
            raise InputError(f"nothing of the {self.name} is trained: choose full training or an adapter")

    def begin(self) -> None:
        """Make optimiser and average; call it once the weights are where they stay (sharded, on their device)."""
        self.optimizer = self.optim.build(self.trainables)
        if isinstance(self.ema, Ema):
            self.average = MovingAverage(self.ema, self.trainables)

    def refresh(self) -> None:
        """Look the trainable parameters up again by name, after sharding has replaced them."""
        current = dict(self.module.named_parameters())
        self.trainables = {name: current[name] for name in self.trainables}

    def averaged(self) -> AbstractContextManager[None]:
        """The module with averaged weights inside the block; as it is, without an average."""
        return self.average.swapped_in(self.trainables) if self.average else nullcontext()


def parameters_of(module: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter of a module that wants a gradient, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
