"""Helios: minute-long video in real time.

>>> import helios
>>> video = helios.Helios.from_pretrained().generate("a red circle moves right", num_frames=33)  # doctest: +SKIP

Importing this package loads neither PyTorch nor a model and touches no device and no network.
"""

from importlib import import_module

__version__ = "0.1.0"
_PUBLIC = {
    "Helios": "helios.engine.pipeline",
    "Video": "helios.engine.video",
    "Session": "helios.engine.session",
    "InputError": "helios.errors",
    "GenerationError": "helios.errors",
}
__all__ = ["GenerationError", "Helios", "InputError", "Session", "Video", "__version__"]


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'helios' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
