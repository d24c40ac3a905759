import pytest
from hypothesis import given
from hypothesis import strategies as st

from helios.bench.frames.sizes import NominalSize
from helios.errors import InputError


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (832, 480, (368, 640)),
        (640, 384, (384, 640)),
        (1280, 720, (360, 640)),
        (128, 64, (320, 640)),
        (480, 832, (1108, 640)),  # portrait input: the width is still the nominal one
    ],
)
def test_the_published_rule(width, height, expected):
    assert NominalSize().target(height, width) == expected


def test_the_height_is_fixed_when_the_nominal_size_is_not_wide():
    assert NominalSize(height=640, width=384).target(480, 832) == (640, 1108)
    assert NominalSize(height=384, width=384).target(480, 832) == (384, 664)


def test_nothing_is_enlarged_offline():
    rule = NominalSize()
    assert rule.shrunk(64, 128) == (64, 128)
    assert rule.shrunk(480, 832) == (368, 640)
    assert rule.shrunk(384, 640) == (384, 640)


@given(st.integers(16, 2000), st.integers(16, 2000))
def test_sides_are_even_and_the_aspect_stays(height, width):
    rows, columns = NominalSize().target(height, width)
    assert rows % 2 == columns % 2 == 0
    assert abs(rows - columns * height / width) < 2


def test_a_tiny_nominal_size_is_refused():
    with pytest.raises(InputError, match="8x640"):
        NominalSize(height=8)
