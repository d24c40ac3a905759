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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from helios.errors import InputError

logger = logging.getLogger(__name__)

_LOADERS: dict[tuple[str, str], Callable[[], Callable]] = {}
_LOADED: dict[tuple[str, str], Callable] = {}
_LOGGED: set[tuple[str, str, str, torch.dtype]] = set()
_PREFERRED: ContextVar[Mapping[str, str] | None] = ContextVar("preferred backends", default=None)


def provides(op: str, backend: str) -> Callable[[Callable[[], Callable]], Callable[[], Callable]]:
    """Register the loader of a kernel: a function without arguments that imports what it needs and returns it."""

    def register(loader: Callable[[], Callable]) -> Callable[[], Callable]:
        _LOADERS[op, backend] = loader
        return loader

    return register


def backends(op: str) -> list[str]:
    """Names that ``backend=`` takes for an operation, besides ``auto``."""
    return sorted(name for known, name in _LOADERS if known == op)


def load_kernel(op: str, backend: str) -> Callable:
    """The kernel of that name.

    Raises: InputError when there is no such backend, or when its package is not installed.
    """
    kernel = _LOADED.get((op, backend))
    if kernel is None:
        kernel = _LOADED[op, backend] = _load(op, backend)
    return kernel


def _load(op: str, backend: str) -> Callable:
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


@contextmanager
def preferring(choices: Mapping[str, str]) -> Iterator[None]:
    """Within it ``auto`` takes these backends, by operation, wherever an operation lets itself be told.

    A choice that somebody made for a model reaches the operations inside of it without an argument on the way.
    """
    outer = _PREFERRED.set(choices)
    try:
        yield
    finally:
        _PREFERRED.reset(outer)


def preferred(op: str, *, otherwise: str) -> str:
    """The backend that :func:`preferring` names for an operation, or the other one."""
    return (_PREFERRED.get() or {}).get(op, otherwise)


def log_choice(op: str, backend: str, x: Tensor) -> str:
    """Say once per process what ``auto`` took for inputs like ``x``: once for each backend, device and precision.

    Returns: the backend.
    """
    if not torch.compiler.is_compiling():
        choice = (op, backend, x.device.type, x.dtype)
        if choice not in _LOGGED:
            _LOGGED.add(choice)
            logger.info("%s on %s in %s: auto takes %s", op, x.device.type, x.dtype, backend)
    return backend


def needs_grad(*tensors: Tensor | None) -> bool:
    """Whether a result of these tensors would carry a gradient."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def trains_in_float32_on_cpu(*tensors: Tensor | None) -> bool:
    """Whether a path with a backward pass of its own, measured to win for float32 on the CPU, may run."""
    return needs_grad(*tensors) and _plain_float32_on_cpu(*tensors)


def eager_float32_on_cpu(*tensors: Tensor | None) -> bool:
    """Whether a path that was measured to win for float32 on the CPU without gradients may run.

    A compiler fuses the plain reference better than it can rewrite such a path, so it gets the reference.
    """
    return not needs_grad(*tensors) and _plain_float32_on_cpu(*tensors)


def _plain_float32_on_cpu(*tensors: Tensor | None) -> bool:
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    return all(x is None or (x.device.type == "cpu" and x.dtype == torch.float32) for x in tensors)


def choose_with_gradient(*tensors: Tensor | None, without: str) -> str:
    """What ``auto`` takes where there are three: ``trained`` in training and ``without`` else, for eager float32 on the
    CPU; ``reference`` everywhere else.
    """
    if trains_in_float32_on_cpu(*tensors):
        return "trained"
    return without if eager_float32_on_cpu(*tensors) else "reference"
