"""Rounding linear layers of a transformer to 8-bit floats: of a loaded one, or weight by weight while it loads.

D output width, E input width.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from helios.models.transformer.layers import Fp8Linear, Linear

_EXACT_AT_EACH_END = 3


def rounded_weights(shapes: Mapping[str, Sequence[int]], layers: int) -> set[str]:
    """Names of the weights that are rounded: linear layers of the inner blocks, of widths that float8 units take.

    The first three blocks and the last three stay exact, of fewer than twelve a quarter at each end, rounded down.

    Args:
        shapes: of all weights of the transformer.
        layers: number of its blocks.
    """
    exact = min(_EXACT_AT_EACH_END, layers // 4)
    inner = {f"blocks.{index}." for index in range(exact, layers - exact)}
    return {
        name
        for name, shape in shapes.items()
        if name.endswith(".weight")
        and len(shape) == 2
        and not any(width % 16 for width in shape)
        and name[: name.find(".", len("blocks.")) + 1] in inner
    }


class Rounding:
    """Replaces layers of one transformer as their exact weights come, and adds up what that costs the weights.

    Args:
        model: its layers may be without weights yet; adapters around a layer stay.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
        known = rounded_weights(shapes, len(model.blocks))
        self.names = frozenset(name for name in known if type(model.get_submodule(_layer(name))) is Linear)
        self._lost, self._whole = 0.0, 0.0

    @torch.no_grad()
    def take(self, name: str, weight_DE: Tensor) -> None:
        """Put a rounded layer in the place of the exact one whose weight has that name."""
        exact = self._model.get_submodule(_layer(name))
        rounded = Fp8Linear(weight_DE, exact.bias)
        parent, _, child = _layer(name).rpartition(".")
        setattr(self._model.get_submodule(parent), child, rounded)
        self._lost += float((rounded.weight_DE.float() * rounded.scale_D1 - weight_DE.float()).square().sum())
        self._whole += float(weight_DE.float().square().sum())

    def take_all(self) -> None:
        """Round a model that has its weights."""
        for name in self.names:
            self.take(name, self._model.get_parameter(name))

    @property
    def relative_error(self) -> float:
        """Of all rounded weights together, root mean square; 0 when there are none."""
        return (self._lost / self._whole) ** 0.5 if self._whole else 0.0


def _layer(name: str) -> str:
    return name.removesuffix(".weight")
