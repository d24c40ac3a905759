"""Which frames a metric looks at: windows at the two ends of a clip and index lists inside them.

T is the number of frames of the clip everywhere. The rules and their integer cuts are the published benchmark's.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

DRIFT_RATIO = 0.15


@dataclass(frozen=True)
class Window:
    """Frames ``start`` (inclusive) to ``stop`` (exclusive)."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __contains__(self, index: int) -> bool:
        return self.start <= index < self.stop


def end_windows(num_frames: int, *, at_least: int) -> tuple[Window, Window]:
    """First and last ``max(at_least, int(0.15 T))`` frames, never more than there are."""
    size = min(num_frames, max(at_least, int(DRIFT_RATIO * num_frames)))
    return Window(0, size), Window(num_frames - size, num_frames)


def semantic_windows(num_frames: int) -> tuple[Window, Window]:
    """[0, int(0.15 T)) and [int(0.85 T), T): the end window can be one frame longer than the start window."""
    start = Window(0, int(DRIFT_RATIO * num_frames))
    return start, Window(int((1 - DRIFT_RATIO) * num_frames), num_frames)


def interval_middles(num_frames: int, count: int = 8) -> list[int]:
    """Middle frame of each of ``count`` equal intervals, ``(a + b - 1) // 2``; a short clip repeats its last frame."""
    parts = min(count, num_frames)
    edges = np.linspace(0, num_frames, parts + 1).astype(int)
    middles = [int(a + b - 1) // 2 for a, b in pairwise(edges)]
    return middles + middles[-1:] * (count - parts)


def window_frames(window: Window, num_frames: int, count: int = 8) -> list[int]:
    """``count`` frames of a drift window: ``int(start + i * length / count)``.

    A window shorter than ``count`` is widened first, about half to each side, then whatever side is free, and the
    frames are an integer linspace over it.
    """
    if len(window) >= count:
        return [int(window.start + i * len(window) / count) for i in range(count)]
    wide = widened(window, num_frames, count)
    return [int(i) for i in np.linspace(wide.start, wide.stop - 1, count).astype(int)]


def widened(window: Window, num_frames: int, size: int) -> Window:
    """The window grown to ``size`` frames (or to the whole clip), kept inside [0, T)."""
    missing = max(0, min(size, num_frames) - len(window))
    start = max(0, window.start - missing // 2)
    stop = min(num_frames, start + len(window) + missing)
    return Window(max(0, stop - len(window) - missing), stop)


def stepped(window: Window, count: int = 16) -> list[int]:
    """The judge's frames: every ``max(length // count, 1)``-th one, at most ``count``; a short window gives fewer."""
    step = max(len(window) // count, 1)
    return [window.start + i * step for i in range(count) if window.start + i * step < window.stop]


def halfway_triples(window: Window) -> list[tuple[int, int, int]]:
    """(even, odd, even) neighbours counted from the window's start; a trailing odd frame is unused."""
    return [(a, a + 1, a + 2) for a in range(window.start, window.stop - 2, 2)]


def equal_parts(num_frames: int, count: int = 10) -> list[Window]:
    """The clip cut into ``count`` parts whose lengths differ by at most one frame; fewer parts when T < count."""
    edges = np.linspace(0, num_frames, min(count, num_frames) + 1).astype(int)
    return [Window(int(a), int(b)) for a, b in pairwise(edges)]
