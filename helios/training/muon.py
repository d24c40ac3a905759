"""Muon: momentum whose update is the nearest matrix with orthonormal rows or columns (Jordan et al. 2024).

PyTorch's own takes matrices only; here convolutions count as matrices of (outputs, everything else).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

_EMBEDDINGS = ("embed_tokens", "shared", "relative_attention_bias", "scale_shift_table")
_NARROWEST = 8


class Muon(torch.optim.Optimizer):
    """Two groups of parameters: matrices, and the rest, which another optimiser moves.

    Args:
        trainables: by name; embeddings and everything narrower than 8 belong to the rest.
        rest: makes the optimiser of the rest.
    """

    def __init__(
        self,
        trainables: Mapping[str, nn.Parameter],
        rest: Callable[[Mapping[str, nn.Parameter]], torch.optim.Optimizer],
    ):
        matrices = {name: p for name, p in trainables.items() if is_matrix(name, p)}
        others = {name: p for name, p in trainables.items() if name not in matrices}
        super().__init__([{"params": list(matrices.values())}], {"lr": 0.0, "momentum": 0.95, "weight_decay": 0.0})
        self._rest = rest(others) if others else None
        if self._rest is not None:
            self._rest.state = self.state
            self.param_groups += self._rest.param_groups

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of everything that has a gradient."""
        group = self.param_groups[0]
        for parameter in group["params"]:
            if parameter.grad is not None:
                self._move(parameter, group)
        if self._rest is not None:
            self._rest.step()

    def _move(self, parameter: nn.Parameter, group: dict) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        if "average" not in state:
            state["average"] = torch.zeros_like(parameter)
        state["average"].lerp_(gradient, 1 - group["momentum"])
        update = orthogonalised(gradient.lerp(state["average"], group["momentum"]).flatten(1))
        tall = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update.view_as(parameter), alpha=-group["lr"] * tall)


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon moves it."""
    narrow = parameter.ndim < 2 or min(parameter.flatten(1).shape) < _NARROWEST
    return not narrow and not any(part in name.split(".") for part in _EMBEDDINGS)


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """Singular values brought near 1 (0.7 to 1.2) by a Newton-Schulz iteration of fifth order."""
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = 3.4445 * x + (2.0315 * square @ square - 4.7750 * square) @ x
    return x if wide else x.T
