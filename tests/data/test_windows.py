import threading
import time

import numpy as np
import pytest

from helios.data.plan import PlannedClip, PlannedVideo
from helios.data.sources import Source
from helios.data.windows import clip_windows, in_order
from helios.errors import InputError
from helios.media import Crop, fit, read_video
from tests.data.videos import write_video


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_items_come_in_order_whatever_takes_longest(workers):
    def work(job):
        for item in range(3):
            time.sleep(0.002 * ((job * 7 + item) % 4))
            yield job, item

    assert list(in_order(range(8), work, workers=workers, ahead=2)) == [(j, i) for j in range(8) for i in range(3)]


def test_no_more_is_held_than_asked_for():
    made, lock = [], threading.Lock()

    def work(job):
        for item in range(50):
            with lock:
                made.append((job, item))
            yield item

    items = in_order(range(10), work, workers=2, ahead=3)
    taken = [next(items) for _ in range(5)]
    time.sleep(0.3)
    # Five are used; of each of the two jobs three wait and one is being handed over.
    assert len(taken) == 5 and len(made) <= 5 + 2 * (3 + 1)
    items.close()


def test_an_error_reaches_the_reader_and_nothing_hangs():
    def work(job):
        yield job
        if job == 2:
            raise RuntimeError("job 2")

    seen = []
    with pytest.raises(RuntimeError, match="job 2"):
        seen.extend(in_order(range(50), work, workers=3, ahead=1))
    assert seen == [0, 1, 2]


def clips_of(file, *spans, first=0, size=(32, 48), **source):
    video = PlannedVideo(source=Source(file=file, captions=("a",), **source), first=first, frames=10**6, size=size)
    return [PlannedClip(number=n, video=video, first_window=w, chunks=c) for n, (w, c) in enumerate(spans)]


def windows(root, clips, *, frames=5, fps=None):
    return list(clip_windows(root, clips, frames=frames, fps=fps, workers=2))


def test_windows_are_the_files_frames(tmp_path):
    path = write_video(tmp_path / "a.mp4", 40, height=48, width=96)
    whole = fit(read_video(path).frames, 32, 48, Crop())
    found = windows(tmp_path, clips_of("a.mp4", (0, 2), (4, 1), first=3))  # windows 2 and 3 are passed over
    assert [clip.number for clip, _ in found] == [0, 0, 1]
    for (_, window), start in zip(found, (3, 8, 23)):
        np.testing.assert_array_equal(window, whole[start : start + 5])


def test_frames_are_resampled_and_cropped(tmp_path):
    path = write_video(tmp_path / "a.mp4", 40, fps=24, height=64, width=64)
    frames = read_video(path, fps=12).frames[:, 16:48, 0:48]
    (_, window), *_ = windows(tmp_path, clips_of("a.mp4", (1, 1), crop=(0, 48, 16, 48)), fps=12)
    np.testing.assert_array_equal(window, frames[5:10])


def test_a_damaged_video_fails_alone_and_at_its_place(tmp_path):
    write_video(tmp_path / "good.mp4", 20)
    clips = clips_of("short.mp4", (0, 2), (2, 2), (4, 1))
    write_video(tmp_path / "short.mp4", 13)
    found = windows(tmp_path, [*clips, *clips_of("good.mp4", (0, 1))])
    kinds = [(clip.video.source.file, clip.number, isinstance(window, InputError)) for clip, window in found]
    assert kinds == [
        ("short.mp4", 0, False),
        ("short.mp4", 0, False),
        ("short.mp4", 1, True),
        ("short.mp4", 2, True),
        ("good.mp4", 0, False),
    ]
    assert "fewer frames" in str(found[2][1])
