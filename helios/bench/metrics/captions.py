"""Exact caption accuracy of toy-world clips: the scene is read back from the pixels, no text-video model is needed.

A clip is read in segments of one chunk, so that a long video is held to its caption all the time, a caption that changes
on the way is judged by what was asked for at that moment, and memory does not grow. F frames, H W pixels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from helios.bench.frames.samplers import DRIFT_RATIO
from helios.bench.frames.source import Frame, Pixels
from helios.bench.metrics.base import Clip, Fields, Refused, Tier, require_frames

LEAST_FRAMES = 12
"""A shorter stretch does not show a motion."""


@dataclass(frozen=True, kw_only=True)
class Captions:
    """Accuracy of every attribute of the scene, over the clip and at its two ends.

    Fields: ``<attribute>_acc`` share of segments in which the attribute is read as asked; ``all_acc`` share in which all
    are; ``presence`` share of frames with an object; ``start_all_acc`` and ``end_all_acc`` over the first and last 15 % of
    the segments (one at least), ``drift_captions`` their difference; ``caption_curve`` share of right attributes per
    segment, ``caption_frames`` where each segment begins.
    """

    name: str = "captions"
    tier: Tier = "offline"
    version: str = "1"

    def check(self) -> None:
        """Nothing is needed."""

    def begin(self, clip: Clip) -> "_Segments":
        if clip.scene is None:
            raise Refused(f"{self.name} needs a toy-world scene and {clip.info.name} has none")
        require_frames(clip, LEAST_FRAMES, self.name)
        return _Segments(clip)


def scene_at(scene: Any, start: int, stop: int) -> Any:
    """What frames ``start`` to ``stop`` should show, or None while one scene dissolves into the next."""
    from helios.data.toy.world import TRANSITION_FRAMES, SceneChange

    if not isinstance(scene, SceneChange):
        return scene
    if stop <= scene.at:
        return scene.before
    return scene.after if start >= scene.at + TRANSITION_FRAMES else None


class _Segments:
    def __init__(self, clip: Clip):
        self._scene = clip.scene
        self._length = min(clip.info.chunk_frames, clip.info.num_frames)
        self._waiting: list[Pixels] = []
        self._first = 0
        self._starts: list[int] = []
        self._right: list[dict[str, bool]] = []
        self._presence: list[float] = []

    def add(self, frame: Frame) -> None:
        self._waiting.append(frame.offline)
        if len(self._waiting) == self._length:
            self._read()

    def _read(self) -> None:
        from helios.data.toy.analyse import analyse

        stop = self._first + len(self._waiting)
        scene = scene_at(self._scene, self._first, stop)
        if scene is not None and len(self._waiting) >= min(LEAST_FRAMES, self._length):
            seen = analyse(np.stack(self._waiting))
            self._right.append({name: seen.attributes[name] == word for name, word in scene.attributes.items()})
            self._presence.append(seen.presence)
            self._starts.append(self._first)
        self._waiting, self._first = [], stop

    def finish(self) -> Fields:
        self._read()
        if not self._right:
            raise Refused("captions: every segment lies in the change from one scene to the next")
        every = [all(right.values()) for right in self._right]
        ends = max(1, int(DRIFT_RATIO * len(every)))
        start, end = float(np.mean(every[:ends])), float(np.mean(every[-ends:]))
        return {
            **{f"{name}_acc": float(np.mean([right[name] for right in self._right])) for name in self._right[0]},
            "all_acc": float(np.mean(every)),
            "presence": float(np.mean(self._presence)),
            "start_all_acc": start,
            "end_all_acc": end,
            "drift_captions": abs(start - end),
            "caption_curve": [float(np.mean(list(right.values()))) for right in self._right],
            "caption_frames": self._starts,
        }
