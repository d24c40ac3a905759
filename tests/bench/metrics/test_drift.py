from itertools import pairwise

import numpy as np
import pytest

from helios.bench.metrics.base import Refused
from helios.bench.metrics.drift import Drift
from helios.bench.metrics.statistics import NAMES
from tests.bench import clips
from tests.bench.scoring import measure

BASE = clips.moving(60, step=(0.15, 0.05))


def drift(clip):
    return measure(clip, Drift())


@pytest.mark.parametrize(
    ("fault", "statistic"),
    [
        (clips.saturate, "drift_saturation"),
        (clips.saturate, "hist_drift"),
        (clips.desaturate, "drift_saturation"),
        (clips.blur, "drift_sharpness"),
        (clips.noise, "drift_noise"),
        (clips.expose, "lab_shift"),
        (clips.darken, "lab_shift"),
        (clips.tint, "lab_shift"),
    ],
)
def test_a_stronger_fault_moves_its_statistic_further(fault, statistic):
    found = [drift(clips.ramp(BASE, fault, strength))[statistic] for strength in (0.0, 0.3, 0.6, 1.0)]
    assert all(low < high for low, high in pairwise(found))
    assert found[-1] > 2 * found[0]


def test_a_still_clip_does_not_drift():
    found = drift(np.repeat(BASE[:1], 20, 0))
    assert all(
        value == pytest.approx(0, abs=1e-6) for name, value in found.items() if "drift" in name or "slope" in name
    )


def test_a_bump_in_the_middle_is_seen_by_the_parts_only():
    clip = BASE.copy()
    clip[24:36] = np.clip(clip[24:36] * 0.5, 0, 255)
    found, plain = drift(clip), drift(BASE)
    assert found["drift_luma_mean"] == pytest.approx(plain["drift_luma_mean"])
    assert found["max_dev_luma_mean"] > plain["max_dev_luma_mean"] + 0.2


def test_the_slope_is_per_hundred_frames():
    grey = np.linspace(100, 159, 60).astype(np.uint8)[:, None, None, None]
    found = drift(np.broadcast_to(grey, (60, 16, 16, 3)).copy())
    assert found["slope_luma_mean"] == pytest.approx(100 / 255, rel=0.02)


def test_curves_have_ten_points_of_every_statistic():
    found = drift(BASE)
    assert found["curve_frames"] == [2.5 + 6 * i for i in range(10)]
    assert set(found["curves"]) == {*NAMES, "lab_shift", "hist_drift", "layout_drift"}
    assert all(len(values) == 10 for values in found["curves"].values())
    assert found["curves"]["lab_shift"][0] == found["curves"]["hist_drift"][0] == 0


def test_short_clips():
    assert len(drift(BASE[:8])["curve_frames"]) == 8
    with pytest.raises(Refused, match="needs 8 frames"):
        drift(BASE[:7])
