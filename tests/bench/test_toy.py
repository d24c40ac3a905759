from dataclasses import replace

import numpy as np
import pytest

from helios.bench.metrics.base import Refused
from helios.bench.metrics.captions import Captions, scene_at
from helios.bench.quality import QualityConfig, run
from helios.bench.toy import heldout_prompts, toy_prompts
from helios.bench.videos import from_model
from helios.data.toy.render import render
from helios.data.toy.world import ATTRIBUTES, TRANSITION_FRAMES, SceneChange, is_heldout
from helios.errors import InputError
from tests.bench.scoring import measure

PROMPTS = list(toy_prompts(12).prompts.values())


def painted(scene, num_frames=66):
    return render(scene, 0, num_frames, height=64, width=128)


def test_the_prompt_set_is_fixed_and_half_held_out():
    prompts = toy_prompts()
    assert len(prompts) == 40 and prompts == toy_prompts()
    assert [prompts.get(i) for i in range(1, 13)] == PROMPTS  # a shorter set is a beginning of the longer one
    assert all(is_heldout(prompt.scene) == (prompt.id % 2 == 0) for prompt in prompts.prompts.values())
    assert len({prompt.text for prompt in prompts.prompts.values()}) == 40
    assert prompts.get(1).text.startswith("a small blue star moves in a circle over the sea")
    with pytest.raises(InputError, match="count=0"):
        toy_prompts(0)


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: str(prompt.id))
def test_rendered_clips_are_read_without_error(prompt):
    found = measure(painted(prompt.scene, 33), Captions(), scene=prompt.scene)
    assert all(found[f"{name}_acc"] == 1 for name in (*ATTRIBUTES, "all"))
    assert found["drift_captions"] == 0 and found["presence"] > 0.95


def test_another_scene_is_wrong_in_what_differs():
    scene = replace(PROMPTS[3].scene, colour="blue", background="sea")
    found = measure(painted(PROMPTS[3].scene, 33), Captions(), scene=scene)
    wrong = {name for name in ATTRIBUTES if found[f"{name}_acc"] == 0}
    assert wrong == {name for name in ATTRIBUTES if getattr(PROMPTS[3].scene, name) != getattr(scene, name)} and wrong
    assert found["all_acc"] == 0


def test_shuffled_frames_lose_the_motion_and_noise_loses_everything():
    rng = np.random.default_rng(0)
    moving = [prompt.scene for prompt in PROMPTS if prompt.scene.motion not in ("still",)]
    shuffled = [measure(rng.permutation(painted(scene, 33)), Captions(), scene=scene) for scene in moving]
    assert np.mean([found["motion_acc"] for found in shuffled]) < 0.4
    assert np.mean([found["colour_acc"] for found in shuffled]) > 0.9
    noise = rng.integers(0, 256, (33, 64, 128, 3), dtype=np.uint8)
    assert np.mean([measure(noise, Captions(), scene=scene)["all_acc"] for scene in moving[:4]]) == 0


def test_an_object_that_changes_is_drift():
    scene = PROMPTS[3].scene
    other = replace(scene, colour="green" if scene.colour != "green" else "red")
    clip = np.concatenate([painted(scene, 33), render(other, 33, 99, height=64, width=128)])
    found = measure(clip, Captions(), scene=scene)
    assert (found["start_all_acc"], found["end_all_acc"], found["drift_captions"]) == (1, 0, 1)
    assert found["colour_acc"] == pytest.approx(1 / 3) and found["caption_frames"] == [0, 33, 66]
    assert found["caption_curve"] == pytest.approx([1, 7 / 8, 7 / 8])


def test_a_changed_caption_is_judged_by_what_was_asked_at_the_time():
    before = PROMPTS[3].scene
    change = SceneChange(before=before, after=replace(before, weather="rain", time="day"), at=33)
    found = measure(painted(change, 132), Captions(), scene=change)
    assert found["all_acc"] == 1 and found["caption_frames"] == [0, 66, 99]  # the dissolve is not judged
    assert scene_at(change, 0, 33) == before and scene_at(change, 33, 66) is None
    assert scene_at(change, 33 + TRANSITION_FRAMES, 99) == change.after


def test_what_cannot_be_checked_is_refused():
    clip = painted(PROMPTS[0].scene, 11)
    with pytest.raises(Refused, match="needs a toy-world scene"):
        measure(clip, Captions())
    with pytest.raises(Refused, match="needs 12 frames"):
        measure(clip, Captions(), scene=PROMPTS[0].scene)


class Painter:
    """A model of the toy world that makes no mistake."""

    name, identity, fps, chunk_frames = "painter", "1", 24.0, 33

    def make(self, prompt, num_frames, seed):
        scene = next(p.scene for p in PROMPTS if p.text == prompt)
        for start in range(0, num_frames, 33):
            yield render(scene, start, start + 33, height=64, width=64)


def test_a_perfect_model_gets_a_total(tmp_path):
    chosen = [prompt for prompt in PROMPTS if prompt.scene.camera == "still"][:2]
    outcome = run(from_model(Painter(), chosen, num_frames=66), QualityConfig(out=tmp_path, tier="offline"))
    offline = outcome.merged["offline"]
    assert outcome.exit_code == 0 and offline["averages"]["all_acc"] == 1 and offline["ratings"]["all_acc"] == 10
    assert offline["offline_total"] > 8


def test_held_out_prompts_say_everything_about_scenes_that_training_never_sees():
    from helios.data.toy.world import is_heldout

    prompts = heldout_prompts()
    assert len(prompts) == 200 and prompts == heldout_prompts()
    assert len({prompt.text for prompt in prompts.prompts.values()}) > 195
    assert all(is_heldout(prompt.scene) and prompt.duration == 33 for prompt in prompts.prompts.values())
    assert list(heldout_prompts(3).prompts.items()) == list(prompts.prompts.items())[:3]
    with pytest.raises(InputError, match="count=0"):
        heldout_prompts(0)
