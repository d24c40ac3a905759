import numpy as np
import pytest

from helios.bench.metrics.base import Refused
from helios.bench.metrics.temporal import Temporal, flicker, seam_ratios
from tests.bench.clips import moving
from tests.bench.scoring import measure


def test_flicker_sees_alternation_and_not_a_ramp():
    t = np.arange(50)
    assert flicker(0.4 + 0.005 * t) == pytest.approx(0, abs=1e-12)
    assert flicker(0.5 + 0.01 * (-1.0) ** t) == pytest.approx(0.04)
    assert flicker(np.array([0.1, 0.2])) == 0


def test_seams_are_measured_against_their_surroundings():
    differences = np.full(98, 0.01)
    differences[32], differences[65] = 0.03, 0.01
    assert seam_ratios(differences, 33).tolist() == pytest.approx([3.0, 1.0])
    assert len(seam_ratios(differences[:32], 33)) == 0  # 33 frames are one chunk
    assert len(seam_ratios(differences[:33], 33)) == 1


def test_a_still_neighbourhood_does_not_divide_by_zero():
    assert seam_ratios(np.zeros(65), 33).tolist() == [0.0]
    jump = np.zeros(65)
    jump[32] = 0.1
    assert seam_ratios(jump, 33)[0] > 100


def test_a_brightness_step_per_chunk_raises_every_seam():
    clip = moving(66, step=(0.4, 0.2))
    gains = np.repeat([1.0, 1.04, 1.08], 22)[:, None, None, None]
    stepped = np.clip(clip * gains, 0, 255).astype(np.uint8)
    before, after = (measure(c, Temporal(), chunk_frames=22)["seam_ratios"] for c in (clip, stepped))
    assert len(before) == 2 and all(b + 0.4 < a for b, a in zip(before, after))


def test_one_chunk_has_no_seam():
    assert "seam_max" not in measure(moving(33), Temporal())


def test_frozen_share():
    clip = moving(21)
    clip[11:] = clip[10]
    assert measure(clip, Temporal())["freeze_frac"] == 0.5


def test_two_frames_are_refused():
    with pytest.raises(Refused):
        measure(moving(2), Temporal())
