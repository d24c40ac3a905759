"""The benchmark's own prompt set: scenes of the toy world, whose captions can be checked by looking at the pixels."""

from typing import TYPE_CHECKING

from helios.bench.prompts import Prompt, PromptSet
from helios.errors import InputError

if TYPE_CHECKING:
    from helios.data.toy import ToyClips

TOY_COUNT = 40
TOY_FRAMES = 99
HELDOUT_COUNT = 200
CHUNK_FRAMES = 33
SEED = 20260402


def toy_prompts(count: int = TOY_COUNT, *, num_frames: int = TOY_FRAMES) -> PromptSet:
    """The first ``count`` prompts of a fixed, endless list; the default is the set that results are compared on.

    Odd ids are combinations of the training split, even ids held-out ones; every fourth pair of captions is a free one
    that says every attribute, the others are the canonical sentence.

    Args:
        num_frames: duration of every prompt.
    Raises: InputError when ``count`` or ``num_frames`` is not positive.
    """
    import numpy as np

    from helios.data.toy.words import canonical, caption
    from helios.data.toy.world import Split, sample_scene

    if count < 1 or num_frames < 1:
        raise InputError(f"count={count}, num_frames={num_frames}: pass 1 or more")
    prompts = {}
    for number in range(1, count + 1):
        rng = np.random.default_rng((SEED, number))  # a prompt does not depend on how many are asked for
        split: Split = "train" if number % 2 else "heldout"
        scene = sample_scene(rng, split)
        free = (number - 1) // 2 % 4 == 3
        text = caption(scene, rng, split, complete=True) if free else canonical(scene)
        prompts[number] = Prompt(id=number, text=str(text), duration=num_frames, scene=scene)
    return PromptSet(name="toy world", prompts=prompts)


def heldout_prompts(count: int = HELDOUT_COUNT, *, num_frames: int = CHUNK_FRAMES) -> PromptSet:
    """Combinations of attributes and phrasings that training never sees, every attribute said; one chunk each.

    The first ``count`` of a fixed list; the tables of caption accuracy are made with the default.

    Raises: InputError when ``count`` or ``num_frames`` is not positive.
    """
    if count < 1 or num_frames < 1:
        raise InputError(f"count={count}, num_frames={num_frames}: pass 1 or more")
    clips = heldout_clips(count)
    prompts = {}
    for number in range(1, count + 1):
        scene, text = clips.describe(number - 1)
        prompts[number] = Prompt(id=number, text=str(text), duration=num_frames, scene=scene)
    return PromptSet(name="toy world, held out", prompts=prompts)


def heldout_clips(count: int = HELDOUT_COUNT, *, chunks: int = 1) -> "ToyClips":
    """The videos of :func:`heldout_prompts`; clip ``k`` belongs to prompt ``k + 1``, whatever its length.

    Their variety is that of the small models' world; the sentences do not depend on it.

    Raises: InputError when ``count`` or ``chunks`` is not positive.
    """
    from helios.data.toy import SMALL_WORLD, ToyClips

    return ToyClips(seed=SEED, count=count, chunks=chunks, split="heldout", complete=True, variety=SMALL_WORLD)
