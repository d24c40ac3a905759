"""Whole pipelines against released Diffusers: same weights, same draws, same frames."""

import numpy as np
import pytest
import torch

from helios.conditioning.timeline import Blend, Cue, Timeline
from helios.engine.session import FloatPixels
from tests.engine.published import (
    SIZE,
    STEPS,
    arguments,
    as_pictures,
    clip,
    load_published,
    picture,
    run_published,
)

PROMPT = "A red circle moves slowly from left to right."
TOLERANCE = 1e-4
VARIANTS = ("base", "mid", "distilled")


@pytest.fixture(scope="module", params=VARIANTS)
def both(request, tiny, helios_of):
    variant = request.param
    return variant, load_published(tiny(variant), variant), helios_of(variant)


def ours(helios, variant: str, *, seed: int, num_frames: int, prompt: str | None = PROMPT, **settings) -> np.ndarray:
    settings = {"steps": STEPS[variant], "negative_prompt": "blurry", **SIZE, **settings}
    run = {"seed": seed, "num_frames": num_frames, "noise": "reference", "pixels": FloatPixels()}
    return helios.generate(prompt, **run, **settings).frames


def theirs(pipeline, variant: str, *, seed: int, num_frames: int, **more) -> np.ndarray:
    call = {"prompt": PROMPT, "negative_prompt": "blurry", **more}
    return run_published(pipeline, arguments(variant, seed=seed, num_frames=num_frames, **call))


def assert_same(expected: np.ndarray, frames: np.ndarray, asked: int) -> None:
    assert len(frames) == asked
    shared = min(len(expected), asked)
    assert shared >= asked - 3  # The published code cuts the joined video to 4m + 1 frames (Q9).
    assert expected.std() > 0.1
    assert np.abs(expected[:shared] - frames[:shared]).max() <= TOLERANCE


@pytest.mark.parametrize("seed,num_frames", [(42, 66), (7, 99)])
def test_text_to_video(both, seed, num_frames):
    variant, pipeline, helios = both
    expected = theirs(pipeline, variant, seed=seed, num_frames=num_frames)
    assert_same(expected, ours(helios, variant, seed=seed, num_frames=num_frames), num_frames)


def test_image_to_video(both):
    variant, pipeline, helios = both
    expected = theirs(pipeline, variant, seed=3, num_frames=66, image=as_pictures([picture()])[0])
    assert_same(expected, ours(helios, variant, seed=3, num_frames=66, image=picture()), 66)


@pytest.mark.parametrize("length", [70, 140])
def test_video_to_video(both, length):
    variant, pipeline, helios = both
    video = clip(length)
    expected = theirs(pipeline, variant, seed=4, num_frames=66, video=as_pictures(video))
    assert_same(expected, ours(helios, variant, seed=4, num_frames=66, video=video), 66)


def test_picture_without_noise(both):
    variant, pipeline, helios = both
    more = {"image": as_pictures([picture()])[0], "add_noise_to_image_latents": False}
    expected = theirs(pipeline, variant, seed=5, num_frames=33, **more)
    assert_same(expected, ours(helios, variant, seed=5, num_frames=33, image=picture(), motion=0.0), 33)


def test_second_chunk_anchor(both):
    variant, pipeline, helios = both
    expected = theirs(pipeline, variant, seed=6, num_frames=99, is_skip_first_chunk=True)
    assert_same(expected, ours(helios, variant, seed=6, num_frames=99, anchor="second-chunk"), 99)
    first_frame = ours(helios, variant, seed=6, num_frames=99)
    assert np.abs(first_frame[:66] - expected[:66]).max() <= TOLERANCE
    assert np.abs(first_frame[66:97] - expected[66:97]).max() > TOLERANCE


def test_one_step_per_level(both):
    variant, pipeline, helios = both
    steps = tuple(1 for _ in STEPS[variant])
    expected = theirs(pipeline, variant, seed=8, num_frames=33, steps=steps)
    assert_same(expected, ours(helios, variant, seed=8, num_frames=33, steps=steps), 33)


def test_timeline_equals_swapping_embeddings_between_chunks(both):
    """The released pipelines change a prompt only through a callback after a chunk's last step."""
    variant, pipeline, helios = both
    prompts = (PROMPT, "Waves roll onto a quiet beach.")
    timeline = Timeline(cues=(Cue(chunk=0, prompt=prompts[0]), Cue(chunk=1, prompt=prompts[1], change=Blend(chunks=2))))
    with torch.no_grad():
        first, second = (
            pipeline.encode_prompt(p, do_classifier_free_guidance=False, max_sequence_length=512)[0] for p in prompts
        )
    embeds = [first, torch.lerp(first, second, 0.5), second]
    seen = {"calls": 0}
    steps = STEPS[variant]
    per_chunk = [sum(steps) * (2 if variant == "distilled" and chunk == 0 else 1) for chunk in range(3)]

    def swap(pipe, step, timestep, kwargs):
        seen["calls"] += 1
        done = next((i + 1 for i in range(3) if seen["calls"] == sum(per_chunk[: i + 1])), None)
        return {"prompt_embeds": embeds[done]} if done in (1, 2) else {}

    expected = theirs(pipeline, variant, seed=9, num_frames=99, callback_on_step_end=swap)
    assert seen["calls"] == sum(per_chunk)
    assert_same(expected, ours(helios, variant, seed=9, num_frames=99, prompt=None, timeline=timeline), 99)


def test_bfloat16_is_no_further_from_float32_than_the_published_bfloat16(tiny, helios_of):
    from helios import Helios

    for variant in VARIANTS:
        pipeline = load_published(tiny(variant), variant)
        exact = theirs(pipeline, variant, seed=11, num_frames=33)
        pipeline.transformer = type(pipeline.transformer).from_pretrained(
            tiny(variant) / "transformer", torch_dtype=torch.bfloat16
        )
        pipeline.text_encoder.to(torch.bfloat16)
        half = theirs(pipeline, variant, seed=11, num_frames=33)
        helios = Helios.from_pretrained(tiny(variant), device="cpu", dtype="bfloat16")
        mine = ours(helios, variant, seed=11, num_frames=33)
        published_error, error = np.abs(half - exact).mean(), np.abs(mine - exact).mean()
        assert 0 < error <= 1.25 * published_error, variant
