"""Frame sizes that videos are brought to: each goes to the one whose shape is nearest to its own."""

import re
from dataclasses import dataclass

from helios.errors import InputError
from helios.shapes import Geometry

RELEASED_SIZES = (
    (768, 320),
    (768, 384),
    (640, 384),
    (768, 512),
    (576, 448),
    (512, 512),
    (448, 576),
    (512, 768),
    (384, 640),
    (384, 768),
    (320, 768),
)
"""Height and width of the published buckets. The released models used the last but two alone, 384x640."""


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """The sizes of a data set.

    Args:
        sizes: (height, width) in pixels.
        only: keep nothing but the videos whose nearest size is exactly this one (the published single-size switch);
            None keeps all.
    Raises: InputError when there is no size, or ``only`` is none of them.
    """

    sizes: tuple[tuple[int, int], ...]
    only: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not self.sizes:
            raise InputError("sizes=() leaves no size to bring videos to: give at least one, such as 384x640")
        if self.only is not None and self.only not in self.sizes:
            known = ", ".join(map(size_text, self.sizes))
            raise InputError(f"only={size_text(self.only)} is none of the sizes: use one of {known}")

    def nearest(self, height: int, width: int) -> tuple[int, int]:
        """The size that minimises ``|height * w - width * h|``; the last of equals.

        Raises: InputError where ``only`` rules it out.
        """
        best = min(reversed(self.sizes), key=lambda size: abs(height * size[1] - width * size[0]))
        if self.only is not None and best != self.only:
            given, found, kept = map(size_text, ((height, width), best, self.only))
            raise InputError(f"{given} is nearest to {found}, and only {kept} is kept")
        return best

    def check(self, geometry: Geometry) -> None:
        """Raises: InputError for a size that the checkpoint cannot take."""
        for height, width in self.sizes:
            geometry.check_size(height, width)


def size_text(size: tuple[int, int]) -> str:
    """``384x640`` for (384, 640)."""
    return f"{size[0]}x{size[1]}"


def parse_size(text: str) -> tuple[int, int]:
    """(384, 640) for ``384x640``.

    Raises: InputError for anything else.
    """
    match = re.fullmatch(r"\s*(\d{1,5})\s*[xX×]\s*(\d{1,5})\s*", text)
    if match is None:
        raise InputError(f"size {text!r} cannot be read: write height x width, such as 384x640")
    return int(match[1]), int(match[2])
