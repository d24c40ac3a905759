"""The smallest method there is: a line through points. It makes every path of the trainer run in milliseconds."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from helios.training.ema import Ema, NoEma
from helios.training.optim import OptimConfig
from helios.training.player import Player, parameters_of
from helios.training.seeds import Draws, Purpose


@dataclass(frozen=True)
class Points:
    """Numbered points; the number is the data."""

    count: int = 64

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> float:
        return index / self.count

    def buckets(self) -> list[object]:
        return [0] * self.count


class LineMethod:
    """Fit ``y = 2 x + noise`` with a small network; ``bad_step`` makes the loss not finite there."""

    def __init__(self, *, ema: Ema | NoEma = NoEma(), bad_step: int | None = None, unused: bool = False):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        if unused:
            module.register_parameter("unused", nn.Parameter(torch.ones(3)))
        self.players = (
            Player(name="line", module=module, trainables=parameters_of(module), optim=OptimConfig(lr=1e-2), ema=ema),
        )
        self.bad_step = bad_step

    def turns(self, step: int) -> tuple[str, ...]:
        return ("line",)

    def backward(self, player: str, items: list[float], draws: Draws, scale: float) -> dict[str, Tensor]:
        x_B1 = torch.tensor(items)[:, None]
        y_B1 = 2 * x_B1 + 0.1 * draws.normal(Purpose.NOISE, 1)
        loss = (self.players[0].module(x_B1) - y_B1).square().mean()
        if draws.step == self.bad_step:
            loss = loss * float("nan")
        (loss * scale).backward()
        return {"loss": loss.detach()}
