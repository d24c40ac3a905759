"""Frame rates and resampling in time, without any video file."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helios.errors import InputError
from helios.media.timing import frame_rate, nearest_in_time, tick_durations

RATES = st.sampled_from([Fraction(12), Fraction(16), Fraction(24), Fraction(24000, 1001), Fraction(30), Fraction(60)])


def steady(frames, rate):
    return [(index / rate, 1 / rate, index) for index in range(frames)]


@pytest.mark.parametrize(
    ("given_fps", "wanted"),
    [
        (24, Fraction(24)),
        (24000 / 1001, Fraction(24000, 1001)),
        (30000 / 1001, Fraction(30000, 1001)),
        (23.976, Fraction(2997, 125)),
        (12.5, Fraction(25, 2)),
    ],
)
def test_rates_become_the_fraction_they_stand_for(given_fps, wanted):
    assert frame_rate(given_fps) == wanted


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), 10**6])
def test_rates_that_are_none_are_refused(fps):
    with pytest.raises(InputError, match="fps"):
        frame_rate(fps)


@given(st.integers(1, 120), RATES)
def test_the_own_rate_changes_nothing(frames, rate):
    assert list(nearest_in_time(steady(frames, rate), rate)) == list(range(frames))


@given(st.integers(1, 120), RATES)
def test_times_rounded_to_milliseconds_change_nothing(frames, rate):
    rounded = [
        (Fraction(round(1000 * time), 1000), Fraction(round(1000 * length), 1000), i)
        for time, length, i in steady(frames, rate)
    ]
    assert list(nearest_in_time(rounded, rate)) == list(range(frames))


@given(st.integers(1, 200), RATES, RATES)
def test_length_is_kept_and_every_pick_is_the_nearest(frames, rate, wanted):
    picked = list(nearest_in_time(steady(frames, rate), wanted))
    assert abs(len(picked) - frames * wanted / rate) <= 1
    for index, choice in enumerate(picked):
        distance = abs(choice / rate - index / wanted)
        assert distance <= 1 / (2 * rate) or choice == frames - 1


@given(st.lists(st.integers(1, 400), min_size=1, max_size=40), st.integers(-5000, 5000), RATES)
def test_uneven_times_are_followed(gaps_ms, start_ms, wanted):
    times = [Fraction(start_ms + sum(gaps_ms[:index]), 1000) for index in range(len(gaps_ms) + 1)]
    source = [(time, Fraction(1, 1000), index) for index, time in enumerate(times)]
    for index, choice in enumerate(nearest_in_time(source, wanted)):
        moment = times[0] + index / wanted
        assert abs(times[choice] - moment) == min(abs(time - moment) for time in times)


def test_one_frame_is_one_frame_even_without_a_duration():
    assert list(nearest_in_time([(Fraction(7), Fraction(0), "only")], Fraction(24))) == ["only"]
    assert list(nearest_in_time([], Fraction(24))) == []


def test_resampling_looks_only_one_frame_ahead():
    taken = []

    def source():
        for item in steady(100, Fraction(24)):
            taken.append(item[2])
            yield item

    frames = nearest_in_time(source(), Fraction(24))
    assert [next(frames) for _ in range(10)] == list(range(10))
    assert len(taken) <= 11


@given(st.integers(1, 300), RATES, st.sampled_from([100, 1000]))
def test_whole_ticks_never_drift(frames, rate, ticks):
    parts = tick_durations(0, frames // 2, rate, ticks) + tick_durations(frames // 2, frames - frames // 2, rate, ticks)
    assert abs(sum(parts) - frames * ticks / rate) <= Fraction(1, 2)
    assert all(abs(part - ticks / rate) < 1 for part in parts)
