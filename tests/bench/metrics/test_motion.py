import numpy as np
import pytest

from helios.bench.metrics.base import Refused
from helios.bench.metrics.motion import MotionAmplitude, shrunk_flow, signed_amplitude
from tests.bench.clips import moving
from tests.bench.scoring import measure

SIZE = {"height": 368, "width": 640}


def amplitude(**camera):
    return measure(moving(3, **SIZE, **camera), MotionAmplitude())


@pytest.mark.parametrize("step", [(2, 0), (-2, 0)])
def test_sideways_motion_counts_half_because_the_other_component_is_zero(step):
    found = amplitude(step=step)
    assert found["motion_fb"] == pytest.approx(1.0, abs=0.03)
    assert found["flow_mag"] == pytest.approx(2.0, abs=0.05)
    assert found["dynamic_frac"] > 0.98


def test_equal_signs_add_and_opposite_signs_cancel():
    same, opposite = amplitude(step=(2, 2)), amplitude(step=(2, -2))
    assert same["motion_fb"] == pytest.approx(2.0, abs=0.06)
    assert opposite["motion_fb"] < 1e-3
    for found in (same, opposite):
        assert found["flow_mag"] == pytest.approx(2.83, abs=0.08)


def test_zoom_cancels_in_the_signed_mean_only():
    found = amplitude(step=(0, 0), zoom=0.01)
    assert found["motion_fb"] < 0.05 and found["flow_mag"] > 1.5


def test_a_still_clip_does_not_move():
    found = measure(np.repeat(moving(1, height=64, width=128), 3, 0), MotionAmplitude())
    assert all(value < 1e-3 for value in found.values())


def test_the_number_of_threads_changes_nothing():
    clip = moving(5, height=64, width=128)
    assert measure(clip, MotionAmplitude(threads=1)) == measure(clip, MotionAmplitude(threads=2))


def test_one_frame_is_refused_or_zero_as_published():
    one = moving(1)
    with pytest.raises(Refused, match="needs 2 frames"):
        measure(one, MotionAmplitude())
    assert measure(one, MotionAmplitude(zero_when_too_short=True))["motion_fb"] == 0.0


def test_the_published_grid():
    flow = np.zeros((368, 640, 2), np.float32)
    flow[..., 0] = 1.5
    small = shrunk_flow(flow)
    assert small.shape == (9, 16, 2)
    assert signed_amplitude(small * 4, 4) == pytest.approx(0.75)
