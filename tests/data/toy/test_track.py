import numpy as np
import pytest

from helios.data.toy.track import BOUNCE_FRAMES, ORBIT_FRAMES, PAN_SPEED, SPEED, track
from helios.data.toy.world import MOTIONS, Scene, SceneChange

FRAMES = np.arange(200)


@pytest.mark.parametrize(("motion", "step"), [("left", (-1, 0)), ("right", (1, 0)), ("up", (0, -1)), ("down", (0, 1))])
def test_straight_motion_keeps_its_direction_and_speed_for_ever(motion, step):
    late = track(Scene(motion=motion), 10**6 + FRAMES, 64, 64)
    assert np.allclose(np.diff(late.x_F), step[0] * SPEED) and np.allclose(np.diff(late.y_F), step[1] * SPEED)


def test_circling_is_clockwise_and_closed():
    path = track(Scene(motion="circle", seed=4), FRAMES, 64, 64)
    x, y = path.x_F - 32, path.y_F - 32
    assert np.allclose(np.hypot(x, y), np.hypot(x, y)[0])
    assert np.all(x[:-1] * y[1:] - y[:-1] * x[1:] > 0)  # clockwise where y points down
    assert np.allclose(path.x_F[ORBIT_FRAMES], path.x_F[0])


def test_bouncing_never_goes_below_its_floor_and_repeats():
    path = track(Scene(motion="bounce", y=0.7, seed=4), FRAMES, 64, 64)
    assert path.y_F.max() <= 0.7 * 64 + 1e-9 and np.ptp(path.y_F) > 10
    assert np.allclose(path.y_F[BOUNCE_FRAMES:], path.y_F[:-BOUNCE_FRAMES])


def test_the_camera_does_not_touch_the_object():
    still, panned = (track(Scene(motion="right", camera=camera), FRAMES, 64, 64) for camera in ("still", "left"))
    assert np.array_equal(still.x_F, panned.x_F)
    assert not still.camera_F.any() and np.allclose(np.diff(panned.camera_F), -PAN_SPEED)


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("before", ["right", "circle"])
def test_a_change_of_motion_and_pan_goes_on_from_where_things_are(before, motion):
    change = SceneChange(
        before=Scene(motion=before, camera="left", seed=5),
        after=Scene(motion=motion, camera="right", colour="blue"),
        at=33,
    )
    path, old = track(change, FRAMES, 64, 64), track(change.before, FRAMES, 64, 64)
    assert np.array_equal(path.x_F[:33], old.x_F[:33])
    fastest = 3.0  # units per frame
    for series in (path.x_F, path.y_F, path.camera_F):
        assert np.abs(np.diff(series)).max() < fastest
    assert np.allclose(np.diff(path.camera_F[33:]), PAN_SPEED)


def test_a_motion_that_does_not_change_goes_on_undisturbed():
    before = Scene(motion="bounce", seed=5)
    change = SceneChange(before=before, after=Scene(motion="bounce", colour="blue", seed=77), at=33)
    path, alone = track(change, FRAMES, 64, 64), track(before, FRAMES, 64, 64)
    assert np.array_equal(path.x_F, alone.x_F) and np.array_equal(path.y_F, alone.y_F)
