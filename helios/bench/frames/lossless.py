"""Back end ``lossless``: frames from memory or straight from a running model, without a codec between.

Letters: F frames of one chunk, H height, W width.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain

import numpy as np

from helios.bench.frames.sizes import NominalSize
from helios.bench.frames.source import CHUNK_FRAMES, ClipError, ClipInfo, Frame, checked, same_size


class ChunkSource:
    """Chunks of uint8 RGB frames [F, H, W, 3] as a model yields them, read once.

    The first chunk is drawn when the source is made, because the frame size is read off it. Frames past ``num_frames``
    (the tail of the last chunk) are dropped.

    Raises: ClipError when a chunk has another shape or dtype, or the chunks end early.
    """

    def __init__(
        self,
        chunks: Iterable[np.ndarray],
        *,
        name: str,
        num_frames: int,
        fps: float = 24.0,
        chunk_frames: int = CHUNK_FRAMES,
        size: NominalSize | None = None,
    ):
        self._size = size or NominalSize()
        remaining = iter(chunks)
        first = next(remaining, None)
        if first is None or num_frames < 1:
            raise ClipError(f"{name}: holds no frames; the model must yield at least one chunk")
        _check_chunk(name, first)
        self._chunks = chain([first], remaining)
        self.info = ClipInfo(
            name=name,
            num_frames=num_frames,
            fps=fps,
            height=first.shape[1],
            width=first.shape[2],
            backend="lossless",
            chunk_frames=chunk_frames,
        )

    def frames(self) -> Iterator[Frame]:
        """The frames in order; a second call finds nothing left."""
        return checked(self.info, self._each())

    def _each(self) -> Iterator[Frame]:
        index = 0
        for chunk in self._chunks:
            _check_chunk(self.info.name, chunk)
            for pixels in chunk:
                if index == self.info.num_frames:
                    return
                same_size(self.info, index, *pixels.shape[:2])
                yield Frame(index, size=self._size, native=partial(np.asarray, pixels))
                index += 1


def array_source(frames: np.ndarray, *, name: str = "array", **options) -> ChunkSource:
    """A whole clip [F, H, W, 3] uint8 as a source; ``options`` as in :class:`ChunkSource`."""
    return ChunkSource([frames], name=name, num_frames=len(frames), **options)


def _check_chunk(name: str, chunk: np.ndarray) -> None:
    if not isinstance(chunk, np.ndarray) or chunk.ndim != 4 or chunk.shape[-1] != 3 or chunk.dtype != np.uint8:
        found = f"{chunk.dtype} {chunk.shape}" if isinstance(chunk, np.ndarray) else type(chunk).__name__
        raise ClipError(f"{name}: a chunk is {found}; yield uint8 arrays of shape [F, H, W, 3]")
