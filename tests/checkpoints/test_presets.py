"""Recommended settings and the optional file in which a checkpoint states its own size."""

import json
import logging

import pytest

from helios.checkpoints.layout import Variant
from helios.checkpoints.presets import OwnSettings, preset_for, read_own_settings, write_own_settings
from helios.conditioning.guidance import ClassifierFree, ClassifierFreeZeroStar
from helios.errors import InputError


def test_steps_follow_the_levels():
    assert preset_for(Variant.MID, levels=2, zero_star=True).steps == (20, 20)
    assert preset_for(Variant.DISTILLED, levels=4, zero_star=False).steps == (2, 2, 2, 2)


def test_a_distilled_model_is_never_guided():
    assert not preset_for(Variant.DISTILLED, levels=3, zero_star=True).guidance.needs_negative


def test_own_settings_survive_the_file(tmp_path):
    own = OwnSettings(num_frames=33, height=64, width=96, random_weights=True)
    write_own_settings(tmp_path, own)
    assert read_own_settings(tmp_path) == own
    published = preset_for(Variant.BASE, levels=1, zero_star=False)
    applied = own.applied_to(published)
    assert (applied.num_frames, applied.height, applied.width) == (33, 64, 96)
    assert (applied.steps, applied.guidance) == (published.steps, published.guidance)


def test_a_guidance_of_its_own_keeps_the_kind_and_leaves_distilled_alone(tmp_path):
    write_own_settings(tmp_path, OwnSettings(guidance=3.0))
    own = read_own_settings(tmp_path)
    base, mid = (
        preset_for(variant, levels=levels, zero_star=star)
        for variant, levels, star in ((Variant.BASE, 1, False), (Variant.MID, 3, True))
    )
    assert own.applied_to(base).guidance == ClassifierFree(scale=3.0)
    assert own.applied_to(mid).guidance == ClassifierFreeZeroStar(scale=3.0)
    distilled = preset_for(Variant.DISTILLED, levels=3, zero_star=False)
    assert own.applied_to(distilled) == distilled


@pytest.mark.parametrize("value", [1, 0.5, "3", True])
def test_a_guidance_that_guides_nothing_is_refused(tmp_path, value):
    (tmp_path / "helios.json").write_text(json.dumps({"guidance": value}))
    with pytest.raises(InputError, match="helios.json says guidance=.*: write a number above 1"):
        read_own_settings(tmp_path)


def test_nothing_to_say_writes_nothing(tmp_path):
    write_own_settings(tmp_path, OwnSettings())
    assert list(tmp_path.iterdir()) == [] and read_own_settings(tmp_path) == OwnSettings()


@pytest.mark.parametrize("value", [0, -64, 1.5, "64", True])
def test_sizes_that_are_none_are_refused(tmp_path, value):
    (tmp_path / "helios.json").write_text(json.dumps({"height": value}))
    with pytest.raises(
        InputError, match=r"helios.json says height=.*: write a whole number above 0 or remove the file"
    ):
        read_own_settings(tmp_path)


def test_settings_of_a_later_version_are_named_and_left_out(tmp_path, caplog):
    (tmp_path / "helios.json").write_text(json.dumps({"height": 64, "depth": 3}))
    with caplog.at_level(logging.WARNING):
        assert read_own_settings(tmp_path) == OwnSettings(height=64)
    assert "settings that Helios does not know: depth" in caplog.text
