"""Animated WebP, written as it grows: every frame a lossy picture of its own.

Letters: F frames, H W height and width in pixels.
"""

import errno
import os
import struct
from collections.abc import Mapping
from fractions import Fraction
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from helios.media.containers.base import VideoShape
from helios.media.part_file import PartFile, Piece
from helios.media.timing import tick_durations

_TICKS_PER_SECOND = 1000
_QUALITY = 85
_ANIMATED = 0x02
_DO_NOT_BLEND = 0x02
_MAX_RIFF = 2**32 - 10
_RIFF_SIZE_AT = 4


class WebpContainer:
    """Frames that are coded alone and follow each other in one RIFF file, repeated for ever.

    libwebp's animation encoder keeps the whole animation until the end, so Pillow codes one picture at a time and the
    container is written here (WebP container specification). The size at the start of the file tells readers how far
    to look; rewriting it is the commit.
    """

    def __init__(self, shape: VideoShape) -> None:
        """Raises: InputError for more than 16383 pixels a side."""
        shape.check_at_most(16383, "a WebP")
        self._shape = shape
        self._frames = 0

    def piece(self, frames_FHWC: np.ndarray, size: int) -> Piece:
        durations = tick_durations(self._frames, len(frames_FHWC), Fraction(self._shape.fps), _TICKS_PER_SECOND)
        frames = b"".join(self._frame(frame_HWC, ms) for frame_HWC, ms in zip(frames_FHWC, durations))
        self._frames += len(frames_FHWC)
        data = frames if size else self._header() + frames
        riff_size = size + len(data) - 8
        if riff_size > _MAX_RIFF:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return Piece(data=data, offset=size, commit=(_RIFF_SIZE_AT, struct.pack("<I", riff_size)))

    def _header(self) -> bytes:
        canvas = struct.pack("<I", _ANIMATED) + _int24(self._shape.width - 1) + _int24(self._shape.height - 1)
        background_and_endless_loop = bytes(4) + bytes(2)
        return b"RIFF" + bytes(4) + b"WEBP" + _chunk(b"VP8X", canvas) + _chunk(b"ANIM", background_and_endless_loop)

    def _frame(self, frame_HWC: np.ndarray, duration_ms: int) -> bytes:
        still = BytesIO()
        Image.fromarray(frame_HWC).save(still, format="WEBP", quality=_QUALITY, method=4)
        place = _int24(0) + _int24(0) + _int24(self._shape.width - 1) + _int24(self._shape.height - 1)
        return _chunk(b"ANMF", place + _int24(duration_ms) + bytes([_DO_NOT_BLEND]) + still.getvalue()[12:])

    def seal(self, part: PartFile, record: Mapping[str, Any]) -> None:
        """Nothing is left to do."""


def _chunk(name: bytes, payload: bytes) -> bytes:
    return name + struct.pack("<I", len(payload)) + payload + bytes(len(payload) % 2)


def _int24(value: int) -> bytes:
    return struct.pack("<I", value)[:3]
