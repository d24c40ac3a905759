"""Back end ``official``: the decoder of the published scripts, ``video-reader-rs`` (0.4.1 imports cleanly), for path V.

Path C comes from OpenCV as in the published scripts, so a file is decoded twice here, in step.
"""

from collections.abc import Iterator
from functools import partial
from itertools import zip_longest
from pathlib import Path

import numpy as np

from helios.bench.frames.opencv import captured, probe, to_rgb
from helios.bench.frames.sizes import NominalSize
from helios.bench.frames.source import CHUNK_FRAMES, ClipError, Frame, Pixels, checked
from helios.errors import InputError

_BLOCK = 64  # frames per call into the decoder: bounds memory, each call seeks to the key frame before it


class OfficialSource:
    """A video file, scaled inside FFmpeg by ``video-reader-rs`` exactly as the published scripts do.

    Raises: InputError when the package is not installed; ClipError when the file cannot be read.
    """

    def __init__(self, path: Path, *, size: NominalSize, chunk_frames: int = CHUNK_FRAMES):
        self._path = path
        self._size = size
        self._reader_class = reader_class()
        self.info = probe(path, backend="official", chunk_frames=chunk_frames)

    def frames(self) -> Iterator[Frame]:
        """The frames in display order."""
        return checked(self.info, self._paired())

    def _paired(self) -> Iterator[Frame]:
        pairs = zip_longest(self._scaled(), captured(self._path, self.info))
        for index, (small, picture) in enumerate(pairs):
            if small is None or picture is None:
                raise ClipError(f"{self.info.name}: the two decoders disagree from frame {index} on; remux the file")
            yield Frame(index, size=self._size, native=partial(to_rgb, picture), scaled=partial(np.asarray, small))

    def _scaled(self) -> Iterator[Pixels]:
        height, width = self._size.target(self.info.height, self.info.width)
        try:
            reader = self._reader_class(str(self._path), threads=1, target_width=width, target_height=height)
            for start in range(0, self.info.num_frames, _BLOCK):
                yield from reader.decode(start, min(start + _BLOCK, self.info.num_frames))
        except (RuntimeError, ValueError, OSError) as error:
            raise ClipError(f"{self.info.name}: cannot be decoded ({error}); make it anew") from error


def reader_class() -> type:
    """The reader of ``video-reader-rs``. Raises: InputError with the command that installs it."""
    try:
        from video_reader import PyVideoReader
    except ImportError as error:
        raise InputError(
            "frames_backend='official' needs video-reader-rs: install it with `pip install video-reader-rs==0.4.1`, "
            "or use frames_backend='av'"
        ) from error
    return PyVideoReader


def available() -> bool:
    """Whether the official decoder can be imported here."""
    try:
        reader_class()
    except InputError:
        return False
    return True
