"""When the pixels of a chunk are made and awaited: in turn with the denoising, or beside that of the next chunk.

B videos, C channels, F pixel frames, T latent frames, H W height and width.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from helios.device import HostCopy
from helios.engine.watch import Stopwatch

Decode = Callable[[Tensor], Iterator[Tensor]]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some frames of a chunk on their way to the host; the stopwatch holds their decoding and their copy."""

    copy: HostCopy
    stopwatch: Stopwatch


class Pace(Protocol):
    """How far the making of chunks runs ahead of handing them out."""

    looks_ahead: bool  # is the next chunk begun before this one is handed out?

    def deliver(self, decode: Decode, latents_BCTHW: Tensor, device: torch.device) -> Iterator[Piece]:
        """Turn the latents of a chunk into frames on the host.

        Args:
            decode: latents to [B, F, H, W, 3] on ``device``, in one or more pieces along time.
            latents_BCTHW: of a chunk that has been denoised (on an accelerator: queued).
            device: of the VAE.
        """
        ...


@dataclass(frozen=True)
class InTurn:
    """Denoise, decode, hand out; then the next chunk. A prompt given while a chunk is shown lands in the next one."""

    looks_ahead = False

    def deliver(self, decode: Decode, latents_BCTHW: Tensor, device: torch.device) -> Iterator[Piece]:
        return _pieces(decode(latents_BCTHW), device)


class DecodeAhead:
    """Decode a chunk while the next one is denoised: on a second accelerator, or on a second stream of the only one.

    The pixels are those of :class:`InTurn`. A chunk has already begun when the one before it is handed out, so a new
    prompt lands one chunk later. No accelerator has run this yet; on the CPU nothing runs beside anything, and it only
    delays.
    """

    looks_ahead = True

    def __init__(self) -> None:
        self._stream: torch.Stream | None = None

    def deliver(self, decode: Decode, latents_BCTHW: Tensor, device: torch.device) -> Iterator[Piece]:
        with self._beside(latents_BCTHW, device):
            return iter(list(_pieces(decode(latents_BCTHW), device)))

    def _beside(self, latents_BCTHW: Tensor, device: torch.device) -> AbstractContextManager:
        """The decoder's own stream, which goes on when the latents are there."""
        if device.type == "cpu":
            return nullcontext()
        self._stream = self._stream or torch.Stream(device=device)
        self._stream.wait_stream(torch.accelerator.current_stream(latents_BCTHW.device))
        if latents_BCTHW.device == device:
            latents_BCTHW.record_stream(self._stream)
        return self._stream


def _pieces(decoded: Iterator[Tensor], device: torch.device) -> Iterator[Piece]:
    while (piece := _next_piece(decoded, device)) is not None:
        yield piece


@torch.no_grad()
def _next_piece(decoded: Iterator[Tensor], device: torch.device) -> Piece | None:
    stopwatch = Stopwatch(device)
    frames_BFHWC = next(decoded, None)
    if frames_BFHWC is None:
        return None
    stopwatch.mark()
    copy = HostCopy(frames_BFHWC)
    stopwatch.mark()
    return Piece(copy=copy, stopwatch=stopwatch)
