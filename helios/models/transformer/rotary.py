"""Rotary tables of the streams, kept while their grid stays the same.

B batch, L tokens, P rotated pairs, T frames.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from helios.ops.rope import rotary_table

Frames = tuple[int, ...] | Tensor


class Positions(Protocol):
    """Time positions of the history streams and of the chunk, for example :class:`helios.shapes.FramePositions`."""

    @property
    def long(self) -> Frames: ...

    @property
    def mid(self) -> Frames: ...

    @property
    def short(self) -> Frames: ...

    @property
    def noisy(self) -> Frames: ...


@dataclass(frozen=True)
class Rotary:
    """A rotary table and what it was made from.

    Attributes:
        table_BLP2: float32 (cos, sin); one row of the batch serves every sample.
        key: equal keys mean equal tables; None where the positions were given as a device tensor.
    """

    table_BLP2: Tensor
    key: Hashable | None

    def repeat(self, n: int) -> "Rotary":
        """For ``n`` copies of the batch."""
        return self if self.table_BLP2.shape[0] == 1 else Rotary(self.table_BLP2.repeat(n, 1, 1, 1), None)


class RotaryTables:
    """Builds the tables of a model and keeps the ones used last.

    A stream needs a handful, the same for every chunk; training on a few frames of a chunk builds others as it goes.
    """

    def __init__(self, axes: tuple[int, int, int], theta: float, *, kept: int = 24):
        self._axes, self._theta, self._kept = axes, theta, kept
        self._tables: OrderedDict[Hashable, Tensor] = OrderedDict()

    def stream(self, frames: Frames, height: int, width: int, device: torch.device, *, pool: int = 1) -> Rotary:
        """The table of one stream of tokens; ``height`` and ``width`` are its rows and columns before pooling."""
        frames = _on_host(frames)
        if isinstance(frames, Tensor):
            return Rotary(self._build(frames.to(device), height, width, pool), None)
        key = (frames, height, width, pool, device)
        return Rotary(
            self._remember(key, lambda: self._build(_row(frames, device), height, width, pool)),
            key,
        )

    def join(self, parts: list[Rotary]) -> Rotary:
        """The table of several streams, one after the other."""
        if len(parts) == 1:
            return parts[0]
        keys = tuple(part.key for part in parts)
        if None in keys:
            return Rotary(_join(parts), None)
        return Rotary(self._remember(keys, lambda: _join(parts)), keys)

    def _build(self, frames_BT: Tensor, height: int, width: int, pool: int) -> Tensor:
        return rotary_table(frames_BT, height, width, axes=self._axes, theta=self._theta, pool=pool)

    def _remember(self, key: Hashable, build: Callable[[], Tensor]) -> Tensor:
        if key not in self._tables:
            with torch.inference_mode(False), torch.no_grad():  # a table may outlive the mode it was first asked in
                self._tables[key] = build()
            if len(self._tables) > self._kept:
                self._tables.popitem(last=False)
        self._tables.move_to_end(key)
        return self._tables[key]


def _on_host(frames: Frames) -> Frames:
    """Positions as plain numbers where that costs no device synchronisation."""
    if not isinstance(frames, Tensor):
        return tuple(frames)
    frames_BT = frames[None] if frames.ndim == 1 else frames
    on_host = frames_BT.device.type == "cpu" and not torch.compiler.is_compiling()
    return tuple(frames_BT[0].tolist()) if on_host and frames_BT.shape[0] == 1 else frames_BT


def _row(frames: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor([frames], dtype=torch.float32, device=device)


def _join(parts: list[Rotary]) -> Tensor:
    batch = max(part.table_BLP2.shape[0] for part in parts)
    return torch.cat([part.table_BLP2.expand(batch, -1, -1, -1) for part in parts], dim=1)
