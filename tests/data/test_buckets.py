import pytest
from hypothesis import given
from hypothesis import strategies as st

from helios.data.buckets import RELEASED_SIZES, Buckets, parse_size, size_text
from helios.errors import InputError
from helios.shapes import Geometry

sides = st.integers(16, 4000)


@given(sides, sides)
def test_the_nearest_size_is_the_last_of_the_best(height, width):
    costs = [abs(height * w - width * h) for h, w in RELEASED_SIZES]
    best = max(place for place, cost in enumerate(costs) if cost == min(costs))
    assert Buckets(sizes=RELEASED_SIZES).nearest(height, width) == RELEASED_SIZES[best]


@given(sides, sides)
def test_only_keeps_what_is_nearest_to_one_size(height, width):
    only = Buckets(sizes=RELEASED_SIZES, only=(384, 640))
    if Buckets(sizes=RELEASED_SIZES).nearest(height, width) == (384, 640):
        assert only.nearest(height, width) == (384, 640)
    else:
        with pytest.raises(InputError, match=f"{height}x{width} is nearest to .* and only 384x640 is kept"):
            only.nearest(height, width)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((1080, 1920), (384, 640)), ((1920, 1080), (640, 384)), ((500, 500), (512, 512)), ((480, 640), (448, 576))],
)
def test_common_shapes(shape, size):
    assert Buckets(sizes=RELEASED_SIZES).nearest(*shape) == size


def test_the_released_sizes_suit_the_pyramid():
    Buckets(sizes=RELEASED_SIZES).check(Geometry(levels=3))
    with pytest.raises(InputError, match="100x64.*multiple of 64"):
        Buckets(sizes=((100, 64),)).check(Geometry(levels=3))


@given(st.tuples(st.integers(0, 99999), st.integers(0, 99999)))
def test_sizes_read_back(size):
    assert parse_size(size_text(size)) == size


@pytest.mark.parametrize("text", ["384", "384x", "ax b", "-1x2", "384x640x3", ""])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InputError, match="height x width"):
        parse_size(text)


def test_contradictions_are_refused():
    with pytest.raises(InputError, match="at least one"):
        Buckets(sizes=())
    with pytest.raises(InputError, match="only=64x64 is none of the sizes"):
        Buckets(sizes=((32, 32),), only=(64, 64))
