"""Bring frames to a wanted size without stretching them: cut the overhang off, or add bars.

Letters: F frames, H W height and width in pixels. Frames are [F, H, W, 3] uint8.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from helios.errors import InputError


class Fit(Protocol):
    """How one picture fills a frame of another shape; the aspect ratio of what is seen never changes."""

    def apply(self, image: Image.Image, height: int, width: int) -> Image.Image: ...


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Scale until the frame is filled and cut off what hangs over.

    Args:
        x, y: which part stays, from 0 (left, top) over 0.5 (centre) to 1 (right, bottom).
    """

    x: float = 0.5
    y: float = 0.5

    def __post_init__(self) -> None:
        for name, value in (("x", self.x), ("y", self.y)):
            if not 0 <= value <= 1:
                raise InputError(f"Crop({name}={value}) lies outside the picture: use 0 to 1, where 0.5 is the centre")

    def apply(self, image: Image.Image, height: int, width: int) -> Image.Image:
        scale = max(height / image.height, width / image.width)
        seen_width, seen_height = min(width / scale, image.width), min(height / scale, image.height)
        left, top = (image.width - seen_width) * self.x, (image.height - seen_height) * self.y
        box = (left, top, left + seen_width, top + seen_height)
        return image.resize((width, height), Image.Resampling.LANCZOS, box=box)


@dataclass(frozen=True, kw_only=True)
class Pad:
    """Scale until everything is visible and fill the rest with bars of one colour.

    Args:
        color: red, green, blue of the bars, each 0 to 255.
    """

    color: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        if len(self.color) != 3 or not all(0 <= value <= 255 for value in self.color):
            raise InputError(f"Pad(color={self.color}) is no colour: give red, green and blue, each 0 to 255")

    def apply(self, image: Image.Image, height: int, width: int) -> Image.Image:
        scale = min(height / image.height, width / image.width)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        canvas = Image.new("RGB", (width, height), self.color)
        canvas.paste(image.resize(size, Image.Resampling.LANCZOS), ((width - size[0]) // 2, (height - size[1]) // 2))
        return canvas


def fit(frames: np.ndarray, height: int, width: int, how: Fit) -> np.ndarray:
    """Bring frames to ``height`` x ``width`` with an antialiased (Lanczos) resize that keeps the aspect ratio.

    Args:
        frames: uint8 [F, H, W, 3], or one picture [H, W, 3].
        how: :class:`Crop` or :class:`Pad`.
    Returns: uint8 [F, height, width, 3] or [height, width, 3]; the input itself where it has that size already.
    Raises: InputError for a size below 1 or frames of another form.
    """
    if height < 1 or width < 1:
        raise InputError(f"a size of {height}x{width} (height x width) holds no pixels: use 1 or more")
    if frames.dtype != np.uint8 or frames.ndim not in (3, 4) or frames.shape[-1] != 3:
        raise InputError(
            f"cannot fit frames of {frames.dtype} {list(frames.shape)}: give uint8 [F, H, W, 3] or [H, W, 3]"
        )
    if frames.shape[-3:-1] == (height, width):
        return frames
    if frames.ndim == 3:
        return np.asarray(how.apply(Image.fromarray(frames), height, width))
    fitted_FHWC = np.empty((len(frames), height, width, 3), np.uint8)
    for index, frame_HWC in enumerate(frames):
        fitted_FHWC[index] = np.asarray(how.apply(Image.fromarray(frame_HWC), height, width))
    return fitted_FHWC


def fitter(size: tuple[int, int] | None, how: Fit) -> Callable[[np.ndarray], np.ndarray]:
    """The function that fits one frame to ``size`` (height, width); with None, the one that leaves it alone."""
    if size is None:
        return lambda frame_HWC: frame_HWC
    height, width = size
    return lambda frame_HWC: fit(frame_HWC, height, width, how)
