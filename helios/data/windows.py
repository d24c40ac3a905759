"""Videos to windows of frames: each video is decoded once, several at a time, a few windows ahead of their use.

F frames of a window (33), H W height and width in pixels.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from helios.data.plan import PlannedClip, PlannedVideo
from helios.errors import InputError
from helios.media.decode import TimedFrame, timed_frames
from helios.media.fitting import Crop, fit
from helios.media.timing import frame_rate, nearest_in_time

Job = TypeVar("Job")
Item = TypeVar("Item")
Window = tuple[PlannedClip, np.ndarray | InputError]

_AHEAD = 2
_POLL_S = 0.1


def clip_windows(
    root: Path, clips: Iterable[PlannedClip], *, frames: int, fps: float | None, workers: int
) -> Generator[Window, None, None]:
    """The windows of all clips, in order, each with its clip.

    Memory does not depend on the number or length of videos: ``workers`` of them are open, each at most
    three windows ahead.

    Args:
        root: folder of the videos.
        clips: sorted by their number.
        frames: of a window.
        fps: rate that videos are resampled to; None takes every frame.
        workers: videos decoded at the same time.
    Yields: (clip, uint8 [F, H, W, 3] at the clip's size). A clip whose video cannot be decoded up to its end has an
        error in place of its last window.
    """
    jobs = [list(group) for _, group in groupby(clips, key=lambda clip: id(clip.video))]
    return in_order(jobs, lambda job: _windows_of_video(root, job, frames, fps), workers=workers, ahead=_AHEAD)


def _windows_of_video(root: Path, clips: list[PlannedClip], frames: int, fps: float | None) -> Iterator[Window]:
    pictures = _pictures(root, clips[0].video, fps)
    seen, result = 0, None
    for clip in clips:
        for window in range(clip.first_window, clip.first_window + clip.chunks):
            if not isinstance(result, InputError):
                result = _next_window(pictures, skip=window * frames - seen, frames=frames)
                seen = (window + 1) * frames
            yield clip, result
            if isinstance(result, InputError):
                break


def _next_window(pictures: Iterator[Callable[[], np.ndarray]], *, skip: int, frames: int) -> np.ndarray | InputError:
    """Stack the next frames, or why that is impossible; skipped ones are decoded but not converted nor resized."""
    try:
        deque(islice(pictures, skip), maxlen=0)
        shown = [picture() for picture in islice(pictures, frames)]
    except InputError as error:
        return error
    if len(shown) < frames:
        return InputError("it holds fewer frames than it says: copy it again or convert it to MP4")
    return np.stack(shown)


def _pictures(root: Path, video: PlannedVideo, fps: float | None) -> Iterator[Callable[[], np.ndarray]]:
    """Every used frame of a video, as a function that converts it."""
    timed = timed_frames(root / video.source.file)
    if fps is not None:
        timed = nearest_in_time(((frame.time, frame.duration, frame) for frame in timed), frame_rate(fps))
    for frame in islice(timed, video.first, None):
        yield partial(_fitted, frame, video)


def _fitted(frame: TimedFrame, video: PlannedVideo) -> np.ndarray:
    pixels_HWC = frame.rgb()
    if video.source.crop is not None:
        x0, x1, y0, y1 = video.source.crop
        pixels_HWC = np.ascontiguousarray(pixels_HWC[y0:y1, x0:x1])
    return fit(pixels_HWC, *video.size, Crop())


def in_order(
    jobs: Iterable[Job], work: Callable[[Job], Iterable[Item]], *, workers: int, ahead: int
) -> Generator[Item, None, None]:
    """What ``work`` yields for every job, one job after the other, while the next jobs are already being worked on.

    Args:
        jobs: any number.
        work: runs in a thread; an exception reaches whoever reads.
        workers: jobs at the same time.
        ahead: items that each of them may have waiting.
    """
    jobs, stopped = iter(jobs), threading.Event()
    started: deque[_Started[Item]] = deque()
    with ThreadPoolExecutor(max(1, workers)) as pool:
        try:
            for job in islice(jobs, max(1, workers)):
                started.append(_Started.begin(pool, work, job, ahead, stopped))
            while started:
                yield from started[0].items()
                started.popleft()
                for job in islice(jobs, 1):
                    started.append(_Started.begin(pool, work, job, ahead, stopped))
        finally:
            stopped.set()


_END = object()


@dataclass(frozen=True)
class _Started(Generic[Item]):
    """A job in a thread, and the queue that it fills."""

    queue: queue.Queue
    future: Future

    @staticmethod
    def begin(
        pool: ThreadPoolExecutor, work: Callable[[Job], Iterable[Item]], job: Job, ahead: int, stopped: threading.Event
    ) -> "_Started[Item]":
        waiting: queue.Queue = queue.Queue(maxsize=ahead)

        def run() -> None:
            try:
                for item in work(job):
                    if not _put(waiting, item, stopped):
                        return
            finally:
                _put(waiting, _END, stopped)

        return _Started(waiting, pool.submit(run))

    def items(self) -> Iterator[Item]:
        """What the job yields, as it comes. Raises: what the job raised."""
        while (item := self.queue.get()) is not _END:
            yield item
        self.future.result()


def _put(waiting: queue.Queue, item: object, stopped: threading.Event) -> bool:
    """Wait for room; False when nobody reads any more."""
    while not stopped.is_set():
        try:
            waiting.put(item, timeout=_POLL_S)
            return True
        except queue.Full:
            continue
    return False
