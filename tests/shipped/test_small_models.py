"""The trained models of the package: Diffusers loads them and gives our frames, and they draw what is asked for."""

import numpy as np
import pytest

from helios import Helios
from helios.checkpoints import inspect, resolve
from helios.checkpoints.embedded import EMBEDDED
from helios.data.toy import ToyClips, score
from helios.engine.prepare import prepare
from helios.engine.session import FloatPixels
from tests.engine.published import STEPS, arguments, load_published, run_published

PROMPT = "a big red circle moves right over the sea by day in clear weather, the camera is still"
VARIANTS = ("base", "mid", "distilled")


@pytest.mark.parametrize("variant", VARIANTS)
def test_diffusers_gives_the_same_frames(variant):
    """The prompt's padding is attended to: Diffusers has to be told the length that the model was trained with.

    Guidance multiplies rounding, step after step: a few pixels move by 1e-4, far below a level of 1/255, the mean by 1e-6.
    """
    folder = resolve(f"small-{variant}")
    pipeline = load_published(folder, variant)
    length = pipeline.tokenizer.model_max_length
    call = arguments(variant, seed=5, num_frames=66, prompt=PROMPT, height=64, width=64, max_sequence_length=length)
    expected = run_published(pipeline, call)
    helios = Helios.from_pretrained(folder, device="cpu", dtype="float32")
    made = helios.generate(
        PROMPT,
        seed=5,
        num_frames=66,
        steps=STEPS[variant],
        guidance=call["guidance_scale"] if variant != "distilled" else None,
        noise="reference",
        pixels=FloatPixels(),
    )
    shared = min(len(expected), 66)
    assert shared >= 63 and expected[:shared].std() > 0.05
    difference = np.abs(expected[:shared] - made.frames[:shared])
    assert difference.max() <= 4e-4 and difference.mean() <= 2e-6


def test_the_default_model_draws_what_the_sentence_says():
    """Eight sentences that were never trained on, one chunk each: far above chance in every attribute."""
    helios = Helios.from_pretrained(device="cpu", dtype="float32")
    clips = ToyClips(seed=31, count=8, split="heldout", complete=True)
    right = []
    for index in range(len(clips)):
        scene, text = clips.describe(index)
        frames = helios.generate(str(text), num_frames=33, seed=index).frames
        right.append([score(frames, scene, attributes=text.stated)[name] for name in ("colour", "background", "time")])
    assert np.mean(right) >= 0.6  # chance is about 0.2


def test_the_package_stays_light():
    total = sum(file.stat().st_size for file in EMBEDDED.rglob("*") if file.is_file())
    assert total <= 36e6


def test_words_that_the_small_model_never_learnt_are_named_before_it_runs(caplog):
    info = inspect(resolve("small-distilled"))
    prepare(info, "a big red circle moves right over the sea by day")
    assert "has not learnt" not in caplog.text
    prepare(info, "a red fox runs over the sea")
    assert "the model has not learnt the words 'fox', 'runs': it reads them letter by letter" in caplog.text
