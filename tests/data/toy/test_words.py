import pickle
import re
from dataclasses import replace

import numpy as np
import pytest

from helios.data.toy.words import (
    BACKGROUND_WORDS,
    CAMERA_WORDS,
    COLOUR_WORDS,
    HELDOUT_FRAMES,
    MOTION_WORDS,
    SHAPE_WORDS,
    SIZE_WORDS,
    TIME_WORDS,
    TRAIN_FRAMES,
    WEATHER_WORDS,
    Caption,
    canonical,
    caption,
    sentences,
    vocabulary,
)
from helios.data.toy.world import ATTRIBUTES, VOCABULARY, Scene, sample_scene
from helios.errors import InputError

PHRASES = {
    "shape": SHAPE_WORDS,
    "colour": COLOUR_WORDS,
    "size": SIZE_WORDS,
    "motion": {motion: [form for pair in pairs for form in pair] for motion, pairs in MOTION_WORDS.items()},
    "background": BACKGROUND_WORDS,
    "time": TIME_WORDS,
    "weather": WEATHER_WORDS,
    "camera": CAMERA_WORDS,
}


def _said(text: str, attribute: str) -> set[str]:
    """Words of an attribute whose phrases occur; the longest phrase wins where one holds another."""
    text = text.lower()
    if attribute == "motion":
        cameras = sorted((phrase for phrases in CAMERA_WORDS.values() for phrase in phrases), key=len, reverse=True)
        text = re.sub("|".join(cameras), "", text)
    hits = {p: w for w, phrases in PHRASES[attribute].items() for p in phrases if re.search(rf"\b{p}\b", text)}
    if attribute == "shape":  # "moves in a circle" is no shape
        text = re.sub(r"(moves|moving) in a circle", "", text)
        hits = {p: w for p, w in hits.items() if re.search(rf"\b{p}\b", text)}
    if attribute == "colour":  # "green hills" is no colour of the object
        text = text.replace("green hills", "")
        hits = {p: w for p, w in hits.items() if re.search(rf"\b{p}\b", text)}
    return set(hits.values())


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_a_complete_caption_says_every_attribute_and_says_it_right(split):
    rng = np.random.default_rng(0)
    for _ in range(300):
        scene = sample_scene(rng, split)
        text = caption(scene, rng, split, complete=True)
        assert text.stated == ATTRIBUTES
        for attribute in ATTRIBUTES:
            assert _said(text, attribute) == {getattr(scene, attribute)}, (attribute, text)


def test_a_free_caption_never_lies_and_is_silent_only_where_it_may_be():
    rng = np.random.default_rng(1)
    silent = dict.fromkeys(ATTRIBUTES, 0)
    for _ in range(600):
        scene = sample_scene(rng)
        text = caption(scene, rng)
        for attribute in ATTRIBUTES:
            said = _said(text, attribute)
            assert said <= {getattr(scene, attribute)}, (attribute, text)
            silent[attribute] += not said
            if not said and attribute in text.stated:
                assert (attribute, getattr(scene, attribute)) in {
                    ("motion", "still"),
                    ("weather", "clear"),
                    ("camera", "still"),
                }
            if said:
                assert attribute in text.stated
    assert silent["shape"] == silent["colour"] == 0
    assert all(silent[a] > 0 for a in ATTRIBUTES if a not in ("shape", "colour"))


def test_canonical_is_one_sentence_with_everything_in_it():
    scene = Scene(colour="blue", motion="left", background="sea", time="night", weather="rain")
    text = canonical(scene)
    assert text == "a big blue circle moves left over the sea at night in the rain, the camera is still"
    assert canonical(replace(scene, colour="orange", size="small")).startswith("a small orange")
    assert all(_said(text, a) == {getattr(scene, a)} for a in ATTRIBUTES)


def test_captions_are_clean_english_on_the_surface():
    finite = "|".join(pair[0] for pairs in MOTION_WORDS.values() for pair in pairs)
    for text in sentences(800, seed=4):
        assert not re.search(r"  |,,| ,|^[ ,]|[ ,]$|\{|\}|, while|while$|while .* while", text), text
        if " as " in text:
            assert re.search(rf" as an? [a-z ]+ ({finite}) ", text + " "), text
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text.lower()), text


def test_wording_varies_and_is_deterministic():
    scene = sample_scene(np.random.default_rng(5))
    texts = [str(caption(scene, np.random.default_rng(i))) for i in range(200)]
    assert len(set(texts)) > 150
    assert texts == [str(caption(scene, np.random.default_rng(i))) for i in range(200)]


def test_heldout_phrasings_are_new_orders_of_known_words():
    assert not set(TRAIN_FRAMES) & set(HELDOUT_FRAMES)
    train = {word.strip(".,").lower() for text in sentences(4000, seed=0) for word in text.split()}
    heldout = {word.strip(".,").lower() for text in sentences(500, seed=0, split="heldout") for word in text.split()}
    assert heldout <= train
    assert train <= set(vocabulary())
    assert set(vocabulary()) - train == {"heart"}


def test_every_word_of_the_world_has_phrases():
    for attribute, words in VOCABULARY.items():
        assert set(words) <= set(PHRASES[attribute])
        phrases = [phrase for word in words for phrase in PHRASES[attribute][word]]
        assert len(phrases) == len(set(phrases))


def test_a_caption_is_a_string_that_survives_pickling():
    text = Caption("a red circle", ("shape", "colour"))
    again = pickle.loads(pickle.dumps(text))
    assert again == "a red circle" and again.stated == ("shape", "colour") and isinstance(again, str)


def test_an_unknown_split_is_refused():
    with pytest.raises(InputError, match="'train' or 'heldout'"):
        caption(Scene(), np.random.default_rng(0), "validation")
