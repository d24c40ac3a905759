import pytest
from hypothesis import given
from hypothesis import strategies as st

from helios.errors import InputError
from helios.shapes import Geometry

BASE, PYRAMID = Geometry(levels=1), Geometry(levels=3)


def test_released_numbers():
    assert (BASE.chunk_frames, PYRAMID.chunk_frames) == (33, 33)
    assert (BASE.size_multiple, PYRAMID.size_multiple) == (16, 64)
    assert [PYRAMID.noisy_tokens(384, 640, level) for level in range(3)] == [540, 2160, 8640]
    assert BASE.noisy_tokens(384, 640, 0) == 8640
    positions = PYRAMID.positions
    assert positions.short == (0, 19) and positions.mid == (17, 18) and positions.noisy == tuple(range(20, 29))
    assert positions.long == tuple(range(1, 17))


@given(st.integers(1, 5000))
def test_chunks_hold_the_frames_and_not_one_chunk_more(num_frames):
    chunks = BASE.chunks_for(num_frames)
    assert (chunks - 1) * 33 < num_frames <= chunks * 33


@given(st.integers(1, 4000), st.integers(1, 4000))
def test_suggested_sizes_are_legal(height, width):
    for size in PYRAMID.nearest_sizes(height, width):
        PYRAMID.check_size(*size)


@pytest.mark.parametrize("height,width", [(480, 640), (64, 65), (0, 64), (-64, 64), (32, 64)])
def test_illegal_sizes_are_refused_with_legal_ones(height, width):
    """The published check lets every multiple of 16 through and crashes inside the pyramid (B6)."""
    with pytest.raises(InputError, match=f"^{height}x{width} .* is not a multiple of 64 on both sides: use "):
        PYRAMID.check_size(height, width)


def test_480_names_its_neighbours():
    with pytest.raises(InputError, match="use 512x640 or 448x640"):
        PYRAMID.check_size(480, 640)
    BASE.check_size(480, 640)


@pytest.mark.parametrize("num_frames", [0, -1])
def test_no_frames_are_refused(num_frames):
    with pytest.raises(InputError, match=f"num_frames={num_frames}"):
        BASE.chunks_for(num_frames)
