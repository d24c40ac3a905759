"""Write a video chunk by chunk, so that whatever happens, the finished chunks are on disk and play.

Letters: F frames, H W height and width in pixels.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from helios.errors import GenerationError, InputError
from helios.media.containers.base import Container, VideoShape
from helios.media.output import OutputFormat, OutputTarget, check_output, taken
from helios.media.record import dump_record
from helios.media.stores import FileStore, FolderStore, Store
from helios.media.timing import frame_rate

logger = logging.getLogger(__name__)


def open_writer(
    path: str | Path,
    *,
    fps: float,
    height: int,
    width: int,
    num_frames: int | None,
    record: Mapping[str, Any],
    overwrite: bool = False,
    as_float: bool = False,
) -> "VideoWriter":
    """Start writing a video; its ending says the format (see :func:`helios.media.check_output`).

    Args:
        fps: playback rate in frames per second.
        height, width: of every frame, in pixels. MP4 stores even sizes: an odd side gains one repeated row or column.
        num_frames: how many frames make the video whole; None for a live stream, whole whenever it is ended.
        record: how the video is made; JSON values only. Goes into the MP4's metadata and the JSON beside the file.
        overwrite: replace what has the name, once the new video is whole.
        as_float: keep float32 in [0, 1] instead of uint8; .npy only.
    Returns: a context manager. Until it ends well the video is ``NAME.part``, whole up to its last finished chunk.
    Raises: InputError when the place is taken or cannot be written to, or the format cannot hold such a video.
    """
    target = check_output(path, overwrite)
    shape = VideoShape(fps=frame_rate(fps), height=height, width=width)
    if num_frames is not None and num_frames < 1:
        raise InputError(f"num_frames={num_frames} makes no video: use 1 or more")
    if as_float and target.format is not OutputFormat.NPY:
        raise InputError(f"{target.path.name} cannot hold float32 frames: use a name ending in .npy")
    record_text = dump_record(record, indent=2) + "\n"
    try:
        target.path.absolute().parent.mkdir(parents=True, exist_ok=True)
        store = _open_store(target, shape, record, as_float)
        _write_beside(target, store, record_text)
    except OSError as error:
        raise InputError(f"cannot write to {path} ({error.strerror}): choose another place") from error
    return VideoWriter(target, store, shape, num_frames=num_frames, record=record, as_float=as_float)


def _write_beside(target: OutputTarget, store: Store, record_text: str) -> None:
    try:
        _write_text(target.sidecar_part, record_text)
    except OSError:
        store.close()
        target.sidecar_part.unlink(missing_ok=True)
        raise


def _open_store(target: OutputTarget, shape: VideoShape, record: Mapping[str, Any], as_float: bool) -> Store:
    if target.format is OutputFormat.PNG:
        return FolderStore(target)
    return FileStore(target, _container(target.format, shape, record, as_float))


def _container(kind: OutputFormat, shape: VideoShape, record: Mapping[str, Any], as_float: bool) -> Container:
    """The container of a format; each loads only the libraries it needs."""
    if kind is OutputFormat.MP4:
        from helios.media.containers.mp4 import Mp4Container

        return Mp4Container(shape, record)
    if kind is OutputFormat.GIF:
        from helios.media.containers.gif import GifContainer

        return GifContainer(shape)
    if kind is OutputFormat.WEBP:
        from helios.media.containers.webp import WebpContainer

        return WebpContainer(shape)
    from helios.media.containers.npy import NpyContainer

    return NpyContainer(shape, np.dtype(np.float32 if as_float else np.uint8))


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)


class VideoWriter:
    """A video that is being written; made by :func:`open_writer`.

    Leaving the ``with`` block gives the file its name. Leaving it by an exception, Ctrl-C included, keeps the finished
    chunks as a ``.part`` file that plays; so does a killed process or a full disk.

    Attributes:
        path: the name the video will have.
        part_path: the name it has until then.
        record: how the video is made. May be added to until the end, when it is written for good.
        frames_written, chunks_written: what is on disk.
    """

    def __init__(
        self,
        target: OutputTarget,
        store: Store,
        shape: VideoShape,
        *,
        num_frames: int | None,
        record: Mapping[str, Any],
        as_float: bool,
    ) -> None:
        self.path = target.path
        self.part_path = target.part
        self.record = dict(record)
        self.frames_written = 0
        self.chunks_written = 0
        self._target = target
        self._store = store
        self._shape = shape
        self._num_frames = num_frames
        self._as_float = as_float
        self._open = True
        self._told = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        elif not self._told:
            self.abandon()
            logger.warning("writing %s stopped: %s", self.path, self.kept)

    def write(self, frames: np.ndarray) -> None:
        """Add a chunk of one frame or more; once this returns, the chunk survives whatever happens to the process.

        Args:
            frames: [F, H, W, 3], uint8 or float in [0, 1]; converted to what the file holds.
        Raises: GenerationError when the disk is full or fails, saying what is kept; ValueError for frames of another
            form, or more of them than announced.
        """
        self._check_open()
        self._check_frames(frames)
        try:
            self._store.append(_as_pixels(frames, self._as_float))
        except OSError as error:
            raise self._failed(f"failed ({error.strerror})") from error
        except BaseException:
            self.abandon()
            raise
        self.frames_written += len(frames)
        self.chunks_written += 1

    def finish(self) -> Path:
        """Give the video and the JSON beside it their names; returns the video's.

        Raises: GenerationError when frames are missing, the name was taken meanwhile, or the disk is full or fails;
            the ``.part`` file stays.
        """
        self._check_open()
        missing = self._num_frames is not None and self.frames_written != self._num_frames
        if missing or not self.frames_written:
            raise self._failed(f"ended at frame {self.frames_written} of {self._num_frames or 'any'}")
        if not self._target.overwrite and taken(self.path):
            raise self._failed("was refused, as another program has made that file meanwhile")
        try:
            _write_text(self._target.sidecar_part, dump_record(self.record, indent=2) + "\n")
            self._store.publish(self.record)
            os.replace(self._target.sidecar_part, self._target.sidecar)
        except OSError as error:
            raise self._failed(f"failed ({error.strerror})") from error
        self._open = False
        return self.path

    def abandon(self) -> None:
        """Stop here: keep the finished chunks under the ``.part`` name, or nothing when there are none."""
        if self._open:
            self._open = False
            self._store.close()
            if not self.frames_written:
                self._target.sidecar_part.unlink(missing_ok=True)

    @property
    def kept(self) -> str:
        """What is left of a video that was not finished, in words."""
        if not self.frames_written:
            return "no chunk was finished, so nothing is kept"
        chunks = f"{self.chunks_written} finished chunk{'s' if self.chunks_written > 1 else ''}"
        return f"the {chunks} ({self.frames_written} frames) can be played from {self.part_path}"

    def _failed(self, how: str) -> GenerationError:
        self.abandon()
        self._told = True
        return GenerationError(f"writing {self.path} {how}: {self.kept}")

    def _check_open(self) -> None:
        if not self._open:
            raise ValueError(f"the writer of {self.path} is closed")

    def _check_frames(self, frames: np.ndarray) -> None:
        wanted = (self._shape.height, self._shape.width, 3)
        if frames.ndim != 4 or frames.shape[1:] != wanted or not len(frames):
            raise ValueError(f"frames of {list(frames.shape)} do not fit a video of [F, {wanted[0]}, {wanted[1]}, 3]")
        if frames.dtype != np.uint8 and not np.issubdtype(frames.dtype, np.floating):
            raise ValueError(f"frames are {frames.dtype}: give uint8, or floats in [0, 1]")
        if self._num_frames is not None and self.frames_written + len(frames) > self._num_frames:
            raise ValueError(
                f"{self.frames_written + len(frames)} frames are more than the {self._num_frames} announced"
            )


def _as_pixels(frames_FHWC: np.ndarray, as_float: bool) -> np.ndarray:
    """To uint8 (rounded to the nearest of 256 levels) or float32 in [0, 1]."""
    is_float = frames_FHWC.dtype != np.uint8
    if as_float:
        return frames_FHWC.astype(np.float32, copy=False) if is_float else frames_FHWC / np.float32(255)
    return np.rint(np.clip(frames_FHWC, 0, 1) * 255).astype(np.uint8) if is_float else frames_FHWC
