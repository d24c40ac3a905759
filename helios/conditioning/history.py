"""The clean past that conditions a chunk: a fixed window of latents and the anchor.

Nothing here grows with the length of the video: the window always holds the same number of latent frames, and what is
not there yet is zero latents ("representation control", paper arXiv 2603.04379, section 3.1).

B batch, C channels, T latent frames, H W latent height and width.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from helios.models.transformer.context import HistoryLatents
from helios.shapes import FramePositions, Geometry


@dataclass(frozen=True, kw_only=True)
class History:
    """Latents of the past, newest last, and the anchor; all float32 and normalised.

    Attributes:
        window_BCTHW: the last ``policy.window(geometry)`` latent frames, zeros where the video has not begun.
        anchor_BCTHW: [B, C, 1, H, W] first latent frame of the video, zeros while there is none.
        anchored: whether the anchor has been set.
    """

    window_BCTHW: Tensor
    anchor_BCTHW: Tensor
    anchored: bool = False

    @staticmethod
    def empty(
        batch: int, frames: int, geometry: Geometry, height: int, width: int, device: torch.device | str = "cpu"
    ) -> "History":
        """The past of a video that has not begun. Height and width are latent sizes."""
        shape = (batch, geometry.latent_channels, frames, height, width)
        window = torch.zeros(shape, device=device)
        return History(window_BCTHW=window, anchor_BCTHW=window[:, :, :1].clone())

    def append(self, chunk_BCTHW: Tensor) -> "History":
        """The window moved on by a finished chunk (or by encoded input); the oldest frames leave."""
        frames = self.window_BCTHW.shape[2]
        moved = torch.cat([self.window_BCTHW, chunk_BCTHW.to(self.window_BCTHW)], dim=2)[:, :, -frames:]
        return replace(self, window_BCTHW=moved.contiguous())

    def with_anchor(self, anchor_BCTHW: Tensor) -> "History":
        """The same window with another anchor of one latent frame."""
        return replace(self, anchor_BCTHW=anchor_BCTHW.to(self.window_BCTHW).contiguous(), anchored=True)


class AnchorPolicy(Protocol):
    """What the first slot of the short history holds, and when it is set."""

    def window(self, geometry: Geometry) -> int:
        """How many latent frames of the past are kept."""
        ...

    def positions(self, geometry: Geometry) -> FramePositions:
        """Time positions of the anchor, the three streams and the chunk, the same for every chunk."""
        ...

    def split(self, history: History, geometry: Geometry) -> HistoryLatents:
        """The three streams that the transformer reads."""
        ...

    def after_chunk(self, history: History, chunk_BCTHW: Tensor, chunk: int) -> History:
        """Move the past on by chunk number ``chunk`` and set the anchor when it is due."""
        ...


@dataclass(frozen=True, kw_only=True)
class FirstFrameAnchor:
    """The anchor is the first latent of the video, or of the given image or video. The released default."""

    def window(self, geometry: Geometry) -> int:
        return geometry.history.total

    def positions(self, geometry: Geometry) -> FramePositions:
        return geometry.positions

    def split(self, history: History, geometry: Geometry) -> HistoryLatents:
        sizes = geometry.history
        long, mid, newest = history.window_BCTHW.split([sizes.long, sizes.mid, sizes.newest], dim=2)
        short = torch.cat([history.anchor_BCTHW, newest], dim=2)
        return HistoryLatents(long_BCTHW=long, mid_BCTHW=mid, short_BCTHW=short)

    def after_chunk(self, history: History, chunk_BCTHW: Tensor, chunk: int) -> History:
        due = self._is_due(history, chunk)
        return (history.with_anchor(chunk_BCTHW[:, :, :1]) if due else history).append(chunk_BCTHW)

    def _is_due(self, history: History, chunk: int) -> bool:
        return not history.anchored and chunk == 0


@dataclass(frozen=True, kw_only=True)
class SecondChunkAnchor(FirstFrameAnchor):
    """As the first-frame anchor, but set anew from the second chunk, whose motion has begun.

    The published code calls this skipping the first chunk; nothing is left out of the video.
    """

    def _is_due(self, history: History, chunk: int) -> bool:
        return super()._is_due(history, chunk) or chunk == 1


@dataclass(frozen=True, kw_only=True)
class NoAnchor:
    """No anchor: the short stream is the two newest latents, and the window is one latent longer.

    The published pipeline crashes with this setting; the layout here is the one it intends (positions from 0).
    """

    def window(self, geometry: Geometry) -> int:
        return geometry.history.total + 1

    def positions(self, geometry: Geometry) -> FramePositions:
        return _SlidPositions(history=geometry.history, chunk_latent_frames=geometry.chunk_latent_frames)

    def split(self, history: History, geometry: Geometry) -> HistoryLatents:
        sizes = geometry.history
        long, mid, short = history.window_BCTHW.split([sizes.long, sizes.mid, sizes.newest + 1], dim=2)
        return HistoryLatents(long_BCTHW=long, mid_BCTHW=mid, short_BCTHW=short)

    def after_chunk(self, history: History, chunk_BCTHW: Tensor, chunk: int) -> History:
        return history.append(chunk_BCTHW)


@dataclass(frozen=True, kw_only=True)
class _SlidPositions(FramePositions):
    """Positions without an anchor: long 0-15, mid 16-17, short 18-19, noisy 20-28."""

    @property
    def long(self) -> tuple[int, ...]:
        return tuple(range(self.history.long))

    @property
    def mid(self) -> tuple[int, ...]:
        return tuple(range(self.history.long, self.history.long + self.history.mid))

    @property
    def short(self) -> tuple[int, ...]:
        return tuple(range(self.history.long + self.history.mid, self.history.total + 1))
