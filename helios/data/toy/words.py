"""Scenes in words: one canonical sentence, and many free ones.

What a caption leaves out means something. No word about the weather, the camera or the motion means clear, a still
camera, an object that stays; size, background and time of day may be left out whatever they are, and then a caption
leaves them open. ``Caption.stated`` lists what a reader can hold a video to.
"""

from collections.abc import Iterator, Mapping
from typing import Self

import numpy as np

from helios.data.toy.world import VOCABULARY, Scene, Split, check_split, sample_scene

SHAPE_WORDS = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "heart": ("heart",),
}
COLOUR_WORDS = {
    "red": ("red", "crimson"),
    "orange": ("orange",),
    "yellow": ("yellow",),
    "green": ("green",),
    "blue": ("blue",),
    "purple": ("purple", "violet"),
    "pink": ("pink",),
}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "big": ("big", "large")}
MOTION_WORDS: dict[str, tuple[tuple[str, str], ...]] = {
    "left": (
        ("moves left", "moving left"),
        ("moves to the left", "moving to the left"),
        ("glides to the left", "gliding to the left"),
        ("travels from right to left", "travelling from right to left"),
    ),
    "right": (
        ("moves right", "moving right"),
        ("moves to the right", "moving to the right"),
        ("glides to the right", "gliding to the right"),
        ("travels from left to right", "travelling from left to right"),
    ),
    "up": (
        ("moves up", "moving up"),
        ("rises", "rising"),
        ("floats upward", "floating upward"),
        ("climbs", "climbing"),
    ),
    "down": (
        ("moves down", "moving down"),
        ("sinks", "sinking"),
        ("floats downward", "floating downward"),
        ("descends", "descending"),
    ),
    "still": (
        ("stays still", "staying still"),
        ("does not move", "not moving"),
        ("hovers in place", "hovering in place"),
        ("rests", "resting"),
    ),
    "circle": (
        ("moves in a circle", "moving in a circle"),
        ("circles around", "circling around"),
        ("goes round and round", "going round and round"),
        ("loops around", "looping around"),
    ),
    "bounce": (
        ("bounces", "bouncing"),
        ("bounces up and down", "bouncing up and down"),
        ("hops up and down", "hopping up and down"),
        ("jumps up and down", "jumping up and down"),
    ),
}
"""Finite and -ing form; the first pair is the canonical one."""
BACKGROUND_WORDS = {
    "meadow": ("over a meadow", "above a grassy meadow", "over green hills"),
    "sea": ("over the sea", "above the ocean", "over the water"),
    "desert": ("over the desert", "above sandy dunes", "in the desert"),
    "city": ("over the city", "above a city street", "in the city"),
    "mountains": ("over the mountains", "above a mountain valley", "in the mountains"),
}
TIME_WORDS = {
    "day": ("by day", "during the day", "in daylight"),
    "sunset": ("at sunset", "at dusk", "in the evening"),
    "night": ("at night", "by night", "after dark"),
}
WEATHER_WORDS = {
    "clear": ("in clear weather", "in dry weather"),
    "rain": ("in the rain", "in rainy weather", "under falling rain"),
    "snow": ("in the snow", "in snowy weather", "under falling snow"),
}
CAMERA_WORDS = {
    "still": ("the camera is still", "the camera does not move"),
    "left": ("the camera pans left", "the camera pans to the left", "the camera turns left"),
    "right": ("the camera pans right", "the camera pans to the right", "the camera turns right"),
}
_PARTS: dict[str, Mapping[str, tuple[str, ...]]] = {
    "size": SIZE_WORDS,
    "background": BACKGROUND_WORDS,
    "time": TIME_WORDS,
    "weather": WEATHER_WORDS,
    "camera": CAMERA_WORDS,
}

_DEFAULTS = {"motion": "still", "weather": "clear", "camera": "still"}
_OPEN = ("size", "background", "time")
_LEAVE_OUT = {"motion": 0.3, "weather": 0.6, "camera": 0.6, "size": 0.15, "background": 0.12, "time": 0.15}
"""How often a free caption is silent about an attribute (the first three only where silence is true)."""

_BRIEF = 0.08
"""How often it is silent about all of them: "a red circle moves right"."""

TRAIN_FRAMES = (
    "{object} {moves} {background} {time} {weather}, {camera}",
    "{object} {moves} {background} {time} {weather} while {camera}",
    "{object} {moves} {background}, {time} {weather}, {camera}",
    "{object} {moves}, {background} {time} {weather}, {camera}",
    "{object} {moving} {background} {time} {weather}, {camera}",
    "{background} {time}, {object} {moves} {weather}, {camera}",
    "{time} {background}, {object} {moves} {weather} while {camera}",
    "{weather}, {object} {moves} {background} {time}, {camera}",
    "{camera} as {object} {moves} {background} {time} {weather}",
    "there is {object} {moving} {background} {time} {weather}, {camera}",
    "a video of {object} {moving} {background} {time} {weather}, {camera}",
)
"""Sentence frames of the training split. An empty slot takes its comma and joining word with it."""
HELDOUT_FRAMES = (
    "{time} {weather}, {object} {moves} {background} while {camera}",
    "{camera}, there is {object} {moving} {background} {time} {weather}",
    "a video of {object}, {background} {time} {weather}, {moving}, {camera}",
)
"""Orders that no training caption has, made of words that training captions do have."""


class Caption(str):
    """A caption that knows which attributes it states; apart from that, a plain string.

    ``stated`` holds attribute names in the order of the vocabulary, those that are stated by silence included.
    """

    stated: tuple[str, ...]

    def __new__(cls, text: str, stated: tuple[str, ...] = tuple(VOCABULARY)) -> Self:
        caption = super().__new__(cls, text)
        caption.stated = tuple(stated)
        return caption

    def __reduce__(self) -> tuple[type, tuple[str, tuple[str, ...]]]:
        return type(self), (str(self), self.stated)


def canonical(scene: Scene) -> Caption:
    """The one full sentence of a scene: every attribute, always the same words and order.

    >>> canonical(Scene(colour="blue", motion="left", background="sea", time="night", weather="rain"))
    'a big blue circle moves left over the sea at night in the rain, the camera is still'
    """
    slots = {part: words[getattr(scene, part)][0] for part, words in _PARTS.items()}
    moves, moving = MOTION_WORDS[scene.motion][0]
    slots |= {"object": _object(slots["size"], scene.colour, scene.shape), "moves": moves, "moving": moving}
    return Caption(_fill(TRAIN_FRAMES[0], slots))


def caption(scene: Scene, rng: np.random.Generator, split: Split = "train", *, complete: bool = False) -> Caption:
    """A free caption: random frame, synonyms and silence.

    Args:
        rng: the only source of randomness.
        split: "heldout" takes sentence frames that training never uses.
        complete: say every attribute (for measuring all of them).
    Raises: InputError for an unknown split.
    """
    check_split(split)
    frames = TRAIN_FRAMES if split == "train" else HELDOUT_FRAMES
    silent = set() if complete else _silent(scene, rng)
    slots = {part: _pick(rng, words[getattr(scene, part)]) for part, words in _PARTS.items()}
    moves, moving = _pick(rng, MOTION_WORDS[scene.motion])
    colour, shape = _pick(rng, COLOUR_WORDS[scene.colour]), _pick(rng, SHAPE_WORDS[scene.shape])
    slots |= {"moves": moves, "moving": moving}
    slots |= dict.fromkeys(silent, "")
    if "motion" in silent:
        slots |= {"moves": "", "moving": ""}
    slots["object"] = _object(slots["size"], colour, shape)
    text = _fill(_pick(rng, frames), slots)
    if rng.random() < 0.3:
        text = text[0].upper() + text[1:] + "."
    return Caption(text, tuple(a for a in VOCABULARY if a not in silent or a not in _OPEN))


def vocabulary() -> tuple[str, ...]:
    """Every word that a caption can hold, lower case, sorted; for training a tokenizer."""
    phrases: list[str] = ["a", "an", "the", "while", *TRAIN_FRAMES, *HELDOUT_FRAMES]
    for words in (SHAPE_WORDS, COLOUR_WORDS, *_PARTS.values()):
        phrases += [phrase for synonyms in words.values() for phrase in synonyms]
    phrases += [phrase for pairs in MOTION_WORDS.values() for pair in pairs for phrase in pair]
    found = {word.strip(",") for phrase in phrases for word in phrase.split()}
    return tuple(sorted(word for word in found if not word.startswith("{")))


def sentences(count: int, seed: int = 0, split: Split = "train") -> Iterator[Caption]:
    """Captions of random scenes of a split: a corpus for a tokenizer or a text encoder."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield caption(sample_scene(rng, split), rng, split)


def _silent(scene: Scene, rng: np.random.Generator) -> set[str]:
    brief = rng.random() < _BRIEF
    chosen = {attribute for attribute, share in _LEAVE_OUT.items() if rng.random() < share or brief}
    return {a for a in chosen if a in _OPEN or getattr(scene, a) == _DEFAULTS[a]}


def _object(size: str, colour: str, shape: str) -> str:
    words = " ".join(part for part in (size, colour, shape) if part)
    return ("an " if words[0] in "aeiou" else "a ") + words


def _fill(frame: str, slots: dict[str, str]) -> str:
    """Put words into a frame; words that join an empty slot to the rest go too."""
    if not slots["camera"]:
        for joint in (" while {camera}", "{camera} as ", ", {camera}", "{camera}, "):
            frame = frame.replace(joint, "")
    if not slots["moves"]:
        frame = frame.replace("{camera} as ", "{camera}, ")
    text = " ".join(frame.format(**slots).split())
    while ", ," in text or " ," in text:
        text = text.replace(", ,", ",").replace(" ,", ",")
    return text.strip(" ,").replace(",,", ",")


def _pick(rng: np.random.Generator, choices: tuple):
    return choices[rng.integers(len(choices))]
