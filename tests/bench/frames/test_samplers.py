import pytest
from hypothesis import given
from hypothesis import strategies as st

from helios.bench.frames.samplers import (
    Window,
    end_windows,
    equal_parts,
    halfway_triples,
    interval_middles,
    semantic_windows,
    stepped,
    widened,
    window_frames,
)


def test_interval_middles():
    assert interval_middles(81) == [4, 14, 24, 34, 44, 54, 64, 75]
    assert interval_middles(129) == [7, 23, 39, 55, 71, 87, 103, 120]
    assert interval_middles(8) == list(range(8))
    assert interval_middles(5) == [0, 1, 2, 3, 4, 4, 4, 4]
    assert interval_middles(1) == [0] * 8


@pytest.mark.parametrize(
    ("num_frames", "start", "end"),
    [(81, (0, 12), (68, 81)), (129, (0, 19), (109, 129)), (1452, (0, 217), (1234, 1452)), (33, (0, 4), (28, 33))],
)
def test_semantic_windows(num_frames, start, end):
    assert semantic_windows(num_frames) == (Window(*start), Window(*end))


def test_semantic_frames():
    start, end = semantic_windows(81)
    assert window_frames(start, 81) == [0, 1, 3, 4, 6, 7, 9, 10]
    assert window_frames(end, 81) == [68, 69, 71, 72, 74, 76, 77, 79]


def test_short_semantic_windows_are_widened():
    start, end = semantic_windows(33)
    assert window_frames(start, 33) == list(range(8))
    assert window_frames(end, 33) == list(range(25, 33))
    assert widened(Window(10, 14), 33, 8) == Window(8, 16)
    assert window_frames(Window(0, 1), 5) == [0, 0, 1, 1, 2, 2, 3, 4]


@pytest.mark.parametrize(("num_frames", "size"), [(81, 12), (129, 19), (1452, 217), (10, 4), (3, 3)])
def test_end_windows(num_frames, size):
    start, end = end_windows(num_frames, at_least=4)
    assert (start, end) == (Window(0, size), Window(num_frames - size, num_frames))


def test_the_judges_frames():
    assert stepped(Window(0, 81)) == list(range(0, 80, 5))
    assert len(stepped(Window(0, 1452))) == 16 and stepped(Window(0, 1452))[-1] == 15 * 90
    assert stepped(Window(0, 10)) == list(range(10))
    drift = {count: end_windows(count, at_least=1)[1] for count in (10, 81, 1452)}
    assert stepped(drift[10]) == [9]
    assert stepped(drift[81]) == list(range(69, 81))
    assert stepped(drift[1452]) == list(range(1235, 1235 + 16 * 13, 13))


@given(st.integers(1, 3000))
def test_every_index_is_inside(num_frames):
    start, end = semantic_windows(num_frames)
    chosen = interval_middles(num_frames) + window_frames(start, num_frames) + window_frames(end, num_frames)
    for window in end_windows(num_frames, at_least=1):
        chosen += stepped(window)
    assert all(0 <= index < num_frames for index in chosen)


@given(st.integers(0, 200), st.integers(0, 200))
def test_triples_start_at_the_window(start, length):
    triples = halfway_triples(Window(start, start + length))
    evens = (length + 1) // 2
    assert len(triples) == max(0, evens - 1)
    assert all(b == a + 1 and c == a + 2 and (a - start) % 2 == 0 and c < start + length for a, b, c in triples)


@given(st.integers(1, 3000))
def test_equal_parts_tile_the_clip(num_frames):
    parts = equal_parts(num_frames)
    assert [index for part in parts for index in range(part.start, part.stop)] == list(range(num_frames))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
