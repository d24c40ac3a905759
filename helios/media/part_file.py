"""A file that grows chunk by chunk and is whole, up to its last finished chunk, at every moment."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Piece:
    """The bytes of one chunk and the small write that makes them count.

    ``data`` goes to ``offset``, where readers do not look yet; then ``commit`` replaces a few bytes that readers do
    look at. A process that dies between the two, or in the middle of the first, leaves the file as it was before the
    chunk.

    Attributes:
        offset: where ``data`` begins; the end of the file, except for what a reader stops at.
        commit: (offset, bytes) of the write that comes last.
    """

    data: bytes | memoryview
    offset: int
    commit: tuple[int, bytes]


class PartFile:
    """An open ``.part`` file; ``size`` bytes of it are finished."""

    def __init__(self, path: Path) -> None:
        """Create the file, or empty the one that is there.

        Raises: OSError when the place cannot be written to.
        """
        self.path = path
        self.size = 0
        self._file = path.open("w+b", buffering=0)

    def append(self, piece: Piece) -> None:
        """Add a chunk.

        Raises: OSError when the disk is full or fails; the file is then as it was before.
        """
        try:
            self._write(piece.offset, piece.data)
        except OSError:
            self._file.truncate(self.size)
            raise
        self._write(*piece.commit)
        self.size = piece.offset + memoryview(piece.data).nbytes

    def _write(self, offset: int, data: bytes | memoryview) -> None:
        rest = memoryview(data).cast("B")
        self._file.seek(offset)
        while rest:
            rest = rest[self._file.write(rest) :]

    def replace_head(self, old_length: int, head: bytes) -> None:
        """Put other bytes before everything after the first ``old_length``, through a second file.

        Raises: OSError when the disk is full or fails; the file is then as it was before.
        """
        fresh = self.path.with_name(self.path.name + ".new")
        try:
            with fresh.open("w+b") as target, self.path.open("rb") as source:
                target.write(head)
                source.seek(old_length)
                shutil.copyfileobj(source, target, 1 << 20)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        self._file.close()
        os.replace(fresh, self.path)
        self._file = self.path.open("r+b", buffering=0)
        self.size += len(head) - old_length

    def publish(self, path: Path) -> None:
        """Give the finished file its name, replacing what has it.

        Raises: OSError when the disk is full or fails.
        """
        self._file.truncate(self.size)
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self.path, path)

    def close(self) -> None:
        """Leave the file where it is; without a finished chunk it is removed."""
        self._file.close()
        if self.size == 0:
            self.path.unlink(missing_ok=True)
