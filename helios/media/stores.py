"""Where a growing video lives until it is whole: one ``.part`` file, or a ``.part`` folder of pictures.

Letters: F frames, H W height and width in pixels.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from helios.media.containers.base import Container
from helios.media.output import FRAME_GLOB, OutputTarget
from helios.media.part_file import PartFile


class Store(Protocol):
    """A video under way."""

    def append(self, frames_FHWC: np.ndarray) -> None:
        """Add a chunk, wholly or not at all.

        Raises: OSError when the disk is full or fails.
        """
        ...

    def publish(self, record: Mapping[str, Any]) -> None:
        """Give the finished video its name.

        Raises: OSError when the disk is full or fails.
        """
        ...

    def close(self) -> None:
        """Leave what is finished under the ``.part`` name; nothing, when no chunk is."""
        ...


class FileStore:
    """A video in one file."""

    def __init__(self, target: OutputTarget, container: Container) -> None:
        self._target = target
        self._container = container
        self._part = PartFile(target.part)

    def append(self, frames_FHWC: np.ndarray) -> None:
        self._part.append(self._container.piece(frames_FHWC, self._part.size))

    def publish(self, record: Mapping[str, Any]) -> None:
        self._container.seal(self._part, record)
        self._part.publish(self._target.path)

    def close(self) -> None:
        self._part.close()


class FolderStore:
    """A video as PNG files ``frame_000000.png``, ``frame_000001.png``, ... in a folder."""

    def __init__(self, target: OutputTarget) -> None:
        self._target = target
        self._frames = 0
        if target.part.is_dir():
            shutil.rmtree(target.part)
        target.part.unlink(missing_ok=True)
        target.part.mkdir()

    def append(self, frames_FHWC: np.ndarray) -> None:
        written: list[Path] = []
        try:
            for index, frame_HWC in enumerate(frames_FHWC, self._frames):
                written.append(self._target.part / FRAME_GLOB.replace("*", f"{index:06d}"))
                _write_png(written[-1], frame_HWC)
        except OSError:
            for path in written:
                path.unlink(missing_ok=True)
            raise
        self._frames += len(frames_FHWC)

    def publish(self, record: Mapping[str, Any]) -> None:
        path = self._target.path
        if not path.exists():
            os.replace(self._target.part, path)
            return
        aside = Path(tempfile.mkdtemp(prefix=path.name + ".", dir=path.absolute().parent))
        os.replace(path, aside / path.name)
        os.replace(self._target.part, path)
        shutil.rmtree(aside)

    def close(self) -> None:
        if self._frames == 0:
            shutil.rmtree(self._target.part, ignore_errors=True)


def _write_png(path: Path, frame_HWC: np.ndarray) -> None:
    """Write under another name first: a process that dies leaves no half picture among the frames."""
    buffer = BytesIO()
    Image.fromarray(frame_HWC).save(buffer, format="PNG")
    growing = path.with_suffix(".tmp")
    try:
        growing.write_bytes(buffer.getvalue())
        os.replace(growing, path)
    except OSError:
        growing.unlink(missing_ok=True)
        raise
