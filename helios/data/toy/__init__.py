"""The toy world: endless, described videos for training and for measuring, drawn faster than they are consumed.

>>> from helios.data.toy import ToyClips, score
>>> frames, caption, scene = ToyClips(seed=1, chunks=1)[0]
>>> frames.shape
(33, 64, 64, 3)
>>> all(score(frames, scene).values())
True
"""

from helios.data.toy.analyse import Reading, analyse
from helios.data.toy.clips import ChangingClip, Clip, ToyChanges, ToyClips, write_dataset
from helios.data.toy.render import render
from helios.data.toy.score import Accuracy, accuracy, score, score_ends, score_segments
from helios.data.toy.words import Caption, canonical, caption, sentences, vocabulary
from helios.data.toy.world import (
    ATTRIBUTES,
    CHANCE,
    CHUNK_FRAMES,
    FPS,
    NOVEL_SHAPES,
    SMALL_WORLD,
    VOCABULARY,
    Scene,
    SceneChange,
    Variety,
    is_heldout,
    sample_change,
    sample_scene,
)

__all__ = [
    "ATTRIBUTES",
    "CHANCE",
    "CHUNK_FRAMES",
    "FPS",
    "NOVEL_SHAPES",
    "SMALL_WORLD",
    "VOCABULARY",
    "Accuracy",
    "Caption",
    "ChangingClip",
    "Clip",
    "Reading",
    "Scene",
    "SceneChange",
    "ToyChanges",
    "ToyClips",
    "Variety",
    "accuracy",
    "analyse",
    "canonical",
    "caption",
    "is_heldout",
    "render",
    "sample_change",
    "sample_scene",
    "score",
    "score_ends",
    "score_segments",
    "sentences",
    "vocabulary",
    "write_dataset",
]
