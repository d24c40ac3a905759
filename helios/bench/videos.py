"""What is scored: a folder in the benchmark's naming, a list of files, or a model that is driven here.

A video file is named ``{id}_{target}_ori{true}.mp4``: prompt id, duration tier, frames really in the file.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from helios.bench.frames.lossless import ChunkSource
from helios.bench.frames.opening import FramesBackend, open_source
from helios.bench.frames.sizes import NominalSize
from helios.bench.frames.source import CHUNK_FRAMES, ClipError, FrameSource
from helios.bench.prompts import Prompt, PromptSet
from helios.errors import InputError

_NAME = re.compile(r"^(\d+)_(\d+)_ori(\d+)\.mp4$")
_VIDEO_SUFFIXES = {".mp4", ".webm", ".mkv", ".mov", ".avi", ".gif"}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How frames are read, the same for every video of a run."""

    backend: FramesBackend = "auto"
    size: NominalSize = field(default_factory=NominalSize)
    chunk_frames: int = CHUNK_FRAMES


class Video(Protocol):
    """One thing to score: name, prompt id, prompt and scene, the last three where they are known."""

    @property
    def name(self) -> str: ...
    @property
    def id(self) -> int | None: ...
    @property
    def prompt(self) -> str | None: ...
    @property
    def scene(self) -> Any: ...

    def fingerprint(self) -> str:
        """SHA-256 of what would be measured: the file, or the model's identity with the request."""
        ...

    def open(self, reading: Reading) -> FrameSource:
        """Raises: ClipError when it cannot be read."""
        ...


@dataclass(frozen=True, kw_only=True)
class FileVideo:
    """A video file.

    Attributes:
        announced: frame count in the file's name, or None; a file with fewer frames is truncated.
    """

    path: Path
    id: int | None = None
    prompt: str | None = None
    scene: Any = None
    announced: int | None = None

    @property
    def name(self) -> str:
        return self.path.name

    def fingerprint(self) -> str:
        try:
            with self.path.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise ClipError(f"{self.name}: cannot be read ({error.strerror}); check the file") from error

    def open(self, reading: Reading) -> FrameSource:
        source = open_source(self.path, backend=reading.backend, size=reading.size, chunk_frames=reading.chunk_frames)
        if self.announced is not None and source.info.num_frames < self.announced:
            raise ClipError(
                f"{self.name}: holds {source.info.num_frames} frames and its name says {self.announced}; make it anew "
                "or correct the name"
            )
        return source


class VideoMaker(Protocol):
    """A model, as the benchmark drives it.

    Attributes:
        name: of the model, used in tables.
        identity: changes when the weights or settings change; part of the resume key.
        fps, chunk_frames: of what it makes.
    """

    name: str
    identity: str
    fps: float
    chunk_frames: int

    def make(self, prompt: str, num_frames: int, seed: int) -> Iterator[np.ndarray]:
        """Chunks of uint8 RGB frames [F, H, W, 3], at least ``num_frames`` frames together."""
        ...


@dataclass(frozen=True, kw_only=True)
class MadeVideo:
    """A video that a model makes while it is scored; no codec in between."""

    maker: VideoMaker
    id: int
    prompt: str
    num_frames: int
    seed: int
    scene: Any = None

    @property
    def name(self) -> str:
        return f"{self.id}_{self.num_frames}_seed{self.seed}"

    def fingerprint(self) -> str:
        request = "\0".join([self.maker.identity, self.prompt, str(self.num_frames), str(self.seed)])
        return hashlib.sha256(request.encode("utf-8")).hexdigest()

    def open(self, reading: Reading) -> FrameSource:
        return ChunkSource(
            self.maker.make(self.prompt, self.num_frames, self.seed),
            name=self.name,
            num_frames=self.num_frames,
            fps=self.maker.fps,
            chunk_frames=self.maker.chunk_frames,
            size=reading.size,
        )


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Videos to score, and those left out with the reason."""

    videos: tuple[Video, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    model: str = ""


def from_folder(folder: str | Path, prompts: PromptSet | None = None) -> Listing:
    """The videos of one model's folder, sorted by id.

    Files that are not named ``{id}_{target}_ori{true}.mp4``, and ids without a prompt when prompts are given, are left
    out by name. Raises: InputError when there is no such folder or nothing to score in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"video folder {str(folder)!r} is not a folder: pass one that holds {{id}}_{{target}}_ori{{true}}.mp4"
        )
    videos: list[FileVideo] = []
    skipped: list[tuple[str, str]] = []
    seen: dict[int | None, str] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.suffix.lower() not in _VIDEO_SUFFIXES:
            continue
        found = _named(path, prompts)
        if isinstance(found, str):
            skipped.append((path.name, found))
        elif found.id in seen:
            skipped.append((path.name, f"prompt id {found.id} is already taken by {seen[found.id]}"))
        else:
            seen[found.id] = path.name
            videos.append(found)
    if not videos and not skipped:
        raise InputError(f"{folder}: holds no videos; they are named {{id}}_{{target}}_ori{{true}}.mp4")
    return Listing(
        videos=tuple(sorted(videos, key=lambda video: video.id or 0)), skipped=tuple(skipped), model=folder.name
    )


def _named(path: Path, prompts: PromptSet | None) -> FileVideo | str:
    match = _NAME.match(path.name)
    if match is None:
        return "its name is not {id}_{target}_ori{true}.mp4"
    number, announced = int(match[1]), int(match[3])
    if prompts is None:
        return FileVideo(path=path, id=number, announced=announced)
    prompt = prompts.get(number)
    if prompt is None:
        return f"prompt id {number} is not in {prompts.name}"
    return FileVideo(path=path, id=number, prompt=prompt.text, scene=prompt.scene, announced=announced)


def from_files(paths: Iterable[str | Path], prompts: PromptSet | None = None) -> Listing:
    """Files by path; a name in the benchmark's form gives id and prompt, any other name is scored without them.

    Raises: InputError when the list is empty or two files have one name.
    """
    videos: list[FileVideo] = []
    for path in map(Path, paths):
        match = _NAME.match(path.name)
        prompt = prompts.get(int(match[1])) if match and prompts else None
        videos.append(
            FileVideo(
                path=path,
                id=int(match[1]) if match else None,
                prompt=prompt.text if prompt else None,
                scene=prompt.scene if prompt else None,
                announced=int(match[3]) if match else None,
            )
        )
    names = [video.name for video in videos]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled or not videos:
        problem = f"two files are named {doubled}: rename one" if doubled else "no files given: pass at least one video"
        raise InputError(problem)
    return Listing(videos=tuple(videos), model=videos[0].path.parent.name)


def from_model(
    maker: VideoMaker, prompts: PromptSet | Iterable[Prompt], *, num_frames: int | None = None, seed: int = 0
) -> Listing:
    """A model on a prompt set, one video per prompt.

    Args:
        num_frames: frames of every video; None takes each prompt's duration tier.
        seed: the video of prompt ``id`` is made with ``seed + id``.
    """
    chosen = list(prompts.prompts.values() if isinstance(prompts, PromptSet) else prompts)
    if not chosen or (num_frames is not None and num_frames < 1):
        raise InputError(f"{len(chosen)} prompts and num_frames={num_frames}: pass at least one prompt and one frame")
    videos = tuple(
        MadeVideo(
            maker=maker,
            id=prompt.id,
            prompt=prompt.text,
            scene=prompt.scene,
            num_frames=num_frames or prompt.duration,
            seed=seed + prompt.id,
        )
        for prompt in chosen
    )
    return Listing(videos=videos, model=maker.name)
