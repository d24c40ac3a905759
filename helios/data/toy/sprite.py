"""The object: signed distances of its shape, and its painting onto frames that wrap around.

Shape letters: F pixel frames, C 3 colours, H W height and width in pixels, P side of the square patch around the object
in pixels, N distinct sub-pixel positions. Frames are planar float32 in 0..255.
"""

import numpy as np

COLOUR_RGB: dict[str, tuple[int, int, int]] = {
    "red": (226, 26, 38),
    "orange": (255, 126, 0),
    "yellow": (255, 222, 0),
    "green": (10, 165, 45),
    "blue": (25, 75, 245),
    "purple": (140, 30, 205),
    "pink": (255, 82, 176),
}
RADIUS = {"small": 7.5, "big": 12.0}
"""Nominal radius in units: a circle's diameter is 23 or 38 % of the frame's smaller side."""
RIM = 1.1
"""Width in units of the white rim that separates an object from whatever is behind it."""
_STRETCH = {"circle": 1.0, "square": 0.9, "triangle": 1.3, "star": 1.32, "heart": 1.1}
_REACH = {"circle": 1.0, "square": 0.9 * 2**0.5, "triangle": 1.3, "star": 1.32, "heart": 1.5}
_STAR_INNER = 0.5
_PHASES = 16
"""Sub-pixel positions per pixel and axis."""


class Sprite:
    """An object painted once per sub-pixel position that its path needs, then laid over frames.

    Args:
        x_F, y_F: centres in pixels, not necessarily inside the frame.
        radius: nominal radius in pixels.
        unit: pixels per world unit.
    """

    def __init__(self, shape: str, colour: str, x_F: np.ndarray, y_F: np.ndarray, *, radius: float, unit: float):
        half = int(np.ceil(_REACH[shape] * radius + (RIM + 1) * unit))
        steps_F2 = np.round(np.stack([x_F, y_F], axis=1) * _PHASES).astype(np.int64)
        phases_N2, self._which_F = np.unique(steps_F2 % _PHASES, axis=0, return_inverse=True)
        self._corner_F2 = steps_F2 // _PHASES - half
        side_P = (np.arange(2 * half) + 0.5 - half).astype(np.float32)
        dx_NPP = side_P[None, None, :] - (phases_N2[:, 0] / np.float32(_PHASES)).astype(np.float32)[:, None, None]
        dy_NPP = side_P[None, :, None] - (phases_N2[:, 1] / np.float32(_PHASES)).astype(np.float32)[:, None, None]
        self._paint_NCPP, self._clear_NPP = _paint(shape, COLOUR_RGB[colour], dx_NPP, dy_NPP, radius, RIM * unit)

    def draw(self, frame_CHW: np.ndarray, index: int) -> None:
        """Lay the object over one frame of its path, in place; what leaves on one side comes back opposite."""
        paint_CPP, clear_PP = self._paint_NCPP[self._which_F[index]], self._clear_NPP[self._which_F[index]]
        left, top = self._corner_F2[index]
        for rows, patch_rows in _wrapped(int(top), len(clear_PP), frame_CHW.shape[1]):
            for columns, patch_columns in _wrapped(int(left), len(clear_PP), frame_CHW.shape[2]):
                region = frame_CHW[:, rows, columns]
                region *= clear_PP[patch_rows, patch_columns]
                region += paint_CPP[:, patch_rows, patch_columns]


def _wrapped(start: int, length: int, size: int) -> list[tuple[slice, slice]]:
    """Cut ``length`` pixels from ``start`` on a ring of ``size`` pixels into stretches: (on the ring, in the patch)."""
    pieces, done = [], 0
    while done < length:
        at = (start + done) % size
        take = min(length - done, size - at)
        pieces.append((slice(at, at + take), slice(done, done + take)))
        done += take
    return pieces


def _paint(shape: str, rgb, dx_NPP, dy_NPP, radius: float, rim: float) -> tuple[np.ndarray, np.ndarray]:
    """Premultiplied colour [N, 3, P, P] of body and rim, and what shines through, [N, P, P]."""
    distance_NPP = signed_distance(shape, dx_NPP, dy_NPP, radius)
    rim_NPP = np.clip(np.float32(0.5 + rim) - distance_NPP, 0, 1)
    body_NPP = np.clip(np.float32(0.5) - distance_NPP, 0, 1)
    slope_NPP = (dx_NPP + dy_NPP) * np.float32(-0.5 / radius)
    depth_NPP = np.clip(distance_NPP * np.float32(-1 / (0.35 * radius)), 0, 1)
    light_NPP = np.clip(np.float32(0.80) + np.float32(0.2) * depth_NPP + np.float32(0.10) * slope_NPP, 0, 1)
    gloss_NPP = np.clip(slope_NPP, 0, 1) * np.float32(0.22) * depth_NPP
    white_NPP = np.float32(250) * (rim_NPP - rim_NPP * body_NPP) + np.float32(255) * gloss_NPP * body_NPP
    own_NPP = light_NPP * (1 - gloss_NPP) * body_NPP
    paint_NCPP = np.array(rgb, dtype=np.float32)[:, None, None] * own_NPP[:, None] + white_NPP[:, None]
    return paint_NCPP, (1 - rim_NPP) * (1 - body_NPP)


def signed_distance(shape: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Distance to the edge in the unit of ``radius``, negative inside; x to the right, y down, broadcast together."""
    size = np.float32(radius * _STRETCH[shape])
    if shape == "circle":
        return np.sqrt(x * x + y * y) - size
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - size
    if shape == "triangle":
        return np.maximum(y, np.float32(0.75**0.5) * np.abs(x) - np.float32(0.5) * y) - size / 2
    if shape == "star":
        return _star(x, y, size)
    return _heart(x, y, size)


def _star(x: np.ndarray, y: np.ndarray, size: np.float32) -> np.ndarray:
    """Five points, one up: fold the plane into a tenth of a turn, then one straight edge from tip to notch."""
    tenth = np.float32(np.pi / 5)
    turn = np.arctan2(x, -y)
    angle = np.abs(turn - 2 * tenth * np.round(turn / (2 * tenth)))
    radial = np.sqrt(x * x + y * y)
    notch_x, notch_y = _STAR_INNER * np.cos(tenth), _STAR_INNER * np.sin(tenth)
    length = np.hypot(1 - notch_x, notch_y)
    normal_x, normal_y = np.float32(notch_y / length), np.float32((1 - notch_x) / length)
    return radial * (np.cos(angle) * normal_x + np.sin(angle) * normal_y) - size * normal_x


def _heart(x: np.ndarray, y: np.ndarray, size: np.float32) -> np.ndarray:
    """Two discs over a square that stands on its corner."""
    across, up = np.abs(x), -(y - np.float32(0.15) * size)
    lobe = np.hypot(across - np.float32(0.5) * size, up - np.float32(0.5) * size) - np.float32(0.5**0.5) * size
    tip = np.maximum((across - up) * np.float32(0.5**0.5), (across + up) * np.float32(0.5**0.5))
    return np.minimum(lobe, tip - np.float32(0.5**0.5) * size)
