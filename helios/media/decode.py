"""Video files through PyAV: opening, errors in one sentence, and frames with their times, upright, in RGB.

Letters: H W height and width in pixels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Colorspace

from helios.errors import InputError

# Demuxers that would turn a text file into moving letters, or follow what a file says to other files and hosts.
_REFUSED_FORMATS = {"tty", "hls", "concat", "dash", "ffmetadata", "sdp", "rtsp", "imf", "webvtt", "srt"}
_UNSPECIFIED_MATRIX = 2
# swscale's flags for bicubic, full horizontal chroma, accurate rounding and the same result on every processor; PyAV
# names only some of them before version 18.
SCALING = 0x4 | 0x2000 | 0x40000 | 0x80000
# Lost at the end, in share of the stated length and in frames, before a file counts as cut off: containers round.
_TOLERATED_LOSS = 0.005
_TOLERATED_FRAMES = 1.5


@dataclass(frozen=True, kw_only=True)
class TimedFrame:
    """A decoded frame, not yet converted.

    Attributes:
        time, duration: presentation time and length in seconds.
        pixel_aspect: width of a pixel over its height; None for square.
    """

    time: Fraction
    duration: Fraction
    frame: av.VideoFrame
    pixel_aspect: Fraction | None = None

    def rgb(self) -> np.ndarray:
        """uint8 [H, W, 3] as it is meant to be seen: square pixels, rotated as the file says."""
        return upright(_square_rgb(self.frame, self.pixel_aspect), orientation(self.frame))


@contextmanager
def open_video(path: str | Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a file and its first video stream.

    Raises: InputError when the file is missing, unreadable, not a video, or without a video stream.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the path of one video file")
    if not path.is_file():
        raise InputError(f"there is no video at {path}: check the path")
    try:
        options = {"protocol_whitelist": "file"}
        container = av.open(str(path.resolve()), metadata_errors="replace", options=options)
    except (av.FFmpegError, OSError) as error:
        raise unreadable(path, error) from error
    with container:
        if set(container.format.name.split(",")) & _REFUSED_FORMATS:
            raise InputError(f"{path} is not a video that can be read: convert it to MP4")
        if not container.streams.video:
            raise InputError(f"{path} has no video stream: give a file with moving pictures")
        stream = container.streams.video[0]
        if stream.codec_context is None:  # decoding such a stream ends the process before PyAV 18.1 (PyAV issue 2344)
            raise InputError(
                f"{path} is cut off or in a codec that is unknown here: copy it again or convert it to MP4"
            )
        yield container, stream


def unreadable(path: str | Path, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or type(error).__name__
    return InputError(f"{path} cannot be read as a video ({reason}): convert it to MP4 or copy it again")


def timed_frames(path: str | Path) -> Iterator[TimedFrame]:
    """Decode a file frame by frame, in presentation order; at most a few frames are in memory.

    Raises: InputError when the file cannot be read, is cut off, or holds a damaged frame.
    """
    with open_video(path) as (container, stream):
        fallback = 1 / Fraction(stream.average_rate or stream.guessed_rate or 25)
        previous: TimedFrame | None = None
        for index, frame in enumerate(_decode(path, container, stream)):
            if frame.is_corrupt:
                raise InputError(f"{path} is damaged at frame {index}: copy it again or convert it to MP4")
            _check_size(path, frame, previous)
            previous = TimedFrame(
                time=_time(frame, previous),
                duration=_duration(frame, fallback),
                frame=frame,
                pixel_aspect=stream.sample_aspect_ratio,
            )
            yield previous
        if previous is None:
            raise InputError(f"{path} holds no frame that can be shown: convert it to MP4 or copy it again")
        _check_complete(path, container, stream, previous)


def _decode(
    path: str | Path, container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[av.VideoFrame]:
    frames = 0
    try:
        for frame in container.decode(stream):
            yield frame
            frames += 1
    except (av.FFmpegError, OSError) as error:
        raise InputError(
            f"{path} is damaged or cut off after frame {frames}: copy it again or convert it to MP4"
        ) from error


def _time(frame: av.VideoFrame, previous: TimedFrame | None) -> Fraction:
    """The frame's own time; where a file has none, or goes back, the end of the frame before."""
    follows = Fraction(0) if previous is None else previous.time + previous.duration
    if frame.pts is None or frame.time_base is None:
        return follows
    time = frame.pts * Fraction(frame.time_base)
    return time if previous is None or time > previous.time else follows


def _duration(frame: av.VideoFrame, fallback: Fraction) -> Fraction:
    if frame.duration and frame.time_base:
        return frame.duration * Fraction(frame.time_base)
    return fallback


def _check_size(path: str | Path, frame: av.VideoFrame, previous: TimedFrame | None) -> None:
    if previous is not None and (frame.width, frame.height) != (previous.frame.width, previous.frame.height):
        before = f"{previous.frame.height}x{previous.frame.width}"
        raise InputError(
            f"{path} changes its size from {before} to {frame.height}x{frame.width} midway: convert it to one size"
        )


def _check_complete(
    path: str | Path, container: av.container.InputContainer, stream: av.VideoStream, last: TimedFrame
) -> None:
    stated = stated_end(container, stream)
    reached = last.time + last.duration
    tolerated = max(_TOLERATED_LOSS * float(reached), _TOLERATED_FRAMES * float(last.duration))
    if stated is not None and stated - reached > tolerated:
        raise InputError(
            f"{path} is cut off after {float(reached):.2f} s of {float(stated):.2f} s: copy it again or shorten it properly"
        )


def stated_end(container: av.container.InputContainer, stream: av.VideoStream) -> Fraction | None:
    """Where the video should end by what the file says of itself, in seconds; None where it does not say."""
    if stream.duration and stream.time_base:
        return (stream.duration + (stream.start_time or 0)) * Fraction(stream.time_base)
    tag = stream.metadata.get("DURATION", "")  # Matroska: 00:00:04.125000000
    try:
        hours, minutes, seconds = tag.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    except ValueError:
        pass
    if container.duration and len(container.streams) == 1:
        return Fraction(container.duration + max(0, container.start_time or 0), av.time_base)
    return None


def square_size(height: int, width: int, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Height and width with square pixels; the side that is short of pixels is widened, so that no detail is lost."""
    aspect = pixel_aspect or Fraction(1)
    if not Fraction(1, 4) <= aspect <= 4:
        return height, width
    if aspect >= 1:
        return height, round(width * aspect)
    return round(height / aspect), width


def _square_rgb(frame: av.VideoFrame, pixel_aspect: Fraction | None) -> np.ndarray:
    height, width = square_size(frame.height, frame.width, pixel_aspect)
    # Files that do not name their colour matrix: players take BT.709 above standard definition, BT.601 below.
    untagged = frame.colorspace == _UNSPECIFIED_MATRIX
    matrix = Colorspace.ITU709 if untagged and frame.height > 576 else None
    scaled = frame.reformat(width=width, height=height, format="rgb24", src_colorspace=matrix, interpolation=SCALING)
    return scaled.to_ndarray()


def orientation(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """The display matrix of a frame as signs (a, b, c, d): a point (x, y) is shown at (a x + c y, b x + d y)."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return (1, 0, 0, 1)
    matrix = np.frombuffer(data, np.int32)  # type: ignore[call-overload]  # side data is a buffer, untyped in PyAV
    a, b, c, d = (int(value) for value in matrix[[0, 1, 3, 4]])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (-1 if a < 0 else 1, 0, 0, -1 if d < 0 else 1)
    return (0, -1 if b < 0 else 1, -1 if c < 0 else 1, 0)


def upright(pixels_HWC: np.ndarray, signs: tuple[int, int, int, int]) -> np.ndarray:
    """Turn or mirror a picture as :func:`orientation` says; quarter turns swap height and width."""
    a, b, c, d = signs
    flip_x, flip_y = (c, b) if b else (a, d)
    shown = pixels_HWC.swapaxes(0, 1) if b else pixels_HWC
    shown = shown[:, ::-1] if flip_x < 0 else shown
    shown = shown[::-1] if flip_y < 0 else shown
    return np.ascontiguousarray(shown)
