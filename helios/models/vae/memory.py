"""What a causal layer remembers of the frames before the ones it is given.

The Wan VAE is causal in time: every layer sees the past and never the future. Decoding a whole chunk at once needs no
memory; decoding it in parts needs, per causal layer, its last input frames. Both give the same pixels.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from helios.ops.conv3d import empty_video


class CausalMemory(Protocol):
    """Past input frames per layer."""

    def past(self, layer: nn.Module) -> Tensor | None:
        """The frames before this call's, or None when there are none (the layer then sees zeros)."""

    def window(self, layer: nn.Module, x_BCTHW: Tensor, frames: int) -> Tensor:
        """Room for ``x`` behind ``frames`` past frames, which are filled in; may be reused by the next call."""

    def keep(self, layer: nn.Module, window_BCTHW: Tensor, frames: int) -> None:
        """Remember the last ``frames`` frames of what a layer saw, past included."""

    @property
    def started(self) -> bool:
        """True when earlier parts went through, so that the next frame is not the first of its chunk."""


class NoMemory:
    """The call holds a whole chunk: nothing came before and nothing follows."""

    started = False

    def __init__(self):
        self._scratch = Scratch(sizes=1)

    def past(self, layer: nn.Module) -> None:
        return None

    def window(self, layer: nn.Module, x_BCTHW: Tensor, frames: int) -> Tensor:
        window = self._scratch.take(x_BCTHW, frames + x_BCTHW.shape[2])
        window[:, :, :frames] = 0.0
        return window

    def keep(self, layer: nn.Module, window_BCTHW: Tensor, frames: int) -> None:
        pass


class StreamMemory:
    """One chunk in several calls. Holds copies, so that no part's activations stay alive through it.

    State: the last input frames of each causal layer, and whether a part has been finished (:meth:`finish_part`).
    """

    def __init__(self):
        self.started = False
        self._frames: dict[nn.Module, Tensor] = {}
        self._scratch = Scratch(sizes=16)  # a part's windows are small: keep one for every depth

    def past(self, layer: nn.Module) -> Tensor | None:
        return self._frames.get(layer)

    def window(self, layer: nn.Module, x_BCTHW: Tensor, frames: int) -> Tensor:
        window = self._scratch.take(x_BCTHW, frames + x_BCTHW.shape[2])
        window[:, :, :frames] = self._frames.get(layer, 0.0)
        return window

    def keep(self, layer: nn.Module, window_BCTHW: Tensor, frames: int) -> None:
        if frames:
            self._frames[layer] = window_BCTHW[:, :, window_BCTHW.shape[2] - frames :].clone()

    def finish_part(self) -> None:
        self.started = True


class Scratch:
    """Buffers that windows of the same size share, one after the other; a new one each time gradients are recorded.

    On CPUs most of the cost of a large new tensor is the operating system handing out its pages.

    Args:
        sizes: how many sizes to hold on to; the one used longest ago goes first.
    """

    def __init__(self, *, sizes: int):
        self._sizes = sizes
        self._buffers: dict[tuple[int, ...], Tensor] = {}

    def take(self, like_BCTHW: Tensor, frames: int) -> Tensor:
        """Uninitialised channels-last tensor with ``frames`` frames, otherwise as ``like``."""
        if torch.is_grad_enabled():
            return empty_video(like_BCTHW, frames)
        key = (frames, *like_BCTHW.shape)
        buffer = self._buffers.pop(key, None)
        if buffer is None:
            while len(self._buffers) >= self._sizes:
                del self._buffers[next(iter(self._buffers))]
            buffer = empty_video(like_BCTHW, frames)
        self._buffers[key] = buffer
        return buffer
