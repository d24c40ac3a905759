"""Where a video may be written: decided by its name, and checked before anything runs."""

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from helios.errors import InputError
from helios.media.record import sidecar_path


class OutputFormat(Enum):
    """What a video is written as, by the ending of its name."""

    MP4 = ".mp4"
    GIF = ".gif"
    WEBP = ".webp"
    NPY = ".npy"
    PNG = ".png"


FRAME_GLOB = "frame_*.png"


@dataclass(frozen=True, kw_only=True)
class OutputTarget:
    """A checked place for a video.

    Attributes:
        path: the finished file, or the folder of a PNG sequence.
        format: what is written there.
        overwrite: whether what is there may be replaced.
    """

    path: Path
    format: OutputFormat
    overwrite: bool

    @property
    def part(self) -> Path:
        """Where the video is while it grows, and stays when a run is cut short."""
        return self.path.with_name(self.path.name + ".part")

    @property
    def sidecar(self) -> Path:
        """The JSON record beside the finished video."""
        return sidecar_path(self.path)

    @property
    def sidecar_part(self) -> Path:
        """The record while the video grows."""
        return self.sidecar.with_name(self.sidecar.name + ".part")


def check_output(path: str | Path, overwrite: bool = False) -> OutputTarget:
    """Refuse a place that a video cannot be written to, before models load and without leaving anything behind.

    A name ending in .mp4, .gif, .webp or .npy is a file; one ending in .png, or in "/", or naming a folder that
    exists, is a folder of PNG frames (for ``NAME.png`` the folder ``NAME``). Missing parent folders are made later,
    when writing starts.

    Raises: InputError for an unknown ending, a place that is taken (unless ``overwrite``) or cannot be written to.
    """
    try:
        target = _target(path, overwrite)
        _check_vacant(target)
        _check_writable(target)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot write to {path} ({_reason(error)}): choose another place") from error
    return target


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _target(path: str | Path, overwrite: bool) -> OutputTarget:
    text, place = os.fspath(path), Path(path)
    suffix = place.suffix.lower()
    if text.endswith(("/", os.sep)) or place.is_dir():
        return OutputTarget(path=place, format=OutputFormat.PNG, overwrite=overwrite)
    if suffix == ".png":
        return OutputTarget(path=place.with_suffix(""), format=OutputFormat.PNG, overwrite=overwrite)
    for known in (OutputFormat.MP4, OutputFormat.GIF, OutputFormat.WEBP, OutputFormat.NPY):
        if suffix == known.value:
            return OutputTarget(path=place, format=known, overwrite=overwrite)
    raise InputError(
        f"{text!r} does not say what to write: end it in .mp4, .webp, .gif or .npy, or in .png or / for a folder of frames"
    )


def _check_vacant(target: OutputTarget) -> None:
    if target.format is OutputFormat.PNG and target.path.exists():
        _check_frame_folder(target.path)
    if target.overwrite:
        return
    for place in (target.path, target.sidecar):
        if taken(place):
            raise InputError(f"{place} exists: choose another name, or replace it with overwrite=True (--force)")
    if holds_something(target.part):
        raise InputError(
            f"{target.part} holds an unfinished earlier run: rename or delete it, or replace it with overwrite=True (--force)"
        )


def _check_frame_folder(folder: Path) -> None:
    """Only a folder that holds nothing but a PNG sequence may ever be replaced, forced or not."""
    if not folder.is_dir():
        raise InputError(f"{folder} is a file, and a folder of frames cannot take its place: choose another name")
    for entry in folder.iterdir():
        if not entry.match(FRAME_GLOB):
            raise InputError(f"{folder} holds other files, such as {entry.name}: name a folder that is new or empty")


def taken(place: Path) -> bool:
    """Whether something is there; an empty folder is nothing."""
    return place.exists() and not (place.is_dir() and not any(place.iterdir()))


def holds_something(part: Path) -> bool:
    """Whether a partial file or folder has content worth keeping."""
    return any(part.iterdir()) if part.is_dir() else part.exists() and part.stat().st_size > 0


def _check_writable(target: OutputTarget) -> None:
    folder = target.path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise InputError(f"cannot write {target.path}: {folder} is a file, not a folder, so choose another place")
    with tempfile.TemporaryFile(dir=folder):
        pass
    with suppress(FileNotFoundError):
        target.sidecar_part.lstat()  # the longest name in use: the file system says here if it is too long
