"""Choosing a back end for a file."""

from pathlib import Path
from typing import Literal

from helios.bench.frames.sizes import NominalSize
from helios.bench.frames.source import CHUNK_FRAMES, ClipError, FrameSource
from helios.errors import InputError

FramesBackend = Literal["auto", "official", "av", "cv2"]


def open_source(
    path: str | Path,
    *,
    backend: FramesBackend = "auto",
    size: NominalSize | None = None,
    chunk_frames: int = CHUNK_FRAMES,
) -> FrameSource:
    """The clip behind a path.

    Args:
        backend: ``official`` (video-reader-rs), ``av`` (PyAV), ``cv2`` (OpenCV); ``auto`` takes the official one where
            it is installed and PyAV otherwise.
        size: the benchmark's size rule; 384x640 when None.
        chunk_frames: frames that the model made at a time; a file does not say.
    Raises: ClipError when the file is missing, empty or no video; InputError for an unknown back end.
    """
    path = Path(path)
    if not path.is_file() or path.stat().st_size == 0:
        raise ClipError(f"{path.name}: {'is empty' if path.is_file() else 'no such file'}; pass a video file")
    return source_class(backend)(path, size=size or NominalSize(), chunk_frames=chunk_frames)


def source_class(backend: FramesBackend) -> type:
    """The class that reads files for a back end name. Raises: InputError when it is unknown or not installed."""
    from helios.bench.frames import official

    if backend == "official" or (backend == "auto" and official.available()):
        official.reader_class()
        return official.OfficialSource
    if backend in ("auto", "av"):
        from helios.bench.frames.pyav import PyAVSource

        return PyAVSource
    if backend == "cv2":
        from helios.bench.frames.opencv import OpenCVSource

        return OpenCVSource
    raise InputError(f"frames_backend={backend!r} is unknown: use auto, official, av or cv2")
