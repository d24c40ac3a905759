"""A loaded Helios as the benchmark drives it: chunk after chunk, no codec in between."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from helios import __version__
from helios.engine.pipeline import Helios


class HeliosMaker:
    """Makes the benchmark's videos with one checkpoint and one set of settings.

    Args:
        helios: the loaded checkpoint.
        settings: as for :meth:`helios.engine.pipeline.Helios.generate`, without prompt, length and seed.
        name: in tables; the checkpoint's folder by default.

    The identity names all that decides a frame but the request: weights, settings, precision, kind of device, and the
    version of Helios. Figures of another identity are measured anew.
    """

    def __init__(self, helios: Helios, settings: Mapping[str, Any] | None = None, *, name: str | None = None) -> None:
        self._helios, self._settings = helios, dict(settings or {})
        self.name = name or helios.info.path.name
        where = f"{helios.precision} on {helios.device.type}, helios {__version__}"
        self.identity = f"{helios.info.identity} {sorted(self._settings.items())} {where}"
        self.fps = float(self._settings.get("fps", 24.0))
        self.chunk_frames = helios.info.geometry.chunk_frames

    def make(self, prompt: str, num_frames: int, seed: int) -> Iterator[np.ndarray]:
        """Chunks of uint8 frames [F, H, W, 3], exactly ``num_frames`` together."""
        for chunk in self._helios.stream(prompt, num_frames=num_frames, seed=seed, **self._settings):
            yield chunk.frames
