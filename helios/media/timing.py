"""Frame rates and presentation times, in exact fractions of a second."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import count, pairwise
from math import isfinite
from typing import TypeVar

from helios.errors import InputError

Item = TypeVar("Item")


def frame_rate(fps: float | Fraction) -> Fraction:
    """The frame rate as a fraction; 23.976..., 29.97... and their kin come out as the n/1001 they stand for.

    Raises: InputError unless 0.01 <= fps <= 1000.
    """
    if not (isfinite(fps) and 0.01 <= fps <= 1000):
        raise InputError(f"fps={fps} is no frame rate: use a number from 0.01 to 1000, such as 24")
    return Fraction(fps).limit_denominator(1001)


def nearest_in_time(timed: Iterable[tuple[Fraction, Fraction, Item]], fps: Fraction) -> Iterator[Item]:
    """Resample to an even rate: the k-th item out is the one whose presentation time is nearest to k / fps.

    Items are handed on, never blended, so the result is exact for any rate and for variable rates; when source and
    wanted rate agree, it is the source. Looks one item ahead and holds no more than two.

    Args:
        timed: (presentation time, duration, item) in seconds, with rising times; the first time counts as zero.
        fps: items per second wanted; output covers the source from its first item to the end of its last.
    """
    wanted = (index / fps for index in count())
    moment = next(wanted)
    start: Fraction | None = None
    held: tuple[Fraction, Fraction, Item] | None = None
    for time, duration, item in timed:
        start = time if start is None else start
        while held is not None and moment <= (held[0] + time - start) / 2:
            yield held[2]
            moment = next(wanted)
        held = (time - start, duration, item)
    # Containers round times (Matroska to milliseconds): a sliver at the end is no frame.
    while held is not None and (moment == 0 or moment + 1 / (8 * fps) < held[0] + held[1]):
        yield held[2]
        moment = next(wanted)


def tick_durations(first: int, frames: int, fps: Fraction, ticks_per_second: int) -> list[int]:
    """Whole-tick durations of the frames ``first`` ... ``first + frames - 1`` whose sum never drifts from the rate.

    GIF counts hundredths of a second and WebP thousandths; at 24 fps no whole number of either fits one frame.
    """
    edges = [round(index * ticks_per_second / fps) for index in range(first, first + frames + 1)]
    return [after - before for before, after in pairwise(edges)]
