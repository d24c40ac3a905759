"""Which implementation runs an operation: a plain PyTorch reference, or a kernel registered beside it.

A kernel file adds itself with one decorator and is otherwise unknown to the callers:

    @provides("rms_norm", "triton")
    def load():
        import triton
        ...
        return kernel              # called with the operation's own arguments

The loader runs at the first call that names the backend, so importing helios needs no vendor package.
"""

import logging
from collections.abc import Callable
from functools import cache

from helios.errors import InputError

logger = logging.getLogger(__name__)

_LOADERS: dict[tuple[str, str], Callable[[], Callable]] = {}


def provides(op: str, backend: str) -> Callable[[Callable[[], Callable]], Callable[[], Callable]]:
    """Register the loader of a kernel: a function without arguments that imports what it needs and returns it."""

    def register(loader: Callable[[], Callable]) -> Callable[[], Callable]:
        _LOADERS[op, backend] = loader
        return loader

    return register


def backends(op: str) -> list[str]:
    """Names that ``backend=`` takes for an operation, besides ``auto``."""
    return sorted(name for known, name in _LOADERS if known == op)


@cache
def load_kernel(op: str, backend: str) -> Callable:
    """The kernel of that name.

    Raises: InputError when there is no such backend, or when its package is not installed.
    """
    loader = _LOADERS.get((op, backend))
    if loader is None:
        raise InputError(f"{op} has no backend {backend!r}: use auto or one of {', '.join(backends(op))}")
    try:
        return loader()
    except ImportError as error:
        raise InputError(
            f"{op} backend {backend!r} needs the package {error.name!r}, which is not installed: "
            "install it or use backend='auto'"
        ) from error


@cache
def log_choice(op: str, backend: str, where: str) -> None:
    """Say once per process what ``auto`` took."""
    logger.info("%s: auto takes %s on %s", op, backend, where)
