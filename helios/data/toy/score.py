"""Is a video what its sentence says? Right or wrong per attribute, over a whole clip, its ends, or its segments."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from helios.data.toy.analyse import analyse
from helios.data.toy.world import ATTRIBUTES, CHANCE, FPS, NOVEL_SHAPES, SHAPES, TRANSITION_FRAMES, Scene, SceneChange
from helios.errors import InputError


def score(frames: np.ndarray, scene: Scene, *, attributes: tuple[str, ...] = ATTRIBUTES) -> dict[str, bool]:
    """Whether each attribute of the scene can be read from the frames.

    Args:
        frames: uint8 [F, H, W, 3].
        scene: the truth.
        attributes: what to look at, for example ``Caption.stated``.
    Raises: InputError for an unknown attribute, or frames that :func:`analyse` refuses.
    """
    for attribute in attributes:
        if attribute not in ATTRIBUTES:
            raise InputError(f"there is no attribute {attribute!r}: use {', '.join(ATTRIBUTES)}")
    shapes = SHAPES + NOVEL_SHAPES if scene.shape in NOVEL_SHAPES else SHAPES
    read = analyse(frames, shapes=shapes).attributes
    return {attribute: read[attribute] == getattr(scene, attribute) for attribute in attributes}


def score_ends(
    frames: np.ndarray, scene: Scene, *, seconds: float = 5.0, attributes: tuple[str, ...] = ATTRIBUTES
) -> tuple[dict[str, bool], dict[str, bool]]:
    """Scores of the first and of the last seconds of a long video: their difference is drift.

    Raises: InputError when the video is shorter than one such window.
    """
    window = round(seconds * FPS)
    if len(frames) < window or window < 2:
        raise InputError(f"{len(frames)} frames hold no {seconds} s window at {FPS} fps: pass fewer seconds")
    first, last = frames[:window], frames[-window:]
    return score(first, scene, attributes=attributes), score(last, scene, attributes=attributes)


def score_segments(
    frames: np.ndarray, change: SceneChange, *, attributes: tuple[str, ...] = ATTRIBUTES
) -> tuple[dict[str, bool], dict[str, bool]]:
    """Scores of the two halves of a timeline, each against its own scene; the dissolve between them does not count.

    Raises: InputError when a half has fewer than 12 frames to look at.
    """
    before, after = frames[: change.at], frames[change.at + TRANSITION_FRAMES :]
    if min(len(before), len(after)) < 12:
        raise InputError(f"{len(frames)} frames show too little after the change at frame {change.at}: pass 24 more")
    return score(before, change.before, attributes=attributes), score(after, change.after, attributes=attributes)


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers over many videos, per attribute and for "all" attributes of a video at once.

    chance is what blind guessing reaches; counts is how many videos each share is over.
    """

    shares: dict[str, float]
    chance: dict[str, float]
    counts: dict[str, int]

    def __getitem__(self, attribute: str) -> float:
        return self.shares[attribute]


def accuracy(table: Iterable[Mapping[str, bool]]) -> Accuracy:
    """Sum up scores; rows may hold different attributes, "all" counts the rows in which everything is right.

    The chance of "all" is that of a full row.

    Raises: InputError for an empty table.
    """
    rows = [dict(row) for row in table]
    if not rows:
        raise InputError("the table of scores is empty: score one video at least")
    columns = {a: [row[a] for row in rows if a in row] for a in ATTRIBUTES}
    columns = {attribute: answers for attribute, answers in columns.items() if answers}
    columns["all"] = [all(row.values()) for row in rows]
    chance = {attribute: CHANCE[attribute] for attribute in columns if attribute != "all"}
    chance["all"] = float(np.prod(list(chance.values())))
    return Accuracy(
        {attribute: float(np.mean(answers)) for attribute, answers in columns.items()},
        chance,
        {attribute: len(answers) for attribute, answers in columns.items()},
    )
