"""Complete runs, one function per phase. A phase is derived from the one before it and shows its changes alone.

helios train toy.vae --workspace runs/toy
helios train toy --workspace runs/toy
helios train helios_14b.stage1_init --workspace runs/helios_14b
helios train ablations --workspace runs/toy
"""

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module

from helios.errors import InputError
from helios.training.phase import After, Phase, Start

_MODULES = ("toy", "helios_14b", "finetune", "finetune_14b", "ablations")


def names() -> list[str]:
    """Every recipe as ``module.phase``, in the order in which a module's phases follow each other."""
    return [name for module in _MODULES for name in _phases_of(module)]


def find(name: str) -> Callable[[], Phase]:
    """The recipe of a name.

    Raises: InputError naming the nearest when there is none.
    """
    if name not in names():
        raise _unknown(name)
    module, _, phase = name.partition(".")
    return getattr(import_module(f"recipes.{module}"), phase)


def find_all(name: str) -> list[str]:
    """The phases that a name stands for: one, or with a module's name all of its phases in order.

    Raises: InputError naming the nearest when there is none.
    """
    if name in names():
        return [name]
    if name not in _MODULES:
        raise _unknown(name)
    return _phases_of(name)


def origin(name: str) -> Start:
    """What a module's first phase starts from; a module that begins in another one's workspace has that one's origin.

    Args:
        name: of the module, or of any of its phases.
    """
    start = find(find_all(name.partition(".")[0])[0])().start
    homes = [f"{module}.{start.phase}" for module in _MODULES] if isinstance(start, After) else []
    return next((origin(home) for home in homes if home in names()), start)


def _phases_of(module: str) -> list[str]:
    return [f"{module}.{phase}" for phase in import_module(f"recipes.{module}").PHASES]


def _unknown(name: str) -> InputError:
    known = [*_MODULES, *names()]
    close = get_close_matches(name, known, n=1, cutoff=0.3)
    hint = f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(known)}"
    return InputError(f"there is no recipe {name!r}: {hint}")
