import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from helios.conditioning.guidance import ClassifierFree
from helios.errors import InputError
from helios.schedulers.stages import PyramidStages
from helios.training.network import Network
from helios.training.probes.noise_bands import NoiseBands
from helios.training.probes.rollouts import Rollouts
from tests.training.clips import GEOMETRY, clip
from tests.training.methods.test_dmd import PLAN
from tests.training.methods.test_vae import vae
from tests.training.models import HashedCaptions, transformer

CLIPS = [clip(3, seed=s) for s in range(3)]


def bands(**kwargs) -> NoiseBands:
    network = Network(module=transformer())
    return NoiseBands(network=network, captions=HashedCaptions(), geometry=GEOMETRY, clips=CLIPS, **kwargs)


@torch.no_grad()
def test_bands_are_the_same_every_time_and_whatever_the_batch():
    probe = bands()
    first = probe(0, None)
    assert list(first) == ["loss_sigma_0.875", "loss_sigma_0.625", "loss_sigma_0.375", "loss_sigma_0.125"]
    assert first == probe(10, None)
    for name, value in replace(probe, batch=1)(0, None).items():
        assert value == pytest.approx(first[name], rel=1e-4)


@torch.no_grad()
def test_bands_of_a_pyramid_and_of_a_backbone_without_a_past():
    levels = bands(stages=PyramidStages(), bands=(0.25, 0.75))(0, None)
    assert len(levels) == 6 and all(np.isfinite(value) for value in levels.values())
    assert bands(with_history=False)(0, None) != bands()(0, None)


def rollouts(**kwargs) -> Rollouts:
    network = Network(module=transformer())
    settings = {"plan": PLAN, "vae": vae(), "prompts": ["one", "two", "three"], "chunks": 2, "batch": 2}
    return Rollouts(network=network, captions=HashedCaptions(), **{**settings, **kwargs})


def test_a_rollout_writes_pictures_and_numbers(tmp_path):
    seen = []

    def judge(number, frames):
        seen.append((number, frames.shape, frames.dtype))
        return {"red": 1.0, "moves": 0.0} if number else {"red": 0.0}

    numbers = rollouts(judge=judge)(0, tmp_path)
    assert set(numbers) == {
        f"rollout/{n}" for n in ("seam", "motion", "colour_drift", "contrast_drift", "red", "moves")
    }
    assert numbers["rollout/red"] == pytest.approx(2 / 3) and numbers["rollout/moves"] == 0.0
    assert seen == [(n, (66, 32, 32, 3), np.dtype("uint8")) for n in range(3)]
    entries = json.loads((tmp_path / "rollout.json").read_text())
    assert [entry["prompt"] for entry in entries] == ["one", "two", "three"]
    assert len(entries[0]["latents"]["variance"]) == len(entries[0]["colour_mean"]) == 2
    assert (tmp_path / "rollout.png").is_file()


def test_a_rollout_is_the_same_every_time_and_follows_the_guidance(tmp_path):
    plain = rollouts(prompts=["one"])
    assert plain(0, None) == plain(5, None)
    guided = rollouts(prompts=["one"], plan=replace(PLAN, guidance=ClassifierFree(scale=8.0)))
    assert guided(0, None) != plain(0, None)
    assert list(tmp_path.iterdir()) == []


def test_a_rollout_of_nothing_is_refused():
    with pytest.raises(InputError, match="are no rollout"):
        rollouts(prompts=[])
