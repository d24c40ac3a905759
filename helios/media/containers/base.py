"""What every container that grows as one file does.

Letters: F frames, H W height and width in pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from helios.errors import InputError
from helios.media.part_file import PartFile, Piece


@dataclass(frozen=True, kw_only=True)
class VideoShape:
    """Size and rate that all chunks of a video share.

    Attributes:
        fps: frames per second.
    """

    fps: Fraction
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise InputError(f"a video of {self.height}x{self.width} (height x width) holds no pixels: use 1 or more")

    def check_at_most(self, side: int, name: str) -> None:
        """Raises: InputError when a side is longer than the container can say."""
        if max(self.height, self.width) > side:
            raise InputError(
                f"{self.height}x{self.width} is more than {name} can hold ({side} a side): write .png frames or .npy"
            )


class Container(Protocol):
    """Turns chunks of frames into pieces of one file, in order; holds nothing of earlier chunks but counters."""

    def piece(self, frames_FHWC: np.ndarray, size: int) -> Piece:
        """The next chunk's bytes.

        Args:
            frames_FHWC: the chunk in the pixel type the container takes.
            size: finished bytes in the file so far.
        Raises: OSError (EFBIG) when the container's own limit is reached.
        """
        ...

    def seal(self, part: PartFile, record: Mapping[str, Any]) -> None:
        """Last touch before the file gets its name; ``record`` as it is at the end."""
        ...
