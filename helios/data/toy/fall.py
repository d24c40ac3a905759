"""Rain and snow: drops and flakes whose place at any frame is a closed formula.

Each particle falls over a screen a little higher than the frame; every time it starts again at the top it starts
somewhere else, so the fall never repeats.

Shape letters: F pixel frames, C 3 colours, H W height and width in pixels, N particles; in a particle's patch R rows
and C columns.
"""

from dataclasses import dataclass

import numpy as np

from helios.data.toy.scenery import hash01
from helios.data.toy.world import Scene


@dataclass(frozen=True)
class Streak:
    """A falling line. Lengths in units; slant is how far it leans to the right per unit down."""

    length: float
    width: float
    slant: float

    def reach(self, unit: float) -> tuple[int, int]:
        """Rows and columns to paint on either side of the centre, in pixels."""
        return _pixels(self.length / 2 * unit), _pixels((self.width + abs(self.slant) * self.length) / 2 * unit)

    def cover(self, dx: np.ndarray, dy: np.ndarray, unit: float) -> np.ndarray:
        """Share of a pixel that is covered, from its centre's offsets in pixels."""
        wide = max(self.width * unit, 0.85)
        across = np.clip(np.float32((wide + 1) / 2) - np.abs(dx - np.float32(self.slant) * dy), 0, min(wide, 1.0))
        return across * np.clip(np.float32((self.length * unit + 1) / 2) - np.abs(dy), 0, 1)


@dataclass(frozen=True)
class Flake:
    """A falling disc; radius in units."""

    radius: float
    slant = 0.0

    def reach(self, unit: float) -> tuple[int, int]:
        pixels = _pixels(self.radius * unit)
        return pixels, pixels

    def cover(self, dx: np.ndarray, dy: np.ndarray, unit: float) -> np.ndarray:
        return np.clip(np.float32(self.radius * unit + 0.5) - np.sqrt(dx * dx + dy * dy), 0, 1)


@dataclass(frozen=True)
class Fall:
    """How one kind of weather falls.

    density counts particles per 64 x 64 units; speed is a range in units per frame; sway is the units by which a
    particle drifts to either side.
    """

    particle: Streak | Flake
    density: float
    speed: tuple[float, float]
    sway: float
    opacity: float
    rgb: dict[str, tuple[int, int, int]]


FALLS = {
    "rain": Fall(
        particle=Streak(length=6.5, width=0.85, slant=-0.12),
        density=42,
        speed=(3.1, 3.7),
        sway=0.0,
        opacity=0.62,
        rgb={"day": (226, 236, 246), "sunset": (240, 226, 226), "night": (150, 165, 205)},
    ),
    "snow": Fall(
        particle=Flake(radius=1.15),
        density=48,
        speed=(0.55, 0.85),
        sway=1.6,
        opacity=0.95,
        rgb={"day": (255, 255, 255), "sunset": (255, 246, 240), "night": (226, 232, 250)},
    ),
}


class FallPainter:
    """What falls in one scene, for the frames asked for.

    Args:
        frames_F: frame indices.
        height, width: of a frame in pixels.
    """

    def __init__(self, scene: Scene, frames_F: np.ndarray, height: int, width: int):
        self._alpha_FHW = None
        if scene.weather in FALLS:
            fall = FALLS[scene.weather]
            alpha_FHW = np.minimum(coverage(fall, frames_F, height, width, scene.seed), 1) * np.float32(fall.opacity)
            self._alpha_FHW, self._rgb = alpha_FHW, np.array(fall.rgb[scene.time], np.float32)[:, None, None]

    def draw(self, frame_CHW: np.ndarray, index: int) -> None:
        """Draw over one planar float32 frame, in place; clear weather draws nothing."""
        if self._alpha_FHW is None:
            return
        alpha_HW = self._alpha_FHW[index]
        frame_CHW *= 1 - alpha_HW
        frame_CHW += alpha_HW * self._rgb


def coverage(fall: Fall, frames_F: np.ndarray, height: int, width: int, seed: int) -> np.ndarray:
    """Share of every pixel that drops or flakes cover, [F, H, W], may exceed 1 where they overlap."""
    unit = min(height, width) / 64
    count = round(fall.density * height * width / (64 * unit) ** 2)
    half_rows, half_columns = fall.particle.reach(unit)
    x_NF, y_NF = _places(fall, frames_F, width / unit, height / unit, count, seed)
    x_NF, y_NF = x_NF * unit, y_NF * unit
    rows_NFR = np.floor(y_NF)[..., None] + np.arange(-half_rows, half_rows + 1)
    columns_NFC = np.floor(x_NF)[..., None] + np.arange(-half_columns, half_columns + 1)
    dy_NFR = (rows_NFR + 0.5 - y_NF[..., None]).astype(np.float32)
    dx_NFC = (columns_NFC + 0.5 - x_NF[..., None]).astype(np.float32)
    weight = fall.particle.cover(dx_NFC[:, :, None, :], dy_NFR[:, :, :, None], unit)
    return _splat(weight, rows_NFR, columns_NFC, height, width)


def _pixels(length: float) -> int:
    return int(np.ceil(length + 0.5))


def _places(fall: Fall, frames_F, width: float, height: float, count: int, seed: int):
    """Centres of all particles at all frames, in units: x [N, F] (to be wrapped) and y [N, F]."""
    index_N1 = np.arange(count)[:, None]
    low, high = fall.speed
    margin = 4.0  # above and below the frame: a particle is out of sight when it moves to its next place
    speed_N1 = low + (high - low) * hash01(seed, 501, index_N1).astype(np.float64)
    fallen_NF = hash01(seed, 502, index_N1) + speed_N1 * np.asarray(frames_F, dtype=np.float64) / (height + 2 * margin)
    round_NF = np.floor(fallen_NF)
    y_NF = (fallen_NF - round_NF) * (height + 2 * margin) - margin
    x_NF = hash01(seed, 503, index_N1 + 0 * round_NF, round_NF) * width + fall.particle.slant * y_NF
    if fall.sway:
        x_NF = x_NF + fall.sway * np.sin(2 * np.pi * (y_NF / 24.0 + hash01(seed, 504, index_N1)))
    return x_NF, y_NF


def _splat(weight, rows_NFR, columns_NFC, height: int, width: int) -> np.ndarray:
    num_frames = weight.shape[1]
    rows_NFR = np.clip(rows_NFR, -1, height).astype(np.int64) + 1
    columns_NFC = columns_NFC.astype(np.int64) % width
    frame_F111 = np.arange(num_frames)[:, None, None]
    flat = (frame_F111 * (height + 2) + rows_NFR[:, :, :, None]) * width + columns_NFC[:, :, None, :]
    total = np.bincount(flat.ravel(), weight.ravel(), minlength=num_frames * (height + 2) * width)
    return total.reshape(num_frames, height + 2, width)[:, 1:-1].astype(np.float32)
