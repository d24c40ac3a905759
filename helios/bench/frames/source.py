"""What a source of frames promises, and the views of a frame that metrics ask for.

Letters: H height, W width of pixels; frames are uint8 RGB of shape [H, W, 3].
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from helios.bench.frames.sizes import NominalSize
from helios.bench.vision import opencv
from helios.errors import InputError

Pixels = np.ndarray
CHUNK_FRAMES = 33


class ClipError(InputError):
    """A clip that cannot be read or breaks its own promises: it is counted as failed, never averaged in part."""


@dataclass(frozen=True, kw_only=True)
class ClipInfo:
    """What is known about a clip before its first frame is measured.

    Attributes:
        name: file name, or a name for frames from memory.
        num_frames: T; a source that yields another number raises ClipError.
        fps: frames per second as the container says; 0 when unknown.
        height, width: pixels of a decoded frame.
        backend: ``official``, ``av``, ``cv2`` or ``lossless``; written into every result file.
        chunk_frames: frames generated at once; seams are looked for at its multiples.
    """

    name: str
    num_frames: int
    fps: float
    height: int
    width: int
    backend: str
    chunk_frames: int = CHUNK_FRAMES


class FrameSource(Protocol):
    """A clip whose frames are read once, in order, with memory that does not grow with its length."""

    @property
    def info(self) -> ClipInfo: ...

    def frames(self) -> Iterator["Frame"]: ...


class Frame:
    """One frame and its views; a view is computed when a metric first asks for it, and only once.

    Args:
        index: position in the clip, from 0.
        size: the benchmark's size rule.
        native: makes the decoded frame at its own size.
        scaled: makes the frame at the benchmark's size as the official scripts read it for aesthetic, motion amplitude
            and semantic ("path V"); None where the back end has no such path and :attr:`bilinear` stands in.
    """

    def __init__(
        self, index: int, *, size: NominalSize, native: Callable[[], Pixels], scaled: Callable[[], Pixels] | None = None
    ):
        self.index = index
        self._size = size
        self._make_native = native
        self._make_scaled = scaled

    @cached_property
    def native(self) -> Pixels:
        """The decoded frame at its own size."""
        return self._make_native()

    @cached_property
    def scaled(self) -> Pixels:
        """Path V: scaled inside FFmpeg before the conversion to RGB (aesthetic, motion amplitude, semantic)."""
        return self._make_scaled() if self._make_scaled is not None else self.bilinear

    @cached_property
    def bilinear(self) -> Pixels:
        """Path C: converted to RGB, then OpenCV's bilinear resize (motion smoothness)."""
        return _resized(self.native, self._size.target(*self.native.shape[:2]))

    @cached_property
    def offline(self) -> Pixels:
        """The offline tier's view: path C, but a frame below the nominal size is not enlarged."""
        wanted = self._size.shrunk(*self.native.shape[:2])
        return self.bilinear if wanted == self._size.target(*self.native.shape[:2]) else self.native

    @cached_property
    def scaled_grey(self) -> Pixels:
        """Luma of :attr:`scaled`, uint8 [H, W]."""
        return opencv().cvtColor(self.scaled, opencv().COLOR_RGB2GRAY)

    @cached_property
    def grey(self) -> Pixels:
        """Luma of :attr:`offline`, uint8 [H, W]."""
        return opencv().cvtColor(self.offline, opencv().COLOR_RGB2GRAY)

    @cached_property
    def lab(self) -> Pixels:
        """OpenCV's 8-bit Lab of :attr:`offline`, uint8 [H, W, 3]."""
        return opencv().cvtColor(self.offline, opencv().COLOR_RGB2LAB)


def _resized(frame: Pixels, size: tuple[int, int]) -> Pixels:
    return frame if frame.shape[:2] == size else opencv().resize(frame, (size[1], size[0]))


def checked(info: ClipInfo, frames: Iterator[Frame]) -> Iterator[Frame]:
    """The frames, or ClipError as soon as their number turns out to differ from the promised one."""
    count = 0
    for frame in frames:
        count += 1
        if count > info.num_frames:
            raise ClipError(f"{info.name}: more than the announced {info.num_frames} frames decode; remux the file")
        yield frame
    if count < info.num_frames:
        raise ClipError(f"{info.name}: only {count} of {info.num_frames} frames decode, it is truncated; make it anew")


def same_size(info: ClipInfo, index: int, height: int, width: int) -> None:
    """Refuse a clip whose frames change size on the way."""
    if (height, width) != (info.height, info.width):
        raise ClipError(
            f"{info.name}: frame {index} is {height}x{width} but the clip began at {info.height}x{info.width}; "
            "score the parts as separate clips"
        )
