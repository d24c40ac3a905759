"""The two reference clips of HeliosBench, where they are at hand.

HELIOS_BENCH_CLIPS names their folder; with HELIOS_BENCH_WEIGHTS, the folder of the official weights, the networks are held
to the published scores too (prompts from HELIOS_BENCH_PROMPTS, the published table or Self-Forcing's list).
"""

import os
from pathlib import Path

import pytest

from helios.bench.frames import official
from helios.bench.frames.opening import open_source
from helios.bench.metrics.aesthetic import Aesthetic
from helios.bench.metrics.base import Clip
from helios.bench.metrics.interpolation import MotionSmoothness
from helios.bench.metrics.motion import MotionAmplitude
from helios.bench.metrics.semantic import Semantic
from helios.bench.metrics.suite import offline_metrics
from helios.bench.networks.weights import WeightFolder
from helios.bench.prompts import load_prompts
from helios.bench.ratings import offline_drift, rate_offline
from helios.bench.vision import one_thread

FOLDER = os.environ.get("HELIOS_BENCH_CLIPS")
pytestmark = pytest.mark.skipif(not FOLDER, reason="HELIOS_BENCH_CLIPS does not point to the reference clips")
AMPLITUDE = {"2_240_ori81.mp4": 0.19912056624889374, "239_120_ori129.mp4": 0.05887579917907715}
SMOOTHNESS = {
    "2_240_ori81.mp4": (0.9896801, 0.9880413, 0.9897288),
    "239_120_ori129.mp4": (0.9947893, 0.9948747, 0.9951121),
}


def measure(name, backend, *metrics, prompt=None):
    source = open_source(Path(FOLDER) / name, backend=backend)
    fields = {}
    with one_thread():
        running = [metric.begin(Clip(info=source.info, prompt=prompt)) for metric in metrics]
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


WEIGHTS = os.environ.get("HELIOS_BENCH_WEIGHTS")
TABLE = os.environ.get("HELIOS_BENCH_PROMPTS")
PUBLISHED = {
    # clip: (aesthetic, its start and end, semantic, its start and end)
    "2_240_ori81.mp4": (0.6802743, 0.6802361, 0.6778254, 0.2947166, 0.2939551, 0.2983602),
    "239_120_ori129.mp4": (0.6325784, 0.6535003, 0.6001797, 0.2687993, 0.2703956, 0.2615265),
}


def fields(found, score):
    return [found[f"{part}{score}"] for part in ("", "start_", "end_")]


@pytest.mark.skipif(not WEIGHTS, reason="HELIOS_BENCH_WEIGHTS does not point to the official weights")
@pytest.mark.parametrize("name", PUBLISHED)
def test_networks_against_published_scores(name):
    store = WeightFolder(path=Path(WEIGHTS))
    found = measure(name, "auto", Aesthetic(weights=store), MotionSmoothness(weights=store))
    assert fields(found, "aesthetic_score") == pytest.approx(PUBLISHED[name][:3], abs=1e-3)
    assert fields(found, "motion_smoothness_score") == pytest.approx(SMOOTHNESS[name], abs=1e-4)


@pytest.mark.skipif(not (WEIGHTS and TABLE), reason="HELIOS_BENCH_WEIGHTS or HELIOS_BENCH_PROMPTS is not set")
@pytest.mark.parametrize("name", PUBLISHED)
def test_semantic_against_published_scores(name):
    prompt = load_prompts(TABLE).get(int(name.split("_")[0])).text
    found = measure(name, "auto", Semantic(weights=WeightFolder(path=Path(WEIGHTS))), prompt=prompt)
    assert fields(found, "semantic_score") == pytest.approx(PUBLISHED[name][3:], abs=1e-3)
