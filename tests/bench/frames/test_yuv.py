import numpy as np
import pytest

from helios.bench.frames.yuv import FULL_RANGE, rgb_from_planes


def planes(y, u, v, height=2, width=2):
    shape = ((height + 1) // 2, (width + 1) // 2)
    return np.full((height, width), y, np.uint8), np.full(shape, u, np.uint8), np.full(shape, v, np.uint8)


def exact(y, u, v, kr=0.299, kb=0.114):
    luma, pb, pr = (y - 16) / 219, (u - 128) / 224, (v - 128) / 224
    red, blue = luma + 2 * (1 - kr) * pr, luma + 2 * (1 - kb) * pb
    return 255 * np.array([red, (luma - kr * red - kb * blue) / (1 - kr - kb), blue])


def test_black_white_and_grey():
    assert rgb_from_planes(*planes(16, 128, 128)).max() == 0
    assert rgb_from_planes(*planes(235, 128, 128)).min() == 255
    assert rgb_from_planes(*planes(60, 128, 128)).tolist() == [[[51] * 3] * 2] * 2


@pytest.mark.parametrize(("matrix", "weights"), [(2, (0.299, 0.114)), (6, (0.299, 0.114)), (1, (0.2126, 0.0722))])
def test_close_to_exact_arithmetic(matrix, weights):
    rng = np.random.default_rng(0)
    for y, u, v in rng.integers((60, 100, 100), (200, 156, 156), (200, 3)):
        found = rgb_from_planes(*planes(y, u, v), matrix=matrix)[0, 0]
        assert np.abs(found - exact(y, u, v, *weights)).max() < 2.6


@pytest.mark.parametrize(
    ("yuv", "rgb"),
    [((230, 126, 129), (252, 250, 245)), ((60, 127, 128), (None, None, 48)), ((60, 129, 128), (None, None, 53))],
)
def test_rounding_of_the_official_decoder(yuv, rgb):
    """Values read off frames of video-reader-rs."""
    found = rgb_from_planes(*planes(*yuv))[0, 0]
    assert all(want is None or want == have for want, have in zip(rgb, found))


def test_full_range_spans_all_levels():
    y = np.arange(256, dtype=np.uint8).reshape(16, 16)
    grey = np.full((8, 8), 128, np.uint8)
    rgb = rgb_from_planes(y, grey, grey, colour_range=FULL_RANGE)
    assert np.abs(rgb.astype(int) - y[..., None]).max() <= 1


def test_odd_sizes_and_nearest_chroma():
    y, _, v = planes(100, 128, 128, 5, 7)
    u = np.full((3, 4), 128, np.uint8)
    u[0, 0] = 160
    rgb = rgb_from_planes(y, u, v)
    assert rgb.shape == (5, 7, 3)
    touched = np.argwhere(rgb[..., 2] > rgb[4, 6, 2])
    assert {tuple(place) for place in touched} == {(0, 0), (0, 1), (1, 0), (1, 1)}
