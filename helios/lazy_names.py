"""Public names of a package that load their module when they are first used, so that importing the package is light."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a package (PEP 562).

    Args:
        package: its ``__name__``; it also has an ``__all__``, which is what ``dir`` shows.
        modules: where each name is defined.
    """

    def getattr_(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    def dir_() -> list[str]:
        return sorted(sys.modules[package].__all__)

    return getattr_, dir_
