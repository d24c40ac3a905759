"""The official metrics' frame choice, windows and bookkeeping, with tiny random networks in place of the large ones."""

import numpy as np
import pytest
import torch

from helios.bench.frames.lossless import array_source
from helios.bench.metrics import aesthetic, interpolation, semantic
from helios.bench.metrics.aesthetic import Aesthetic, aesthetic_scores
from helios.bench.metrics.base import Clip, Refused, Unavailable
from helios.bench.metrics.interpolation import MotionSmoothness
from helios.bench.metrics.semantic import Semantic, wanted
from helios.bench.metrics.suite import official_metrics, offline_metrics, runnable, select
from helios.bench.networks.clip import AestheticHead, ImageTower, TowerConfig
from helios.bench.networks.tokens import Tokenizer
from helios.bench.networks.viclip import TextConfig, ViCLIP, ViCLIPConfig
from helios.bench.networks.weights import WeightFolder
from helios.errors import InputError
from tests.bench.clips import moving
from tests.bench.networks.test_clip import randomised
from tests.bench.scoring import measure

TOWER = TowerConfig(width=32, layers=1, heads=2, embedding=16)


@pytest.fixture
def store(tmp_path):
    """A weights folder that holds every file by name; the networks themselves are replaced."""
    names = (
        "ViT-L-14.pt",
        "sa_0_4_vit_l_14_linear.pth",
        "ViClip-InternVid-10M-FLT.pth",
        "bpe_simple_vocab_16e6.txt.gz",
        "amt-s.pth",
    )
    for name in names:
        (tmp_path / name).write_text(name)
    return WeightFolder(path=tmp_path)


@pytest.fixture
def tiny_aesthetic(monkeypatch):
    networks = randomised(ImageTower(TOWER)), randomised(AestheticHead(16))
    monkeypatch.setattr(aesthetic, "aesthetic_networks", lambda *_: networks)
    return networks


@pytest.fixture
def tiny_semantic(monkeypatch):
    text = TextConfig(vocabulary=514, context=32, width=24, layers=1, heads=3, embedding=16)
    networks = randomised(ViCLIP(ViCLIPConfig(vision=TOWER, text=text))), Tokenizer([])
    monkeypatch.setattr(semantic, "semantic_networks", lambda *_: networks)
    return networks


def test_aesthetic_averages_every_frame_and_both_windows(store, tiny_aesthetic):
    clip = moving(40)  # more than one batch
    found = measure(clip, Aesthetic(weights=store, device="cpu"))
    frames = np.stack([frame.scaled for frame in array_source(clip).frames()])
    each = aesthetic_scores(frames, *tiny_aesthetic)
    assert found["aesthetic_score"] == pytest.approx(each.mean(), abs=1e-6)
    assert found["start_aesthetic_score"] == pytest.approx(each[:6].mean(), abs=1e-6)
    assert found["end_aesthetic_score"] == pytest.approx(each[-6:].mean(), abs=1e-6)
    drift = abs(found["start_aesthetic_score"] - found["end_aesthetic_score"])
    assert found["drift_aesthetic_score"] == drift > 0


def test_the_short_set_has_no_drift(store, tiny_aesthetic):
    assert set(measure(moving(9), Aesthetic(weights=store, with_drift=False))) == {"aesthetic_score"}


def test_semantic_scores_three_choices_of_frames(store, tiny_semantic):
    found = measure(moving(40), Semantic(weights=store), prompt="a cat")
    assert found["prompt"] == "a cat"
    assert found["drift_semantic_score"] == abs(found["start_semantic_score"] - found["end_semantic_score"])
    for text in ("a dog", "a cat " * 40):
        assert measure(moving(40), Semantic(weights=store), prompt=text)["semantic_score"] != found["semantic_score"]


def test_semantic_frames():
    info = array_source(np.zeros((81, 16, 16, 3), np.uint8)).info
    chosen = wanted(Clip(info=info), True)
    assert chosen[""][:3] == [4, 14, 24] and chosen["start_"][-1] == 10 and chosen["end_"][0] == 68
    assert set(wanted(Clip(info=info), False)) == {""}


def test_semantic_needs_a_prompt(store, tiny_semantic):
    with pytest.raises(Refused, match="needs a prompt"):
        measure(moving(9), Semantic(weights=store))


class Copy:
    """A predictor that returns the first picture: the error is the motion over one frame."""

    def __init__(self, _network):
        pass

    def between(self, before, after):
        return before


def test_smoothness_reads_the_bilinear_view_and_three_windows(store, monkeypatch):
    monkeypatch.setattr(interpolation, "smoothness_network", lambda *_: torch.nn.Linear(1, 1))
    monkeypatch.setattr(interpolation, "AmtHalfway", Copy)
    steady = np.repeat(moving(1), 20, 0)
    found = measure(steady, MotionSmoothness(weights=store))
    assert found["motion_smoothness_score"] == 1 and found["drift_motion_smoothness_score"] == 0
    late = steady.copy()
    late[16:] = moving(4, step=(3, 0), seed=1)
    found = measure(late, MotionSmoothness(weights=store))
    assert found["start_motion_smoothness_score"] == 1 > found["motion_smoothness_score"]
    assert found["drift_motion_smoothness_score"] == pytest.approx(1 - found["end_motion_smoothness_score"]) != 0


@pytest.mark.parametrize("make", [Aesthetic, Semantic, MotionSmoothness])
def test_other_weights_and_windows_are_another_version(make, store, tmp_path):
    first = make(weights=store).version
    assert make(weights=store, with_drift=False).version != first
    for path in tmp_path.iterdir():
        path.write_text(path.name + " trained further")
    assert make(weights=store).version != first


def test_without_weights_they_are_unavailable_and_amplitude_is_not(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    able, missing = runnable(official_metrics())
    assert [metric.name for metric in able] == ["motion_amplitude"]
    assert set(missing) == {"aesthetic", "motion_smoothness", "semantic", "naturalness"}
    with pytest.raises(Unavailable):
        Aesthetic().check()


def test_weights_that_cannot_be_used_refuse_the_run(store):
    for metric in (Aesthetic(weights=store), Semantic(weights=store), MotionSmoothness(weights=store)):
        with pytest.raises(InputError, match="cannot be read as weights"):
            metric.check()


def test_selection_by_name():
    names = [metric.name for metric in select(offline_metrics(), ("temporal", "drift", "temporal"))]
    assert names == ["temporal", "drift"]
    with pytest.raises(InputError, match="'fvd' is not in this tier"):
        select(offline_metrics(), ("fvd",))
