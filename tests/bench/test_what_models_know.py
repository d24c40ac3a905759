"""The scripts that ask a model what it decides when, and which words it uses, on the model of the package."""

import json
import sys
from pathlib import Path

import pytest

from helios.data.toy import ATTRIBUTES, Scene

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import noise_levels
import word_use


@pytest.fixture
def results(monkeypatch, tmp_path):
    for script in (noise_levels, word_use):
        monkeypatch.setattr(script, "RESULTS", tmp_path)
    return tmp_path


def test_a_little_noise_loses_nothing_that_is_easy_to_see(results):
    for _ in range(2):  # the second run replaces the first one's entry
        noise_levels.main("small-base", sigmas="0.05", shrink=1, count=2, steps=24, guidance=1.0, threads=2)
    (entry,) = json.loads((results / "noise_levels.json").read_text())
    shares = entry["sigmas"]["0.05"]
    assert all(shares[name] == 1 for name in ("shape", "colour", "size", "motion", "background", "time", "weather"))


def test_a_word_that_is_used_costs_when_it_is_wrong(results):
    word_use.main("small-base", sigmas="0.9", shrink=2, clips="new", count=4, threads=2)
    (entry,) = json.loads((results / "word_use.json").read_text())
    rises = entry["rises"]["0.9"]
    assert set(rises) == {"loss", *ATTRIBUTES}
    assert rises["time"] > 0.1 and rises["background"] > 0.1


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_a_wrong_word_is_one_word(attribute):
    scene = Scene(seed=5)
    wrong = word_use._with_wrong(scene, attribute).attributes
    assert [name for name in ATTRIBUTES if wrong[name] != scene.attributes[name]] == [attribute]
    assert wrong == word_use._with_wrong(scene, attribute).attributes and word_use._with_wrong(scene, None) is scene
