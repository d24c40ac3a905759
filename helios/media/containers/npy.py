"""NumPy's .npy, written as it grows: raw frames behind a header that always tells their number.

Letters: F frames, H W height and width in pixels.
"""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np

from helios.media.containers.base import VideoShape
from helios.media.part_file import PartFile, Piece


class NpyContainer:
    """[F, H, W, 3] in one .npy file.

    NumPy pads the header so that a growing first axis never changes its length; rewriting it is the commit.
    """

    def __init__(self, shape: VideoShape, dtype: np.dtype) -> None:
        """``dtype``: uint8, or float32 for values in [0, 1]."""
        self._shape = shape
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._frames = 0

    def piece(self, frames_FHWC: np.ndarray, size: int) -> Piece:
        self._frames += len(frames_FHWC)
        data = np.ascontiguousarray(frames_FHWC, self._dtype).data.cast("B")
        if size == 0:
            return Piece(data=self._header(0) + data, offset=0, commit=(0, self._header(self._frames)))
        return Piece(data=data, offset=size, commit=(0, self._header(self._frames)))

    def _header(self, frames: int) -> bytes:
        buffer = BytesIO()
        shape = (frames, self._shape.height, self._shape.width, 3)
        fields = {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(buffer, fields)
        return buffer.getvalue()

    def seal(self, part: PartFile, record: Mapping[str, Any]) -> None:
        """Nothing is left to do."""
