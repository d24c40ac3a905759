import json
from collections import Counter
from itertools import product

import numpy as np
import pytest

from helios.data.toy.track import track
from helios.data.toy.world import (
    ATTRIBUTES,
    BACKGROUNDS,
    CHANCE,
    CHUNK_FRAMES,
    COLOURS,
    HELDOUT_SHARE,
    HOME,
    MOTIONS,
    NOVEL_SHAPES,
    SHAPES,
    VOCABULARY,
    Scene,
    SceneChange,
    Variety,
    is_heldout,
    sample_change,
    sample_scene,
)
from helios.errors import InputError


def _combinations():
    for shape, colour, motion, background in product(SHAPES, COLOURS, MOTIONS, BACKGROUNDS):
        yield Scene(shape=shape, colour=colour, motion=motion, background=background)


def test_heldout_is_about_a_tenth_of_the_combinations_and_leaves_every_pair_of_words_in_training():
    heldout = [scene for scene in _combinations() if is_heldout(scene)]
    total = len(SHAPES) * len(COLOURS) * len(MOTIONS) * len(BACKGROUNDS)
    assert abs(len(heldout) / total - HELDOUT_SHARE) < 0.03
    seen = Counter()
    for scene in _combinations():
        if not is_heldout(scene):
            words = [getattr(scene, a) for a in ("shape", "colour", "motion", "background")]
            seen.update((i, j, words[i], words[j]) for i in range(4) for j in range(i))
    pairs = sum(
        len(a) * len(b)
        for i, a in enumerate((SHAPES, COLOURS, MOTIONS, BACKGROUNDS))
        for b in (SHAPES, COLOURS, MOTIONS, BACKGROUNDS)[:i]
    )
    assert len(seen) == pairs


def test_heldout_does_not_depend_on_what_is_not_in_the_combination():
    for scene in (Scene(), Scene(shape="star", colour="blue")):
        others = [Scene(**(scene.to_dict() | {"size": "small", "time": "night", "seed": 9, "x": 0.3}))]
        assert all(is_heldout(other) == is_heldout(scene) for other in others)


def test_splits_share_no_combination_and_sampling_is_deterministic():
    for split in ("train", "heldout"):
        scenes = [sample_scene(np.random.default_rng(i), split) for i in range(60)]
        assert all(is_heldout(scene) == (split == "heldout") for scene in scenes)
        assert scenes == [sample_scene(np.random.default_rng(i), split) for i in range(60)]


def test_sampling_is_close_to_uniform_over_every_word():
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng) for _ in range(3000)]
    for attribute, words in VOCABULARY.items():
        counts = Counter(getattr(scene, attribute) for scene in scenes)
        assert set(counts) == set(words)
        assert max(abs(counts[word] / 3000 - CHANCE[attribute]) for word in words) < 0.04


def test_less_variety_changes_starts_and_places_and_no_word():
    small = Variety(spread=0.1, places=2)
    for seed in range(60):
        free, tame = (
            sample_scene(np.random.default_rng(seed), "heldout", variety=variety) for variety in (Variety(), small)
        )
        assert tame.attributes == free.attributes and tame.seed in (0, 1)
        x, y = HOME[tame.motion]
        assert abs(tame.x - x) < 0.06 and abs(tame.y - y) < 0.06
    changes = [sample_change(np.random.default_rng(seed), at=33, variety=small) for seed in range(20)]
    assert {change.before.seed for change in changes} == {0, 1}


def test_from_home_an_object_crosses_the_frame_without_leaving_it():
    frames_F = np.arange(CHUNK_FRAMES)
    for motion in MOTIONS:
        x, y = HOME[motion]
        path = track(Scene(motion=motion, x=x, y=y), frames_F, 64, 64)
        for place_F in (path.x_F, path.y_F):
            assert 0.15 * 64 < place_F.min() and place_F.max() < 0.85 * 64, motion


@pytest.mark.parametrize("wrong, says", [({"spread": 1.5}, "spread=1.5"), ({"places": 0}, "places=0")])
def test_impossible_variety_is_refused(wrong, says):
    with pytest.raises(InputError, match=says):
        Variety(**wrong)


def test_novel_shapes_come_only_when_asked_for():
    rng = np.random.default_rng(0)
    assert all(sample_scene(rng).shape in SHAPES for _ in range(200))
    assert sample_scene(rng, shapes=NOVEL_SHAPES).shape == "heart"


@pytest.mark.parametrize("changes", [1, 3])
def test_a_change_differs_in_exactly_the_wanted_number_of_attributes_and_stays_in_its_split(changes):
    for seed in range(40):
        change = sample_change(np.random.default_rng(seed), "heldout", at=33, changes=changes)
        assert len(change.changed) == changes
        assert is_heldout(change.before) and is_heldout(change.after)


def test_scenes_survive_json():
    scene = sample_scene(np.random.default_rng(3))
    assert Scene.from_dict(json.loads(json.dumps(scene.to_dict()))) == scene
    assert tuple(scene.attributes) == ATTRIBUTES


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Scene(colour="bleu"), "did you mean 'blue'"),
        (lambda: Scene(shape="dodecahedron"), "use one of circle, square"),
        (lambda: Scene(x=1.5), "outside the frame"),
        (lambda: Scene(seed=-1), "seed=-1"),
        (lambda: Scene.from_dict({"color": "red"}), "no field 'color'"),
        (lambda: SceneChange(before=Scene(), after=Scene(x=0.2), at=33), "nothing changes"),
        (lambda: SceneChange(before=Scene(), after=Scene(colour="blue"), at=0), "at=0"),
        (lambda: sample_scene(np.random.default_rng(0), "test"), "'train' or 'heldout'"),
        (lambda: sample_change(np.random.default_rng(0), at=33, changes=9), "changes=9"),
    ],
)
def test_bad_input_is_refused_with_the_way_out(build, says):
    with pytest.raises(InputError, match=says):
        build()
