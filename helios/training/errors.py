"""What stops a training run that had started."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from helios.device import is_out_of_memory
from helios.errors import GenerationError


class TrainingError(GenerationError):
    """A run could not go on (loss not finite, disk full, a tensor that does not learn); its last checkpoint is good."""


@contextmanager
def naming_shortage(step: int, kept: Callable[[], str]) -> Iterator[None]:
    """Around a step: turns an allocator's error into one that says what needs less.

    Args:
        step: which one.
        kept: says what is safe on the disk, for the message; asked only then, since it reads the disk.
    Raises: TrainingError.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory at step {step}; {kept()}: raise run.accumulate (the batch stays what it is), set "
            "recompute=true, train an adapter, or lower run.batch_size; `helios train RECIPE --dry-run` estimates each"
        ) from error


@contextmanager
def writing(path: Path, kept: str) -> Iterator[None]:
    """Around whatever writes a file or a folder.

    Args:
        path: what is written.
        kept: what is safe on the disk if that fails, for the message.
    Raises: TrainingError when it cannot be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        reason, cure = ("the disk is full", "make room and ") if full else (str(error), "")
        raise TrainingError(
            f"cannot write {path}, {reason}; {kept}: {cure}start the same command again to go on from there"
        ) from error
