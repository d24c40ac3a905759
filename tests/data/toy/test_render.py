from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from helios.data.toy.analyse import _FAINTEST, _opponent, _strength
from helios.data.toy.render import Backdrop, render
from helios.data.toy.sprite import COLOUR_RGB
from helios.data.toy.world import (
    BACKGROUNDS,
    COLOURS,
    TIMES,
    TRANSITION_FRAMES,
    WEATHERS,
    Scene,
    SceneChange,
    sample_change,
    sample_scene,
)
from helios.errors import InputError


@pytest.mark.parametrize("seed", range(6))
def test_any_frame_is_the_same_alone_and_among_others(seed):
    scene = replace(sample_scene(np.random.default_rng(seed)), camera=("still", "left", "right")[seed % 3])
    among = render(scene, 1000, 1080, height=64, width=96)
    for frame in (0, 31, 65, 66, 79):
        assert np.array_equal(render(scene, 1000 + frame, 1001 + frame, height=64, width=96)[0], among[frame])


def test_any_frame_of_a_change_is_the_same_alone_and_among_others():
    change = sample_change(np.random.default_rng(0), at=33, changes=4)
    among = render(change, 20, 60)
    for frame in (0, 12, 13, 18, 24, 25, 39):
        assert np.array_equal(render(change, 20 + frame, 21 + frame)[0], among[frame])


def test_a_change_shows_the_first_scene_before_and_the_second_after_the_dissolve():
    before = Scene(motion="still", background="sea", seed=3)
    after = replace(before, background="city", colour="blue")
    frames = render(SceneChange(before=before, after=after, at=33), 0, 66)
    assert np.array_equal(frames[:33], render(before, 0, 33))
    assert np.array_equal(frames[33 + TRANSITION_FRAMES :], render(after, 33 + TRANSITION_FRAMES, 66))
    steps = np.abs(np.diff(frames.astype(int), axis=0)).mean((1, 2, 3))
    assert (steps[32 : 32 + TRANSITION_FRAMES] > 0).all() and steps.max() < 12  # no cut


@pytest.mark.parametrize(("height", "width"), [(64, 64), (128, 192), (192, 64), (96, 128)])
def test_every_size_is_filled(height, width):
    frames = render(Scene(weather="snow", camera="left"), 0, 3, height=height, width=width)
    assert frames.shape == (3, height, width, 3) and frames.dtype == np.uint8 and frames.flags.c_contiguous


def test_twice_the_resolution_is_the_same_picture():
    for seed in range(5):
        scene = sample_scene(np.random.default_rng(seed))
        small = render(scene, 7, 9).astype(float)
        large = render(scene, 7, 9, height=128, width=128).reshape(2, 64, 2, 64, 2, 3).mean((2, 4))
        assert np.abs(small - large).mean() < 6


def test_scenery_never_reaches_for_an_object_colour():
    frame = np.empty((3, 64, 512), np.float32)
    for background, time, weather in product(BACKGROUNDS, TIMES, WEATHERS):
        scene = Scene(background=background, time=time, weather=weather, seed=8)
        Backdrop(scene, np.zeros(1), 64, 512).draw(frame, 0)
        strength = _strength(_opponent(frame.transpose(1, 2, 0))).max()
        assert strength < _FAINTEST, (background, time, weather, strength)


@pytest.mark.parametrize("colour", COLOURS)
def test_the_object_shows_its_own_colour_in_the_middle_whatever_the_time_of_day(colour):
    for time in TIMES:
        pixel = render(Scene(colour=colour, time=time), 0, 1)[0, 32, 32].astype(float)
        nearest = min(COLOUR_RGB, key=lambda name: np.abs(pixel - COLOUR_RGB[name]).sum())
        assert nearest == colour


def test_the_screen_is_a_torus_for_the_object():
    plain = Scene(background="meadow", seed=2)
    middle, corner = (render(replace(plain, x=x, y=y), 0, 1)[0].astype(int) for x, y in ((0.5, 0.5), (1.0, 0.0)))
    red = [((frame[..., 0] - frame[..., 1]) > 120).sum() for frame in (middle, corner)]
    assert red[0] == red[1] > 300
    assert all((corner[row, column, 0] - corner[row, column, 1]) > 120 for row in (2, 61) for column in (2, 61))


def test_a_pan_carries_the_near_scenery_along_for_ever_and_never_repeats():
    scene = Scene(camera="right", background="city", y=0.2, size="small")
    frames = render(scene, 5000, 5033).astype(int)
    ground = frames[:, 58:]
    assert np.array_equal(ground[0, :, 20:], ground[20, :, :-20])
    far_apart = render(scene, 9000, 9001).astype(int)[:, 45:]
    assert np.abs(far_apart[0] - frames[0, 45:]).mean() > 3


def test_a_still_camera_in_clear_weather_shows_one_unmoving_place():
    frames = render(Scene(motion="still"), 0, 40)
    assert (frames == frames[0]).all()


@pytest.mark.parametrize(("weather", "fastest"), [("rain", 4), ("snow", 1)])
def test_what_falls_falls_and_does_not_repeat(weather, fastest):
    clear, falling = Scene(weather="clear", time="night"), Scene(weather=weather, time="night")
    frames = render(falling, 0, 400).astype(int)[:, :20].mean(-1)
    moving = frames - np.median(frames, axis=0)
    down = (moving[:-1, :-fastest] * moving[1:, fastest:]).mean()
    up = (moving[:-1, fastest:] * moving[1:, :-fastest]).mean()
    assert down > 2 * abs(up)
    gaps = np.abs(frames[100:] - frames[0]).mean((1, 2))
    assert gaps.min() > 1
    assert (render(clear, 0, 2) == render(clear, 9, 11)).all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [((5, 5), "no range"), ((-1, 4), "no range"), ((0, 1, 16, 64), "too small")],
)
def test_bad_input_is_refused_with_the_way_out(arguments, says):
    start, stop, *size = arguments
    with pytest.raises(InputError, match=says):
        render(Scene(), start, stop, **dict(zip(("height", "width"), size)))
