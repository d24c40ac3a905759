"""The toy world as data: clip number in, video and caption out; and the same written to disk as real data is.

Shape letters: F pixel frames, H W height and width in pixels.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from helios.data.toy.render import render
from helios.data.toy.words import Caption, canonical, caption
from helios.data.toy.world import (
    CHUNK_FRAMES,
    FPS,
    SHAPES,
    Scene,
    SceneChange,
    Split,
    Variety,
    check_split,
    sample_change,
    sample_scene,
)
from helios.errors import InputError


class Clip(NamedTuple):
    """A video of one scene: frames uint8 [F, H, W, 3], a caption, the exact description."""

    frames: np.ndarray
    caption: Caption
    scene: Scene


class ChangingClip(NamedTuple):
    """A video whose scene changes at frame ``change.at``: one caption for each half."""

    frames: np.ndarray
    captions: tuple[Caption, Caption]
    change: SceneChange


@dataclass(frozen=True, kw_only=True)
class ToyClips:
    """Clips of the toy world; number ``index`` is the same for ever for the same settings, on every machine.

    Args:
        seed: picks the clips.
        count: how many there are; None is endless (then ``len`` is refused and iteration never ends).
        chunks: length of a clip, in chunks of 33 frames.
        height, width: in pixels.
        split: "train" or "heldout", of attribute combinations and of phrasings.
        complete: captions that say every attribute.
        shapes: shapes to draw; ``NOVEL_SHAPES`` for the fine-tuning example.
        variety: how much clips of one description differ.
    Raises: InputError for impossible numbers or an unknown split.
    """

    seed: int = 0
    count: int | None = None
    chunks: int = 4
    height: int = 64
    width: int = 64
    split: Split = "train"
    complete: bool = False
    shapes: tuple[str, ...] = SHAPES
    variety: Variety = Variety()

    def __post_init__(self) -> None:
        _check_numbers(self.seed, self.count, self.chunks, least_chunks=1)
        check_split(self.split)

    def __len__(self) -> int:
        return _length(self.count)

    def __getitem__(self, index: int) -> Clip:
        scene, text = self.describe(index)
        frames = render(scene, 0, self.chunks * CHUNK_FRAMES, height=self.height, width=self.width)
        return Clip(frames, text, scene)

    def __iter__(self) -> Iterator[Clip]:
        return _all(self)

    def describe(self, index: int) -> tuple[Scene, Caption]:
        """What clip ``index`` shows and says, without drawing it."""
        rng = np.random.default_rng([self.seed, _checked(index, self.count)])
        scene = sample_scene(rng, self.split, shapes=self.shapes, variety=self.variety)
        return scene, caption(scene, rng, self.split, complete=self.complete)

    def chunk(self, index: int, number: int) -> np.ndarray:
        """Chunk ``number`` of clip ``index`` alone: uint8 [33, H, W, 3]; any number, the clip's video never ends."""
        scene, _ = self.describe(index)
        start = number * CHUNK_FRAMES
        return render(scene, start, start + CHUNK_FRAMES, height=self.height, width=self.width)


@dataclass(frozen=True, kw_only=True)
class ToyChanges:
    """Clips whose description changes at a chunk boundary somewhere in the middle; otherwise like :class:`ToyClips`.

    Args:
        changes: how many attributes differ between the halves.
    """

    seed: int = 0
    count: int | None = None
    chunks: int = 4
    height: int = 64
    width: int = 64
    split: Split = "train"
    complete: bool = False
    changes: int = 1
    variety: Variety = Variety()

    def __post_init__(self) -> None:
        _check_numbers(self.seed, self.count, self.chunks, least_chunks=2)
        check_split(self.split)

    def __len__(self) -> int:
        return _length(self.count)

    def __getitem__(self, index: int) -> ChangingClip:
        change, texts = self.describe(index)
        frames = render(change, 0, self.chunks * CHUNK_FRAMES, height=self.height, width=self.width)
        return ChangingClip(frames, texts, change)

    def __iter__(self) -> Iterator[ChangingClip]:
        return _all(self)

    def describe(self, index: int) -> tuple[SceneChange, tuple[Caption, Caption]]:
        """What clip ``index`` shows and says, without drawing it. Both captions say what changes."""
        rng = np.random.default_rng([self.seed, _checked(index, self.count), 1])
        at = int(rng.integers(1, self.chunks)) * CHUNK_FRAMES
        change = sample_change(rng, self.split, at=at, changes=self.changes, variety=self.variety)
        before, after = (self._caption(scene, rng, change.changed) for scene in (change.before, change.after))
        return change, (before, after)

    def _caption(self, scene: Scene, rng: np.random.Generator, needed: tuple[str, ...]) -> Caption:
        while True:
            text = caption(scene, rng, self.split, complete=self.complete)
            if set(needed) <= set(text.stated):
                return text


def write_dataset(
    out: str | Path,
    clips: ToyClips | ToyChanges,
    *,
    count: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write clips as MP4 files with a ``metadata.jsonl`` beside them, the layout that real data uses.

    One line of JSON per clip: ``file`` (relative to the metadata), ``caption``, ``captions`` (more wordings; the first
    is ``caption``), ``fps``, ``frames``, ``height``, ``width``, and ours: ``scene``, the exact description. A clip that
    changes has two lines, one per half, told apart by ``cut`` [first frame, end), which readers of real data know; both
    hold the whole ``timeline``: ``[{"frame": 0, "caption": ...}, {"frame": k, "caption": ...}]``.

    Args:
        out: folder, made if missing.
        count: how many clips; None means all of them.
        overwrite: replace files that are there.
        progress: called with (clips done, clips to do) after each clip.
    Returns: path of the metadata file, written last, so that it only names whole files.
    Raises: InputError when the place is taken or cannot be written, or when ``clips`` are endless and count is None.
    """
    folder, total = Path(out), len(clips) if count is None else count
    metadata = folder / "metadata.jsonl"
    if metadata.exists() and not overwrite:
        raise InputError(f"{metadata} exists: choose another folder or overwrite it")
    lines: list[dict] = []
    for index in range(total):
        lines += _write_clip(folder, index, clips, overwrite)
        progress(index + 1, total)
    folder.mkdir(parents=True, exist_ok=True)
    part = metadata.with_suffix(".jsonl.part")
    part.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    part.replace(metadata)
    return metadata


def _write_clip(folder: Path, index: int, clips: ToyClips | ToyChanges, overwrite: bool) -> list[dict]:
    """Write one video; returns its lines of metadata."""
    from helios.media import open_writer

    clip = clips[index]
    frames, height, width, _ = clip.frames.shape
    facts = {"file": f"clips/{index:06d}.mp4", "fps": FPS, "frames": frames, "height": height, "width": width}
    lines = [facts | texts for texts in (_texts(clip) if isinstance(clip, Clip) else _halves(clip))]
    size = {"fps": FPS, "height": height, "width": width, "num_frames": frames}
    with open_writer(folder / facts["file"], **size, record={"toy": lines}, overwrite=overwrite) as writer:
        for start in range(0, frames, CHUNK_FRAMES):
            writer.write(clip.frames[start : start + CHUNK_FRAMES])
    return lines


def _texts(clip: Clip) -> list[dict]:
    captions = list(dict.fromkeys([str(clip.caption), str(canonical(clip.scene))]))
    return [{"caption": captions[0], "captions": captions, "scene": clip.scene.to_dict()}]


def _halves(clip: ChangingClip) -> list[dict]:
    at, scenes = clip.change.at, (clip.change.before, clip.change.after)
    timeline = [{"frame": frame, "caption": str(text)} for frame, text in zip((0, at), clip.captions)]
    return [
        {
            "caption": str(text),
            "captions": [str(text)],
            "cut": list(cut),
            "timeline": timeline,
            "scene": scene.to_dict(),
        }
        for text, scene, cut in zip(clip.captions, scenes, ((0, at), (at, len(clip.frames))))
    ]


def _all(clips) -> Iterator:
    index = 0
    while clips.count is None or index < clips.count:
        yield clips[index]
        index += 1


def _length(count: int | None) -> int:
    if count is None:
        raise TypeError("these clips never end: set count to give them a length")
    return count


def _checked(index: int, count: int | None) -> int:
    if count is not None and -count <= index < 0:
        index += count
    if index < 0 or (count is not None and index >= count):
        raise IndexError(f"clip {index} of {'endless' if count is None else count} does not exist")
    return index


def _check_numbers(seed: int, count: int | None, chunks: int, *, least_chunks: int) -> None:
    if seed < 0:
        raise InputError(f"seed={seed} is out of range: pass 0 or more")
    if count is not None and count < 1:
        raise InputError(f"count={count} makes no clips: pass 1 or more, or None for an endless supply")
    if chunks < least_chunks:
        raise InputError(f"chunks={chunks} is too short: pass {least_chunks} or more")
