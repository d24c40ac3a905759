"""OpenCV, loaded where it is used, and the thread limits of one benchmark process."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from helios.extras import load_extra


def opencv() -> ModuleType:
    """The cv2 module; InputError with the install command when it is not there."""
    return load_extra("cv2", extra="bench")


def use_one_thread() -> None:
    """Limit this process to one thread: the benchmark runs one process per core instead.

    PyTorch may not be loaded yet, and most metrics never load it: its limit goes into the environment, too.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    opencv().setNumThreads(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for OpenCV and PyTorch for the length of a ``with`` block; the caller's limits come back after it."""
    import torch

    before = opencv().getNumThreads(), torch.get_num_threads()
    opencv().setNumThreads(1)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        opencv().setNumThreads(before[0])
        torch.set_num_threads(before[1])
