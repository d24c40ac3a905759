from dataclasses import replace

import numpy as np
import pytest

from helios.data.toy.render import render
from helios.data.toy.score import accuracy, score, score_ends, score_segments
from helios.data.toy.world import ATTRIBUTES, CHANCE, Scene, SceneChange
from helios.errors import InputError

SCENE = Scene(shape="square", colour="purple", motion="up", seed=1)


def test_a_wrong_sentence_is_wrong_in_just_what_is_wrong():
    frames = render(SCENE, 0, 33)
    assert all(score(frames, SCENE).values())
    for attribute, word in (("shape", "star"), ("colour", "red"), ("motion", "down"), ("background", "sea")):
        wrong = score(frames, replace(SCENE, **{attribute: word}))
        assert [a for a, right in wrong.items() if not right] == [attribute]


def test_only_the_attributes_asked_for_are_scored():
    assert set(score(render(SCENE, 0, 20), SCENE, attributes=("shape", "colour"))) == {"shape", "colour"}


def test_ends_are_read_apart():
    frames = np.concatenate([render(SCENE, 0, 48), render(replace(SCENE, colour="green"), 48, 96)])
    first, last = score_ends(frames, SCENE, seconds=2)
    assert all(first.values()) and [a for a, right in last.items() if not right] == ["colour"]


def test_segments_are_read_against_their_own_scene():
    change = SceneChange(before=SCENE, after=replace(SCENE, colour="yellow", weather="snow"), at=33)
    before, after = score_segments(render(change, 0, 99), change)
    assert all(before.values()) and all(after.values())
    before, after = score_segments(render(SCENE, 0, 99), change)  # the change never arrives
    assert all(before.values()) and [a for a, right in after.items() if not right] == ["colour", "weather"]


def test_accuracy_sums_up():
    table = [{"shape": True, "colour": True}, {"shape": False, "colour": True}, {"shape": True}]
    result = accuracy(table)
    assert result["shape"] == pytest.approx(2 / 3) and result["colour"] == 1.0 and result["all"] == pytest.approx(2 / 3)
    assert result.counts == {"shape": 3, "colour": 2, "all": 3}
    assert result.chance["all"] == pytest.approx(CHANCE["shape"] * CHANCE["colour"])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: score(render(SCENE, 0, 12), SCENE, attributes=("hue",)), "no attribute 'hue'"),
        (lambda: score_ends(render(SCENE, 0, 33), SCENE), "fewer seconds"),
        (
            lambda: score_segments(
                render(SCENE, 0, 40), SceneChange(before=SCENE, after=replace(SCENE, colour="red"), at=33)
            ),
            "after the change",
        ),
        (lambda: accuracy([]), "empty"),
    ],
)
def test_bad_input_is_refused_with_the_way_out(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_every_attribute_has_a_chance_level():
    assert set(CHANCE) == set(ATTRIBUTES) and all(0 < share < 1 for share in CHANCE.values())
