import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from helios.bench.metrics.statistics import (
    NAMES,
    frame_statistics,
    hellinger,
    lab_grid,
    lab_histogram,
    theil_sen,
)
from tests.bench.clips import texture


def statistics(rgb):
    values = frame_statistics(rgb, cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB))
    return dict(zip(NAMES, values))


def flat(red, green, blue):
    return np.full((24, 32, 3), (red, green, blue), np.uint8)


def test_a_grey_frame_has_no_colour_and_no_detail():
    found = statistics(flat(102, 102, 102))
    assert found["luma_mean"] == pytest.approx(0.4)
    zero = ("luma_std", "saturation", "colourfulness", "lab_a", "lab_b", "sharpness", "noise", "clipped")
    assert all(found[name] == pytest.approx(0, abs=1e-6) for name in zero)


def test_pure_red():
    found = statistics(flat(255, 0, 0))
    assert found["saturation"] == 1 and found["lab_a"] > 0.5 and found["lab_b"] > 0.4
    assert found["colourfulness"] == pytest.approx(0.3 * np.hypot(1, 0.5))


def test_black_and_white_are_clipped():
    assert statistics(flat(0, 0, 0))["clipped"] == statistics(flat(255, 255, 255))["clipped"] == 1


def test_noise_is_estimated_and_sharpness_falls_with_blur():
    rng = np.random.default_rng(0)
    noisy = np.clip(128 + 10 * rng.standard_normal((200, 200, 1)), 0, 255).astype(np.uint8).repeat(3, 2)
    assert statistics(noisy)["noise"] == pytest.approx(10 / 255, rel=0.05)
    picture = texture(80, 120)
    sharp = [statistics(cv2.GaussianBlur(picture, (0, 0), s) if s else picture)["sharpness"] for s in (0, 1, 2, 4)]
    assert sharp == sorted(sharp, reverse=True) and sharp[0] - sharp[-1] > 0.5


def test_histograms():
    first, second = (lab_histogram(cv2.cvtColor(flat(*rgb), cv2.COLOR_RGB2LAB)) for rgb in ((255, 0, 0), (0, 0, 255)))
    assert first.shape == (512,) and first.sum() == pytest.approx(1)
    assert hellinger(first, first) == 0 and hellinger(first, second) == 1
    assert hellinger(first, (first + second) / 2) == pytest.approx(np.sqrt(1 - np.sqrt(0.5)))


def test_the_grid_holds_cell_means():
    lab = np.zeros((12, 20, 3), np.uint8)
    lab[:6, :, 0] = 255
    grid = lab_grid(lab, 2, 4)
    assert grid.shape == (2, 4, 3) and grid[0, :, 0] == pytest.approx(1) and grid[1].max() == 0


@given(arrays(float, st.integers(2, 12), elements=st.floats(-5, 5)), st.floats(-3, 3))
def test_theil_sen_adds_a_slope(values, slope):
    positions = np.arange(len(values), dtype=float)
    assert theil_sen(values + slope * positions, positions) == pytest.approx(
        theil_sen(values, positions) + slope, abs=1e-9
    )


def test_theil_sen_ignores_an_outlier():
    positions = np.arange(11.0)
    values = 2 * positions
    values[5] = 1e6
    assert theil_sen(values, positions) == pytest.approx(2)
    assert theil_sen(values[:1], positions[:1]) == 0
