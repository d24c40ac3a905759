"""Animated GIF, written as it grows: 256 colours chosen anew for every chunk.

Letters: F frames, H W height and width in pixels.
"""

import struct
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from PIL import GifImagePlugin, Image

from helios.errors import InputError
from helios.media.containers.base import VideoShape
from helios.media.part_file import PartFile, Piece
from helios.media.timing import tick_durations

_TRAILER = b"\x3b"
_LOOP_FOR_EVER = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
_TICKS_PER_SECOND = 100
_MAX_FPS = 50  # browsers show a frame shorter than 2 hundredths for 10
_PALETTE_SAMPLES = 8


class GifContainer:
    """Frames with a palette per chunk and delays that add up to the frame rate.

    Pillow's own animation writer keeps every frame until the end, so frames are compressed by Pillow one at a time
    and the file around them is written here (GIF89a specification). The trailer byte ends the file after each chunk;
    overwriting it with the next chunk's first byte is the commit.
    """

    def __init__(self, shape: VideoShape) -> None:
        """Raises: InputError for more than 50 fps or 65535 pixels a side, which GIF cannot say."""
        if shape.fps > _MAX_FPS:
            raise InputError(f"fps={float(shape.fps):g} is more than a GIF can show ({_MAX_FPS}): write .mp4 or .webp")
        shape.check_at_most(65535, "a GIF")
        self._shape = shape
        self._frames = 0

    def piece(self, frames_FHWC: np.ndarray, size: int) -> Piece:
        delays = tick_durations(self._frames, len(frames_FHWC), Fraction(self._shape.fps), _TICKS_PER_SECOND)
        palette = _palette(frames_FHWC)
        blocks = b"".join(_frame(frame_HWC, palette, delay) for frame_HWC, delay in zip(frames_FHWC, delays))
        self._frames += len(frames_FHWC)
        if size == 0:
            data = self._header() + blocks + _TRAILER
            return Piece(data=data, offset=0, commit=(0, data[:1]))
        return Piece(data=blocks[1:] + _TRAILER, offset=size, commit=(size - 1, blocks[:1]))

    def _header(self) -> bytes:
        screen = struct.pack("<6sHHBBB", b"GIF89a", self._shape.width, self._shape.height, 0x70, 0, 0)
        return screen + _LOOP_FOR_EVER

    def seal(self, part: PartFile, record: Mapping[str, Any]) -> None:
        """Nothing is left to do."""


def _palette(frames_FHWC: np.ndarray) -> Image.Image:
    """256 colours for a chunk, from a few of its frames, so that they do not flicker within it."""
    step = max(1, len(frames_FHWC) // _PALETTE_SAMPLES)
    sample = np.concatenate(list(frames_FHWC[::step, ::2, ::2]))
    return Image.fromarray(sample).quantize(colors=256, method=Image.Quantize.MEDIANCUT)


def _frame(frame_HWC: np.ndarray, palette: Image.Image, delay: int) -> bytes:
    indexed = Image.fromarray(frame_HWC).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    blocks = GifImagePlugin.getdata(indexed, duration=delay * 10, include_color_table=True)
    return b"".join(bytes(block) for block in blocks)
