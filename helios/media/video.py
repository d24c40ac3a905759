"""Read videos as frames at an even rate, holding only the frames that are asked for.

Letters: F frames, H W height and width in pixels. Frames are uint8.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np

from helios.errors import InputError
from helios.media.decode import TimedFrame, timed_frames
from helios.media.fitting import Crop, Fit, fitter
from helios.media.stream_info import probe
from helios.media.timing import frame_rate, nearest_in_time


@dataclass(frozen=True, kw_only=True)
class VideoClip:
    """Frames of a video.

    Attributes:
        frames: uint8 [F, H, W, 3].
        fps: frames per second.
    """

    frames: np.ndarray
    fps: float


@dataclass(frozen=True, kw_only=True)
class ClipEnds:
    """The first frame and the end of a video, all that a continuation is conditioned on.

    Attributes:
        first_HWC: uint8 [H, W, 3].
        last_FHWC: uint8 [F, H, W, 3].
        total_frames: how many frames the whole video has at ``fps``.
        fps: frames per second.
    """

    first_HWC: np.ndarray
    last_FHWC: np.ndarray
    total_frames: int
    fps: float


class Keep(Protocol):
    """Which frames of a stream are kept."""

    def select(self, frames: Iterable[np.ndarray]) -> Iterable[np.ndarray]: ...


@dataclass(frozen=True)
class AllFrames:
    """Keep everything."""

    def select(self, frames: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
        return frames


@dataclass(frozen=True)
class FirstFrames:
    """Keep ``count`` frames from the start; what comes after is not decoded."""

    count: int

    def __post_init__(self) -> None:
        _check_count(self.count)

    def select(self, frames: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
        return islice(frames, self.count)


@dataclass(frozen=True)
class LastFrames:
    """Keep ``count`` frames from the end; no more than that are ever in memory."""

    count: int

    def __post_init__(self) -> None:
        _check_count(self.count)

    def select(self, frames: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
        return deque(frames, maxlen=self.count)


def _check_count(count: int) -> None:
    if count < 1:
        raise InputError(f"{count} frames of a video are nothing to read: ask for 1 or more")


def stream_frames(
    path: str | Path, *, fps: float | None = None, size: tuple[int, int] | None = None, fit: Fit | None = None
) -> Iterator[np.ndarray]:
    """Decode a video one frame at a time; memory does not depend on its length.

    Args:
        fps: frames per second wanted. Each frame out is the one shown nearest in time, so variable rates are safe.
            None hands every stored frame on once, whatever the times between them.
        size: height and width to bring each frame to; None keeps the file's size.
        fit: how, with :class:`~helios.media.fitting.Crop` by default.
    Yields: uint8 [H, W, 3], upright and with square pixels. A repeated frame may be the same array again.
    Raises: InputError when the file cannot be read, is cut off or damaged; possibly after some frames.
    """
    fit_frame = fitter(size, fit or Crop())
    timed = timed_frames(path)
    wanted = timed if fps is None else _resampled(timed, frame_rate(fps))
    shown: TimedFrame | None = None
    for timed_frame in wanted:
        if timed_frame is not shown:
            shown, pixels_HWC = timed_frame, fit_frame(timed_frame.rgb())
        yield pixels_HWC


def _resampled(timed: Iterable[TimedFrame], fps: Fraction) -> Iterator[TimedFrame]:
    return nearest_in_time(((item.time, item.duration, item) for item in timed), fps)


def read_video(
    path: str | Path,
    *,
    fps: float | None = None,
    keep: Keep | None = None,
    size: tuple[int, int] | None = None,
    fit: Fit | None = None,
) -> VideoClip:
    """Read a video into memory.

    Args:
        fps, size, fit: as for :func:`stream_frames`. Give ``size`` for large files: frames are fitted as they come.
        keep: :class:`AllFrames` (default), :class:`FirstFrames` or :class:`LastFrames`.
    Returns: the frames, and ``fps`` or, where that was None, the file's own (mean) rate.
    Raises: InputError when the file cannot be read, is cut off or damaged.
    """
    frames = (keep or AllFrames()).select(stream_frames(path, fps=fps, size=size, fit=fit))
    stacked_FHWC = np.stack(list(frames))
    return VideoClip(frames=stacked_FHWC, fps=probe(path).fps if fps is None else float(fps))


def read_video_ends(
    path: str | Path, *, fps: float, last: int, size: tuple[int, int] | None = None, fit: Fit | None = None
) -> ClipEnds:
    """Read the first frame and the ``last`` frames at the end in one pass, holding no others.

    Args:
        fps, size, fit: as for :func:`stream_frames`.
        last: frames kept from the end; fewer come back when the video is shorter.
    Raises: InputError when the file cannot be read, is cut off or damaged.
    """
    _check_count(last)
    frames = stream_frames(path, fps=fps, size=size, fit=fit)
    first_HWC = next(frames)
    tail, total = deque([first_HWC], maxlen=last), 1
    for frame_HWC in frames:
        tail.append(frame_HWC)
        total += 1
    return ClipEnds(first_HWC=first_HWC, last_FHWC=np.stack(list(tail)), total_frames=total, fps=float(fps))
