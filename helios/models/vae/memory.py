"""What a causal layer remembers of the frames before the ones it is given.

The Wan VAE is causal in time: every layer sees the past and never the future. Decoding a whole chunk at once needs no
memory; decoding it in parts needs, per causal layer, its last input frames. Both give the same pixels.
"""

from typing import Protocol

from torch import Tensor, nn


class CausalMemory(Protocol):
    """Past input frames per layer."""

    def past(self, layer: nn.Module) -> Tensor | None:
        """The frames before this call's, or None when there are none (the layer then sees zeros)."""

    def keep(self, layer: nn.Module, window_BCTHW: Tensor, frames: int) -> None:
        """Remember the last ``frames`` frames of what a layer saw, past included."""

    @property
    def started(self) -> bool:
        """True when earlier parts went through, so that the next frame is not the first of its chunk."""


class NoMemory:
    """The call holds a whole chunk: nothing came before and nothing follows."""

    started = False

    def past(self, layer: nn.Module) -> None:
        return None

    def keep(self, layer: nn.Module, window_BCTHW: Tensor, frames: int) -> None:
        pass


class StreamMemory:
    """One chunk in several calls. Holds copies, so that no part's activations stay alive through it.

    State: the last input frames of each causal layer, and whether a part has been finished (:meth:`finish_part`).
    """

    def __init__(self):
        self.started = False
        self._frames: dict[nn.Module, Tensor] = {}

    def past(self, layer: nn.Module) -> Tensor | None:
        return self._frames.get(layer)

    def keep(self, layer: nn.Module, window_BCTHW: Tensor, frames: int) -> None:
        self._frames[layer] = window_BCTHW[:, :, window_BCTHW.shape[2] - frames :].clone()

    def finish_part(self) -> None:
        self.started = True
