"""Optional packages: imported where they are used, with an error that says how to install them."""

import importlib
from types import ModuleType

from helios.errors import InputError


def load_extra(module: str, *, extra: str) -> ModuleType:
    """Import an optional package.

    Args:
        module: import name, for example ``"cv2"``.
        extra: the name of Helios' extra that installs it, for example ``"bench"``.
    Raises: InputError when the package is not installed; the message holds the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0]:
            raise
        raise InputError(
            f'this needs the package {module!r}: install it with `pip install "helios[{extra}]"`'
        ) from error
