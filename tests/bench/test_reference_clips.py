"""The two reference clips of HeliosBench, where they are at hand: set HELIOS_BENCH_CLIPS to their folder."""

import os
from pathlib import Path

import pytest

from helios.bench.frames import official
from helios.bench.frames.opening import open_source
from helios.bench.metrics.base import Clip
from helios.bench.metrics.motion import MotionAmplitude
from helios.bench.metrics.suite import offline_metrics
from helios.bench.ratings import offline_drift, rate_offline
from helios.bench.vision import one_thread

FOLDER = os.environ.get("HELIOS_BENCH_CLIPS")
pytestmark = pytest.mark.skipif(not FOLDER, reason="HELIOS_BENCH_CLIPS does not point to the reference clips")
AMPLITUDE = {"2_240_ori81.mp4": 0.19912056624889374, "239_120_ori129.mp4": 0.05887579917907715}
SMOOTHNESS = {
    "2_240_ori81.mp4": (0.9896801, 0.9880413, 0.9897288),
    "239_120_ori129.mp4": (0.9947893, 0.9948747, 0.9951121),
}


def measure(name, backend, *metrics):
    source = open_source(Path(FOLDER) / name, backend=backend)
    fields = {}
    with one_thread():
        running = [metric.begin(Clip(info=source.info)) for metric in metrics]
        for frame in source.frames():
            for accumulator in running:
                accumulator.add(frame)
        for accumulator in running:
            fields |= accumulator.finish()
    return fields


@pytest.mark.skipif(not official.available(), reason="video-reader-rs is not installed")
@pytest.mark.parametrize("name", AMPLITUDE)
def test_motion_amplitude_to_the_last_digit(name):
    assert measure(name, "official", MotionAmplitude())["motion_fb"] == AMPLITUDE[name]


@pytest.mark.parametrize("name", AMPLITUDE)
def test_motion_amplitude_through_pyav(name):
    assert measure(name, "av", MotionAmplitude())["motion_fb"] == pytest.approx(AMPLITUDE[name], rel=1e-3)


@pytest.mark.parametrize(("name", "drift"), [("2_240_ori81.mp4", 8.57), ("239_120_ori129.mp4", 9.14)])
def test_offline_values(name, drift):
    found = measure(name, "av", *offline_metrics())
    assert found["smoothness_dis"] == pytest.approx(SMOOTHNESS[name][0], abs=5e-4)
    assert offline_drift(rate_offline(found)) == pytest.approx(drift, abs=0.005)
    assert found["repeat_ratio"] > 0.9 and found["flicker"] < 0.003 and found["hard_cuts"] == 0
    assert all(0.5 < ratio < 1.4 for ratio in found["seam_ratios"])
