"""Helios: minute-long video in real time.

>>> import helios
>>> video = helios.Helios.from_pretrained().generate("a red circle moves right", num_frames=33)  # doctest: +SKIP

Importing this package loads neither PyTorch nor a model and touches no device and no network.
"""

from helios.lazy_names import lazy_names

__version__ = "0.1.0"
_PUBLIC = {
    "Helios": "helios.engine.pipeline",
    "Video": "helios.engine.video",
    "Session": "helios.engine.session",
    "InputError": "helios.errors",
    "GenerationError": "helios.errors",
}
__all__ = ["GenerationError", "Helios", "InputError", "Session", "Video", "__version__"]
__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
