from dataclasses import replace

import numpy as np
import pytest

from helios.data.toy.analyse import analyse, shrink
from helios.data.toy.render import render
from helios.data.toy.score import accuracy, score
from helios.data.toy.world import (
    ATTRIBUTES,
    CHANCE,
    CHUNK_FRAMES,
    NOVEL_SHAPES,
    SHAPES,
    VOCABULARY,
    Scene,
    sample_scene,
)
from helios.errors import InputError
from tests.data.toy.faults import FAULTS


def _rendered(count: int, seed: int, height: int = 64, width: int = 64, **fixed):
    """Scenes of both splits with a chunk from anywhere in their first two minutes."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        scene = replace(sample_scene(rng, ("train", "heldout")[index % 2]), **fixed)
        start = int(rng.integers(2880))
        yield scene, render(scene, start, start + CHUNK_FRAMES, height=height, width=width)


def _shares(clips) -> dict[str, float]:
    return accuracy(score(frames, scene) for scene, frames in clips).shares


@pytest.mark.parametrize(
    ("height", "width", "count"), [(64, 64, 110), (96, 128, 24), (128, 192, 8), (64, 192, 8), (128, 64, 6)]
)
def test_every_attribute_of_rendered_clips_is_read_exactly(height, width, count):
    assert _shares(_rendered(count, seed=height + width, height=height, width=width)) == dict.fromkeys(
        (*ATTRIBUTES, "all"), 1.0
    )


def test_reading_follows_each_attribute_when_it_alone_changes():
    scene = Scene(shape="star", colour="green", size="small", motion="left", background="sea", seed=6)
    for attribute, words in VOCABULARY.items():
        for word in words:
            changed = replace(scene, **{attribute: word})
            assert analyse(render(changed, 0, 33)).attributes == changed.attributes


def test_noise_is_read_no_better_than_by_chance():
    rng = np.random.default_rng(0)
    noise = ((sample_scene(rng), rng.integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)) for _ in range(40))
    shares = _shares(noise)
    for attribute in ATTRIBUTES:
        assert shares[attribute] <= CHANCE[attribute] + 3 * np.sqrt(CHANCE[attribute] / 40), attribute
    assert shares["all"] == 0


def test_shuffled_frames_keep_the_look_and_lose_motion_and_camera():
    rng = np.random.default_rng(1)

    def shuffled(**fixed):
        for scene, frames in _rendered(24, seed=3, **fixed):
            yield scene, frames[rng.permutation(len(frames))]

    shares = _shares(shuffled(camera="left", motion="right"))
    assert shares["motion"] <= CHANCE["motion"] and shares["camera"] <= CHANCE["camera"]
    assert all(shares[a] == 1.0 for a in ("shape", "colour", "size", "background", "time", "weather"))


def test_an_empty_place_has_no_object_but_is_still_read():
    from helios.data.toy.render import Backdrop

    scene = Scene(background="city", time="sunset")
    frame = np.empty((3, 64, 64), np.float32)
    Backdrop(scene, np.zeros(1), 64, 64).draw(frame, 0)
    reading = analyse(np.repeat(frame.transpose(1, 2, 0)[None].astype(np.uint8), 12, axis=0))
    assert [reading.shape, reading.colour, reading.motion, reading.size] == [None] * 4 and reading.presence == 0
    assert (reading.background, reading.time, reading.weather) == ("city", "sunset", "clear")


@pytest.mark.parametrize("fault", ["noise 20", "blur 1.5", "pale 0.6", "jitter 2", "tint"])
def test_what_a_model_does_to_pictures_does_not_confuse_it(fault):
    rng = np.random.default_rng(2)

    shares = _shares((scene, FAULTS[fault](frames, rng)) for scene, frames in _rendered(16, seed=5))
    assert all(shares[attribute] >= 0.93 for attribute in ATTRIBUTES), shares


def test_compressed_video_is_read_like_the_original():
    rng = np.random.default_rng(4)
    clips = ((scene, FAULTS["H.264 crf 23"](frames, rng)) for scene, frames in _rendered(12, 8, height=128, width=128))
    assert _shares(clips)["all"] == 1.0


def test_a_minute_is_read_like_a_chunk():
    scene = Scene(shape="triangle", motion="circle", camera="left", background="mountains", weather="snow", seed=9)
    reading = analyse(render(scene, 0, 330))
    assert reading.attributes == scene.attributes
    assert reading.presence == 1.0 and reading.pan == pytest.approx(-1.0, abs=0.3)


def test_novel_shapes_are_read_when_asked_for():
    frames = render(Scene(shape="heart", motion="up"), 0, 33)
    assert analyse(frames, shapes=SHAPES + NOVEL_SHAPES).shape == "heart"
    assert analyse(frames).shape in SHAPES


def test_shrinking_is_an_area_average():
    frames = np.random.default_rng(0).integers(0, 256, (2, 128, 192, 3), dtype=np.uint8)
    assert np.allclose(shrink(frames), frames.reshape(2, 64, 2, 96, 2, 3).mean((2, 4)), atol=0.01)
    uneven = np.full((2, 96, 128, 3), 77, np.uint8)
    assert shrink(uneven).shape == (2, 64, 85, 3) and np.allclose(shrink(uneven), 77, atol=0.01)


@pytest.mark.parametrize(
    "frames",
    [np.zeros((4, 64, 64), np.uint8), np.zeros((4, 64, 64, 3), np.float32), np.zeros((1, 64, 64, 3), np.uint8), None],
)
def test_what_is_no_clip_is_refused(frames):
    with pytest.raises(InputError):
        analyse(frames)
