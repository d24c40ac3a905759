"""The size that frames are scaled to before they are measured."""

from dataclasses import dataclass

from helios.errors import InputError

NOMINAL_HEIGHT = 384
NOMINAL_WIDTH = 640


@dataclass(frozen=True, kw_only=True)
class NominalSize:
    """The benchmark's rule: one side becomes nominal, the other follows from the aspect ratio, both become even.

    There is no crop and no padding. With nominal width > height the width is fixed and the height is
    ``int(width / (w0 / h0))``; otherwise the height is fixed. Evening is ``round(v / 2) * 2`` with Python's half-to-even
    rounding, so 832x480 becomes 640x368 (369 -> 184.5 -> 184 -> 368).
    """

    height: int = NOMINAL_HEIGHT
    width: int = NOMINAL_WIDTH

    def __post_init__(self):
        if self.height < 16 or self.width < 16:
            raise InputError(
                f"nominal size {self.height}x{self.width} is too small: use 16x16 or more (384x640 official)"
            )

    def target(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that a frame of ``height`` x ``width`` pixels is scaled to."""
        aspect = width / height
        if self.width > self.height:
            return _even(int(self.width / aspect)), _even(self.width)
        return _even(self.height), _even(int(self.height * aspect))

    def shrunk(self, height: int, width: int) -> tuple[int, int]:
        """Like :meth:`target`, but a frame that is already smaller keeps its size: nothing is ever enlarged."""
        wanted = self.target(height, width)
        return wanted if wanted[0] * wanted[1] < height * width else (height, width)


def _even(value: float) -> int:
    return round(value / 2) * 2
