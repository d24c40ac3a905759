"""Faults of known strength: each lowers its own rating and leaves the ratings of unrelated metrics alone."""

import numpy as np
import pytest

from helios.bench.metrics.drift import Drift
from helios.bench.metrics.suite import offline_metrics
from helios.bench.metrics.temporal import Temporal
from helios.bench.ratings import OFFLINE_STEPS, rate_offline
from tests.bench import clips
from tests.bench.scoring import measure

COLOUR = {"lab_shift", "hist_drift", "layout_drift", "drift_saturation"}
FAULTS = {
    # name: (clip, ratings that must fall by two or more, further ratings that may fall with them)
    "saturation": (lambda c: clips.ramp(c, clips.saturate, 1), {"drift_saturation"}, COLOUR),
    "desaturation": (lambda c: clips.ramp(c, clips.desaturate, 1), {"drift_saturation", "hist_drift"}, COLOUR),
    "tint": (lambda c: clips.ramp(c, clips.tint, 1), {"lab_shift", "hist_drift"}, COLOUR),
    "exposure": (lambda c: clips.ramp(c, clips.expose, 1), {"lab_shift", "hist_drift"}, COLOUR | {"drift_sharpness"}),
    "darkening": (lambda c: clips.ramp(c, clips.darken, 1), {"lab_shift", "hist_drift"}, COLOUR | {"drift_sharpness"}),
    "blur": (lambda c: clips.ramp(c, clips.blur, 1), {"drift_sharpness"}, {"drift_saturation"}),
    "noise": (
        lambda c: clips.ramp(c, clips.noise, 1),
        {"drift_noise"},
        {"drift_sharpness", "drift_smoothness_dis", "smoothness_dis"},
    ),
    "flicker": (lambda c: clips.flicker(c, 1), {"flicker", "smoothness_dis"}, set()),
    "freeze": (lambda c: clips.freeze(c, 40), {"freeze_frac"}, set()),
    "loop": (clips.loop, {"repeat_ratio"}, set()),
    "jump back": (lambda c: clips.jump_back(c, 33), {"seam_max", "repeat_ratio"}, set()),
    "oscillation": (lambda c: clips.moving(99, step=(0, 0), oscillation=6), {"smoothness_dis"}, set()),
}


def ratings(clip):
    return rate_offline(measure(clip, *offline_metrics()))


@pytest.fixture(scope="module")
def base():
    return clips.moving(99, step=(0.3, 0.1))


@pytest.fixture(scope="module")
def untouched(base):
    return ratings(base)


def test_the_untouched_clip_leaves_room_to_fall(untouched):
    untouched = dict(untouched)
    assert set(untouched) == set(OFFLINE_STEPS) - {"all_acc"}
    assert untouched.pop("layout_drift") >= 4  # the pan itself moves the layout
    assert all(rating >= 8 for rating in untouched.values()), untouched


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_lowers_its_own_rating_and_no_other(name, base, untouched):
    change, own, related = FAULTS[name]
    found = ratings(change(base))
    assert all(found[metric] <= untouched[metric] - 2 for metric in own), found
    # A clip that is cut or held shows less of its scenery: drift ratings may rise, none may fall.
    others = {metric: rating for metric, rating in found.items() if metric not in own | related}
    fallen = {
        metric: (untouched[metric], rating) for metric, rating in others.items() if rating < untouched[metric] - 1
    }
    assert not fallen


@pytest.mark.parametrize("camera", [{"step": (1.2, 0)}, {"step": (0.6, -0.6)}, {"step": (0, 0), "zoom": 0.003}])
def test_camera_moves_are_no_faults(camera):
    found = ratings(clips.moving(99, **camera))
    temporal = (
        "smoothness_dis",
        "drift_smoothness_dis",
        "seam_max",
        "flicker",
        "freeze_frac",
        "repeat_ratio",
        "drift_noise",
    )
    assert all(found[metric] >= 9 for metric in temporal), found


@pytest.mark.parametrize("name", ["flicker", "blur", "noise", "saturation"])
def test_half_the_strength_hurts_less(name, base):
    own = {"flicker": "flicker", "blur": "drift_sharpness", "noise": "drift_noise", "saturation": "drift_saturation"}[
        name
    ]
    change = {"blur": clips.blur, "noise": clips.noise, "saturation": clips.saturate}.get(name)
    half, full = (
        clips.flicker(base, strength) if change is None else clips.ramp(base, change, strength)
        for strength in (0.5, 1.0)
    )
    metric = Temporal() if own == "flicker" else Drift()
    values = [measure(clip, metric)[own] for clip in (base, half, full)]
    assert values == sorted(values) and len(set(np.round(values, 4))) == 3
