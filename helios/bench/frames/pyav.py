"""Back end ``av``: PyAV decodes, both views come from the same decoded frame. The default, no extra package needed.

Path V is swscale's ``fast_bilinear`` in yuv420p and the conversion of :mod:`helios.bench.frames.yuv`: motion amplitude
of the two reference clips is within 0.03 % of the published values. Path C equals OpenCV's decoder bit for bit.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from helios.bench.frames.sizes import NominalSize
from helios.bench.frames.source import CHUNK_FRAMES, ClipError, ClipInfo, Frame, checked, same_size
from helios.bench.frames.yuv import rgb_from_planes


class PyAVSource:
    """A video file, decoded by PyAV on one thread.

    Raises: ClipError when the file holds no readable video; while reading, when a frame is damaged, frames are missing
        or the frame size changes.
    """

    def __init__(self, path: Path, *, size: NominalSize, chunk_frames: int = CHUNK_FRAMES):
        self._path = path
        self._size = size
        self.info = self._probe(chunk_frames)

    def frames(self) -> Iterator[Frame]:
        """The frames in display order; each can be read only until the next one is asked for."""
        return checked(self.info, self._decoded())

    def _decoded(self) -> Iterator[Frame]:
        to_small, to_rgb = VideoReformatter(), VideoReformatter()
        target = self._size.target(self.info.height, self.info.width)
        try:
            with av.open(str(self._path)) as container:
                stream = container.streams.video[0]
                stream.thread_type = "NONE"
                for index, picture in enumerate(container.decode(stream)):
                    self._check(index, picture)
                    yield Frame(
                        index,
                        size=self._size,
                        native=partial(_rgb, to_rgb, picture),
                        scaled=partial(_scaled, to_small, picture, target),
                    )
        except av.FFmpegError as error:
            raise ClipError(f"{self.info.name}: cannot be decoded ({error.strerror}); make it anew") from error

    def _check(self, index: int, picture: av.VideoFrame) -> None:
        same_size(self.info, index, picture.height, picture.width)
        if picture.is_corrupt:
            raise ClipError(f"{self.info.name}: frame {index} is damaged; make the file anew")

    def _probe(self, chunk_frames: int) -> ClipInfo:
        try:
            with av.open(str(self._path)) as container:
                if not container.streams.video:
                    raise ClipError(f"{self._path.name}: no video stream in it; pass a video file")
                stream = container.streams.video[0]
                count = stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
                rate = stream.average_rate
                info = ClipInfo(
                    name=self._path.name,
                    num_frames=count,
                    fps=float(rate) if rate else 0.0,
                    height=stream.height,
                    width=stream.width,
                    backend="av",
                    chunk_frames=chunk_frames,
                )
        except av.FFmpegError as error:
            raise ClipError(f"{self._path.name}: not a readable video ({error.strerror}); make it anew") from error
        if count == 0 or info.height < 2 or info.width < 2:
            raise ClipError(f"{self._path.name}: holds no frames; make it anew")
        return info


def _scaled(reformatter: VideoReformatter, picture: av.VideoFrame, target: tuple[int, int]) -> np.ndarray:
    small = reformatter.reformat(
        picture, target[1], target[0], format="yuv420p", interpolation=Interpolation.FAST_BILINEAR, threads=1
    )
    planes = [_plane(plane) for plane in small.planes]
    return rgb_from_planes(*planes, matrix=int(picture.colorspace), colour_range=int(small.color_range))


def _plane(plane: av.video.plane.VideoPlane) -> np.ndarray:
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]


def _rgb(reformatter: VideoReformatter, picture: av.VideoFrame) -> np.ndarray:
    converted = reformatter.reformat(picture, format="rgb24", interpolation=Interpolation.BICUBIC, threads=1)
    return converted.to_ndarray()
