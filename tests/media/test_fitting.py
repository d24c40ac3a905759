"""Fitting never stretches: a circle stays a circle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helios.errors import InputError
from helios.media import Crop, Pad, fit

SIDES = st.integers(24, 90)


def disc(height, width, radius):
    """[H, W, 3] uint8: a white disc with a soft edge in the middle of black."""
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2)
    return np.repeat((np.clip(radius - distance + 0.5, 0, 1) * 255).astype(np.uint8)[..., None], 3, 2)


def extent(picture):
    """Height and width of the disc, at sub-pixel precision, through its middle row and column."""
    bright = picture[..., 0].astype(float) / 255
    return bright.sum(0).max(), bright.sum(1).max()


@given(SIDES, SIDES, SIDES, SIDES)
@settings(max_examples=60, deadline=None)
def test_circles_stay_circles(height, width, new_height, new_width):
    radius = min(height, width) / 2 - 4
    for how, scale in (
        (Crop(), max(new_height / height, new_width / width)),
        (Pad(), min(new_height / height, new_width / width)),
    ):
        if 2 * radius * scale > min(new_height, new_width):
            continue  # the crop cuts the disc
        fitted = fit(disc(height, width, radius), new_height, new_width, how)
        assert fitted.shape == (new_height, new_width, 3)
        tall, wide = extent(fitted)
        assert tall == pytest.approx(wide, rel=0.05, abs=1.0)
        assert tall == pytest.approx(2 * radius * scale, rel=0.1, abs=1.5)


def test_crop_fills_the_frame_and_pad_shows_everything():
    picture = np.full((20, 40, 3), 255, np.uint8)
    assert (fit(picture, 30, 30, Crop()) == 255).all()
    padded = fit(picture, 30, 30, Pad(color=(9, 8, 7)))
    bars = (padded == (9, 8, 7)).all(-1).all(1)
    assert bars.sum() == 15 and (padded[~bars] == 255).all()


@pytest.mark.parametrize(("x", "colour"), [(0.0, 10), (1.0, 200)])
def test_crop_keeps_the_part_it_is_told_to(x, colour):
    picture = np.full((20, 60, 3), 10, np.uint8)
    picture[:, 30:] = 200
    assert np.abs(fit(picture, 20, 20, Crop(x=x)).astype(int) - colour).max() <= 1


def test_shrinking_is_antialiased():
    """One-pixel stripes turn into even grey; a resize that only picks pixels would keep or lose them."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = fit(stripes, 16, 16, Crop())
    assert np.abs(small[2:-2, 2:-2].astype(int) - 127).max() <= 12


def test_a_video_is_fitted_frame_by_frame_like_a_picture():
    frames = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), np.uint8)
    for how in (Crop(), Pad()):
        fitted = fit(frames, 16, 16, how)
        assert all(np.array_equal(fitted[i], fit(frames[i], 16, 16, how)) for i in range(3))


def test_the_same_shape_of_another_size_is_plain_lanczos():
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    plain = np.asarray(Image.fromarray(picture).resize((30, 20), Image.Resampling.LANCZOS))
    assert np.array_equal(fit(picture, 20, 30, Crop()), plain)
    assert np.array_equal(fit(picture, 20, 30, Pad()), plain)


def test_the_right_size_is_left_alone():
    picture = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    assert fit(picture, 8, 8, Pad()) is picture


@pytest.mark.parametrize(
    "make",
    [
        lambda: Crop(x=1.5),
        lambda: Pad(color=(0, 0, 256)),
        lambda: fit(np.zeros((2, 2, 3), np.uint8), 0, 4, Crop()),
        lambda: fit(np.zeros((2, 2, 3), np.float32), 4, 4, Crop()),
        lambda: fit(np.zeros((2, 2), np.uint8), 4, 4, Crop()),
    ],
)
def test_nonsense_is_refused(make):
    with pytest.raises(InputError):
        make()
