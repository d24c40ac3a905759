"""The words of the toy world: what a scene is, which scenes exist, and which are held out.

A scene is eight attributes, each one word, plus a start position and a seed for the scenery. Everything else (pixels,
captions, the analyser's templates) follows from it, so a scene is the exact description of an endless video.

Lengths are in world units: 1/64 of the smaller side of the frame, hence 1 unit is 1 pixel at 64x64. Times are in frames
at ``FPS``.
"""

from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from hashlib import blake2b
from typing import Any, Literal, get_args

import numpy as np

from helios.errors import InputError

FPS = 24
CHUNK_FRAMES = 33
TRANSITION_FRAMES = 12
"""Frames that a :class:`SceneChange` takes to dissolve from the old look to the new one."""

SHAPES = ("circle", "square", "triangle", "star")
NOVEL_SHAPES = ("heart",)
"""Shapes that can be drawn but are never sampled by default: what a fine-tune can add to a model of this world."""
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
SIZES = ("small", "big")
MOTIONS = ("left", "right", "up", "down", "still", "circle", "bounce")
BACKGROUNDS = ("meadow", "sea", "desert", "city", "mountains")
TIMES = ("day", "sunset", "night")
WEATHERS = ("clear", "rain", "snow")
CAMERAS = ("still", "left", "right")

VOCABULARY: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "size": SIZES,
    "motion": MOTIONS,
    "background": BACKGROUNDS,
    "time": TIMES,
    "weather": WEATHERS,
    "camera": CAMERAS,
}
"""Attribute to its words, in the order in which captions and tables name them."""
ATTRIBUTES = tuple(VOCABULARY)
CHANCE = {attribute: 1 / len(words) for attribute, words in VOCABULARY.items()}
"""Share of right answers that blind guessing reaches, per attribute."""

Split = Literal["train", "heldout"]
HELDOUT_SHARE = 0.1
_HELDOUT_KEY = ("shape", "colour", "motion", "background")
_ALLOWED = VOCABULARY | {"shape": SHAPES + NOVEL_SHAPES}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One endless video, described exactly.

    Args:
        shape, colour, size: the object.
        motion: of the object, in screen coordinates (whatever the camera does). An object that leaves the frame comes
            back on the opposite side at once, so that the motion is true at every moment and no memory is needed to
            go on with it.
        background, time, weather: the place, the time of day, what falls from the sky.
        camera: where the camera pans; panning left moves the scenery to the right.
        x, y: centre of the object at frame 0 (of its orbit for "circle", its lowest point for "bounce") as a fraction
            of the frame's width and height.
        seed: picks the scenery, the paths of drops and flakes and the phase of an orbit; 0 <= seed < 2**32.
    Raises: InputError for a word that the world does not know or a position outside the frame.
    """

    shape: str = "circle"
    colour: str = "red"
    size: str = "big"
    motion: str = "still"
    background: str = "meadow"
    time: str = "day"
    weather: str = "clear"
    camera: str = "still"
    x: float = 0.5
    y: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        for attribute, words in _ALLOWED.items():
            _check_word(attribute, getattr(self, attribute), words)
        if not (0 <= self.x <= 1 and 0 <= self.y <= 1):
            raise InputError(f"the start ({self.x}, {self.y}) is outside the frame: x and y are fractions from 0 to 1")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed={self.seed} is out of range: pass 0 to 2**32 - 1")

    @property
    def attributes(self) -> dict[str, str]:
        """The exact description: attribute to word, without position and seed."""
        return {attribute: getattr(self, attribute) for attribute in ATTRIBUTES}

    def to_dict(self) -> dict:
        """All fields as plain JSON values; :meth:`from_dict` is the inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "Scene":
        """Read what :meth:`to_dict` wrote.

        Raises: InputError for an unknown key or word.
        """
        known = {field.name for field in fields(cls)}
        for key in values:
            if key not in known:
                raise InputError(f"a scene has no field {key!r}: use {', '.join(sorted(known))}")
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class SceneChange:
    """An endless video whose description changes once: ``before`` up to frame ``at``, then ``after``.

    The object goes on from where it is and the camera from where it looks; looks dissolve over
    ``TRANSITION_FRAMES`` frames from ``at`` on, motion and pan turn at once. The position of ``after`` is therefore
    unused; with the seed of ``before`` it keeps the same hills and clouds where the background stays.

    Raises: InputError when ``at`` is not positive, or nothing changes.
    """

    before: Scene
    after: Scene
    at: int

    def __post_init__(self) -> None:
        if self.at < 1:
            raise InputError(f"at={self.at} leaves no frame for the first scene: pass 1 or more")
        if self.before.attributes == self.after.attributes:
            raise InputError("both scenes have the same attributes, so nothing changes: pass one Scene instead")

    @property
    def changed(self) -> tuple[str, ...]:
        """The attributes that differ between the two halves."""
        return tuple(a for a in ATTRIBUTES if getattr(self.before, a) != getattr(self.after, a))

    def to_dict(self) -> dict:
        return {"before": self.before.to_dict(), "after": self.after.to_dict(), "at": self.at}


def is_heldout(scene: Scene) -> bool:
    """Whether the scene's combination of shape, colour, motion and background is kept out of the training split.

    About one combination in ten, fixed for ever by a hash of the four words; a held-out combination appears in
    training at no size, no time of day, in no weather and under no camera.
    """
    key = "|".join(getattr(scene, attribute) for attribute in _HELDOUT_KEY)
    digest = blake2b(key.encode(), digest_size=4, person=b"helios-toy").digest()
    return int.from_bytes(digest, "big") / 2**32 < HELDOUT_SHARE


@dataclass(frozen=True, kw_only=True)
class Variety:
    """How much videos of one description differ from each other.

    A video model has to settle all that its sentence leaves open, and all frames have to settle on the same. The less
    there is, the smaller the model and the shorter the training that can do it; the description stays as rich.

    Args:
        spread: 1 starts objects anywhere where they are wholly visible; towards 0 they start ever closer to the
            ``HOME`` of their motion, from where they cross the frame in the first chunk.
        places: how many sceneries, with their drops, flakes and orbits, each combination of words has.
    Raises: InputError for a spread outside 0 to 1, or no place.
    """

    spread: float = 1.0
    places: int = 2**32

    def __post_init__(self) -> None:
        if not 0 <= self.spread <= 1:
            raise InputError(f"spread={self.spread} is not a share: use 0 (always the same start) to 1 (anywhere)")
        if not 1 <= self.places <= 2**32:
            raise InputError(f"places={self.places} is out of range: use 1 to 2**32")


SMALL_WORLD = Variety(spread=0.12, places=2)
"""What the small models of the package learn in the end and are measured on."""
HOME = {
    "left": (0.8, 0.5),
    "right": (0.2, 0.5),
    "up": (0.5, 0.8),
    "down": (0.5, 0.2),
    "still": (0.5, 0.5),
    "circle": (0.5, 0.5),
    "bounce": (0.5, 0.68),
}
"""Motion to the x and y around which an object starts where variety is small."""


def sample_scene(
    rng: np.random.Generator,
    split: Split = "train",
    *,
    shapes: tuple[str, ...] = SHAPES,
    variety: Variety = Variety(),
) -> Scene:
    """Draw a scene: every attribute uniform over its words, the combination in the wanted split.

    Args:
        rng: the only source of randomness.
        split: "train" or "heldout" (see :func:`is_heldout`).
        shapes: shapes to draw from; pass ``NOVEL_SHAPES`` for clips of an object that the base model never saw (these
            are in neither split and all combinations are drawn).
        variety: how much scenes of one description differ; the words drawn do not depend on it.
    Raises: InputError for an unknown split or shape.
    """
    check_split(split)
    words = VOCABULARY | {"shape": tuple(shapes)}
    while True:
        scene = _draw(rng, words, variety)
        if scene.shape in NOVEL_SHAPES or is_heldout(scene) == (split == "heldout"):
            return scene


def sample_change(
    rng: np.random.Generator, split: Split = "train", *, at: int, changes: int = 1, variety: Variety = Variety()
) -> SceneChange:
    """Draw two scenes of the split that differ in exactly ``changes`` attributes.

    Args:
        at: frame at which the description changes; a multiple of ``CHUNK_FRAMES`` for a model that changes its prompt
            between chunks.
        changes: how many attributes differ, 1 to 8.
        variety: as in :func:`sample_scene`.
    Raises: InputError for an unknown split or impossible numbers.
    """
    if not 1 <= changes <= len(ATTRIBUTES):
        raise InputError(f"changes={changes} is impossible: a scene has {len(ATTRIBUTES)} attributes, pass 1 to 8")
    while True:
        before = sample_scene(rng, split, variety=variety)
        changed = rng.choice(len(ATTRIBUTES), size=changes, replace=False)
        words: dict[str, Any] = {ATTRIBUTES[i]: _other_word(rng, before, ATTRIBUTES[i]) for i in changed}
        after = replace(before, **words)
        if is_heldout(after) == (split == "heldout"):
            return SceneChange(before=before, after=after, at=at)


def check_split(split: str) -> None:
    """Raises: InputError when ``split`` is neither "train" nor "heldout"."""
    if split not in get_args(Split):
        raise InputError(f"there is no split {split!r}: use 'train' or 'heldout'")


_COMFORTABLE = {"circle": ((0.42, 0.58), (0.42, 0.58)), "bounce": ((0.28, 0.72), (0.6, 0.72))}
"""Ranges of x and y from which an object of either size is wholly visible at first (and always, where it can be)."""


def _draw(rng: np.random.Generator, words: dict[str, tuple[str, ...]], variety: Variety) -> Scene:
    scene: dict[str, Any] = {attribute: choices[rng.integers(len(choices))] for attribute, choices in words.items()}
    xs, ys = _COMFORTABLE.get(scene["motion"], ((0.28, 0.72), (0.28, 0.72)))
    anywhere, home = (float(rng.uniform(*xs)), float(rng.uniform(*ys))), HOME[scene["motion"]]
    scene |= {axis: to + variety.spread * (at - to) for axis, at, to in zip("xy", anywhere, home)}
    return Scene(**scene, seed=int(rng.integers(2**32)) % variety.places)


def _other_word(rng: np.random.Generator, scene: Scene, attribute: str) -> str:
    others = [word for word in VOCABULARY[attribute] if word != getattr(scene, attribute)]
    return others[rng.integers(len(others))]


def _check_word(attribute: str, word: str, words: tuple[str, ...]) -> None:
    if word in words:
        return
    near = get_close_matches(str(word), words, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(f"the toy world has no {attribute} {word!r}: {hint}use one of {', '.join(words)}")
