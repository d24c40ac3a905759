"""Scenery without end: sky, clouds, and a far and a near layer per background, as pure functions of a world position.

Nothing is stored and nothing repeats: a hill is a sum of waves whose lengths share no period, and what stands on it
(trees, houses, boats) is drawn from a hash of the seed and the number of its cell. So any stretch of scenery can be
drawn without the stretch before it. Colours stay pale or dark on purpose: the vivid ones belong to the objects.

Shape letters: R rows of a layer, X sample columns of a layer. Positions are in world units, x to the right, y down,
colours in 0..255. A layer returns premultiplied colour and what shines through it, [4, R, X].
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from helios.data.toy.world import Scene

RGB = tuple[float, float, float]
HORIZON = 0.62
"""Height of the horizon as a fraction of the frame, from the top."""

_SKY: dict[str, tuple[RGB, RGB, RGB]] = {
    "day": ((118, 176, 228), (168, 210, 240), (214, 234, 244)),
    "sunset": ((96, 88, 138), (216, 142, 140), (250, 206, 160)),
    "night": ((12, 16, 44), (28, 34, 76), (58, 66, 112)),
}
"""Sky at the top, half way down and at the horizon."""
_SNOWY: dict[str, RGB] = {"day": (240, 245, 250), "sunset": (244, 214, 206), "night": (116, 128, 168)}
_CLOUD: dict[str, RGB] = {"day": (250, 252, 254), "sunset": (250, 208, 192), "night": (62, 70, 108)}
_LIGHT: dict[str, tuple[RGB, RGB]] = {
    "day": ((1.0, 1.0, 1.0), (0, 0, 0)),
    "sunset": ((0.84, 0.70, 0.68), (24, 8, 14)),
    "night": ((0.36, 0.37, 0.45), (2, 4, 18)),
}
"""Factor and offset that turn a colour by daylight into the one of another time."""


@dataclass(frozen=True)
class Look:
    """What a layer needs to know of a scene: its air, its seed and the frame's height in units."""

    background: str
    time: str
    weather: str
    seed: int
    height: float

    @classmethod
    def of(cls, scene: Scene, height: float) -> "Look":
        return cls(scene.background, scene.time, scene.weather, scene.seed, height)

    @property
    def horizon(self) -> float:
        return HORIZON * self.height

    def light(self, rgb: RGB, *, haze: float = 0.0, snow: float = 0.0) -> np.ndarray:
        """A daylight colour at this time and in this weather.

        Args:
            haze: share of the horizon's sky mixed in, for distance.
            snow: how far the surface turns white when it snows.
        """
        factor, offset = (np.array(part) for part in _LIGHT[self.time])
        colour = np.array(rgb) * factor + offset
        if self.weather == "snow":
            colour += (np.array(_SNOWY[self.time]) - colour) * snow
        colour += (np.array(_SKY[self.time][2]) - colour) * haze
        return self.dim(colour)

    def dim(self, rgb: np.ndarray) -> np.ndarray:
        """Rain greys and darkens everything, snow makes it a little paler."""
        if self.weather == "clear":
            return rgb
        grey = rgb @ np.array([0.299, 0.587, 0.114])
        if self.weather == "rain":
            return (rgb + (grey - rgb) * 0.45) * 0.78
        return rgb + (grey - rgb) * 0.35


def sky(look: Look, x_X: np.ndarray, y_R: np.ndarray) -> np.ndarray:
    """Opaque sky with sun, or moon and stars, fixed on the screen: [3, R, X]."""
    down_R = y_R / look.horizon
    stops = np.array([look.dim(np.array(rgb, dtype=float)) for rgb in _SKY[look.time]])
    gradient = np.stack([np.interp(down_R, [0, 0.55, 1], stops[:, c]) for c in range(3)]).astype(np.float32)
    picture = np.repeat(gradient[:, :, None], len(x_X), axis=2)
    if look.time == "night":
        _add_stars(picture, look, x_X, y_R)
    _add_disc(picture, look, x_X, y_R)
    return picture


@dataclass(frozen=True)
class Layer:
    """A moving layer: its share of the camera's speed, its rows as fractions of the height, how to draw it."""

    speed: float
    top: float
    bottom: float
    draw: Callable[[Look, np.ndarray, np.ndarray], np.ndarray]


SLOWEST = 0.25


def layers(background: str) -> tuple[Layer, ...]:
    """The moving layers of a background, back to front."""
    far, near = _LAYERS[background]
    return (
        Layer(SLOWEST, 0.0, 0.5, _clouds),
        Layer(0.5, 0.05, HORIZON + 0.12, far),
        Layer(1.0, 0.25, 1.0, near),
    )


def hash01(seed: int, salt: int, *keys: np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1) from integers, the same on every machine (splitmix64 finaliser)."""
    with np.errstate(over="ignore"):
        start = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(salt) * np.uint64(0xD1B54A32D192ED03)
        state: np.ndarray = np.asarray(start)
        for key in keys:
            state = (state ^ np.asarray(key).astype(np.int64).astype(np.uint64)) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return np.asarray((state >> np.uint64(40)).astype(np.float32) * np.float32(2**-24))


class _Cells:
    """The world cut into cells of one width, with random numbers per cell, seen from sample columns."""

    def __init__(self, look: Look, x_X: np.ndarray, width: float, salt: int):
        self.index_X = np.floor(x_X / width).astype(np.int64)
        self.x_X = (x_X - (self.index_X + 0.5) * width).astype(np.float32)
        self.cells = np.arange(self.index_X[0], self.index_X[-1] + 1)
        self.which_X = self.index_X - self.index_X[0]
        self._seed, self._salt = look.seed, salt

    def uniform(self, number: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """[X] one number per cell; ``number`` tells the draws of a cell apart."""
        return (low + (high - low) * hash01(self._seed, self._salt * 16 + number, self.cells))[self.which_X]


class _Canvas:
    """A layer being painted: soft-edged fills over what is there."""

    def __init__(self, x_X: np.ndarray, y_R: np.ndarray):
        self.x_X, self.y = x_X, y_R.astype(np.float32)[:, None]
        self.soft = np.float32(1 / (y_R[1] - y_R[0]))
        self.out = np.zeros((4, len(y_R), len(x_X)), np.float32)
        self.out[3] = 1

    def cover(self, distance: np.ndarray) -> np.ndarray:
        """Share of a pixel inside: 1 where the distance (units, negative inside) is well below 0."""
        return np.clip(np.float32(0.5) - distance * self.soft, 0, 1)

    def fill(self, alpha: np.ndarray, rgb) -> None:
        """Blend a colour, one for all or one array per channel, over the layer."""
        clear = 1 - alpha
        for channel in range(3):
            colour = np.asarray(rgb[channel], dtype=np.float32)
            self.out[channel] *= clear
            self.out[channel] += alpha * colour
        self.out[3] *= clear

    def below(self, top_X: np.ndarray) -> np.ndarray:
        """Coverage of everything under a skyline."""
        return self.cover(top_X.astype(np.float32) - self.y)

    def box(self, x_X: np.ndarray, half, top, bottom) -> np.ndarray:
        """Coverage of upright rectangles, ``half`` wide to either side of x = 0, from ``top`` down to ``bottom``."""
        return self.cover(np.abs(x_X) - half) * self.cover(np.maximum(top - self.y, self.y - bottom))

    def disc(self, x_X: np.ndarray, y, radius) -> np.ndarray:
        return self.cover(np.sqrt(x_X * x_X + (self.y - y) ** 2) - radius)


def _hills(look: Look, x_X: np.ndarray, salt: int, length: float) -> np.ndarray:
    """A smooth skyline in about -1..1, features about ``length`` units long."""
    phase = 2 * np.pi * hash01(look.seed, salt, np.arange(3)).astype(np.float64)
    turn_X = 2 * np.pi * x_X / length
    waves = [(1.0, 1.0), (0.6, 0.6180), (0.3, 2.236)]
    return sum(a * np.sin(turn_X * k + p) for (a, k), p in zip(waves, phase)).astype(np.float32) / np.float32(1.7)


def _fade(top: np.ndarray, bottom: np.ndarray, share: np.ndarray) -> list[np.ndarray]:
    share = np.clip(share, 0, 1)
    return [a + (b - a) * share for a, b in zip(top.astype(np.float32), bottom.astype(np.float32))]


def _add_stars(picture: np.ndarray, look: Look, x_X: np.ndarray, y_R: np.ndarray) -> None:
    cell = 6.0
    column_X, row_R = np.floor(x_X / cell), np.floor(y_R / cell)
    keys = (column_X[None, :] + 0 * row_R[:, None], row_R[:, None] + 0 * column_X[None, :])
    star_x = (column_X + 0.5)[None] * cell + (hash01(look.seed, 71, *keys) - 0.5) * (cell - 2)
    star_y = (row_R + 0.5)[:, None] * cell + (hash01(look.seed, 72, *keys) - 0.5) * (cell - 2)
    size = hash01(look.seed, 73, *keys) * 1.1 - 0.35
    distance = np.hypot(x_X[None] - star_x, y_R[:, None] - star_y)
    glow = np.clip(size - distance + 0.5, 0, 1) * (0.75 if look.weather == "clear" else 0.2)
    picture += (glow * np.clip(1.3 - y_R[:, None] / look.horizon, 0, 1)).astype(np.float32) * (205 - picture)


def _add_disc(picture: np.ndarray, look: Look, x_X: np.ndarray, y_R: np.ndarray) -> None:
    """Sun or moon at a place that the seed picks."""
    width = x_X[-1] + x_X[0]
    place_x = float(0.18 + 0.64 * hash01(look.seed, 74, np.zeros(1))[0]) * width
    place_y, radius, rgb = {
        "day": (0.16 * look.height, 5.0, (255, 248, 214)),
        "sunset": (look.horizon - 8.0, 8.0, (255, 234, 190)),
        "night": (0.17 * look.height, 4.5, (232, 232, 216)),
    }[look.time]
    strength = 1.0 if look.weather == "clear" else 0.3
    x, y = x_X[None] - place_x, y_R[:, None] - place_y
    soft = 1 / (y_R[1] - y_R[0])
    distance = np.hypot(x, y)
    disc = np.clip(0.5 - (distance - radius) * soft, 0, 1)
    if look.time == "night":
        disc *= np.clip(0.5 + (np.hypot(x - 2.4, y + 1.2) - radius * 0.85) * soft, 0, 1)
    glow = 0.5 * np.exp(-((np.maximum(distance - radius, 0) / (radius * 1.1)) ** 2)) if look.time != "night" else 0
    alpha = (np.maximum(disc, glow) * strength).astype(np.float32)
    picture += alpha * (np.array(rgb, dtype=np.float32)[:, None, None] - picture)


def _clouds(look: Look, x_X: np.ndarray, y_R: np.ndarray) -> np.ndarray:
    canvas, cells = _Canvas(x_X, y_R), _Cells(look, x_X, 34.0, 1)
    middle = cells.uniform(0, 0.12, 0.34) * look.height
    scale = cells.uniform(1, 0.75, 1.25)
    wanted = cells.uniform(2) < (0.75 if look.weather == "clear" else 0.97)
    x, lift = cells.x_X - cells.uniform(3, -4, 4), (canvas.y - middle)
    puffs = [(-5.5, 0.6, 3.0), (0.0, -1.2, 4.6), (5.5, 0.4, 3.4)]
    nearest = np.minimum.reduce([np.hypot(x - a * scale, lift - b * scale) - r * scale for a, b, r in puffs])
    flat = np.maximum(nearest, lift - 2.6 * scale)
    alpha = np.clip(0.5 - flat * min(0.6, canvas.soft), 0, 1) * wanted * 0.85
    top = look.dim(np.array(_CLOUD[look.time], dtype=float))
    canvas.fill(alpha, _fade(top, top * 0.9, (lift / scale + 2.5) / 5))
    return canvas.out


def _meadow_far(look: Look, x_X: np.ndarray, y_R: np.ndarray) -> np.ndarray:
    canvas = _Canvas(x_X, y_R)
    back = look.horizon - 7 + 4.5 * _hills(look, x_X, 21, 47)
    canvas.fill(canvas.below(back), look.light((128, 172, 150), haze=0.42, snow=0.6))
    front = look.horizon - 1 + 3.5 * _hills(look, x_X, 22, 31)
    canvas.fill(canvas.below(front), look.light((132, 182, 128), haze=0.18, snow=0.7))
    return canvas.out


def _meadow_near(look: Look, x_X: np.ndarray, y_R: np.ndarray) -> np.ndarray:
    canvas = _Canvas(x_X, y_R)
    top = look.horizon + 5 + 1.6 * _hills(look, x_X, 23, 41)
    _round_trees(canvas, look, top)
    grass = look.light((148, 190, 112), snow=0.55), look.light((98, 148, 84), snow=0.35)
    canvas.fill(canvas.below(top), _fade(*grass, (canvas.y - top) / (look.height - look.horizon - 5)))
    tuft = _speckle(canvas, look, 24, (4.5, 4.0), (1.5, 0.5), 0.75) * (canvas.y > top + 1.5)
    canvas.fill(tuft * 0.55, look.light((82, 130, 74), snow=0.4))
    flower = _speckle(canvas, look, 25, (8.0, 5.0), (0.8, 0.8), 0.6) * (canvas.y > top + 2)
    canvas.fill(flower, look.light((250, 246, 226)))
    return canvas.out


def _round_trees(canvas: _Canvas, look: Look, top_X: np.ndarray) -> None:
    cells = _Cells(look, canvas.x_X, 27.0, 3)
    wanted = cells.uniform(0) < 0.75
    x = cells.x_X - cells.uniform(1, -5, 5)
    size = cells.uniform(2, 4.0, 6.0)
    crown = top_X.astype(np.float32) - size - 2.5
    canvas.fill(canvas.box(x, 0.8, crown, top_X + 1.5) * wanted, look.light((124, 98, 80)))
    leaves = np.maximum(canvas.disc(x, crown, size), canvas.disc(x - size * 0.55, crown + size * 0.35, size * 0.7))
    canvas.fill(leaves * wanted, look.light((92, 138, 92), snow=0.5))
    lit = canvas.disc(x + size * 0.28, crown - size * 0.28, size * 0.6)
    canvas.fill(lit * wanted * 0.6, look.light((128, 170, 116), snow=0.8))


def _sea_far(look: Look, x_X: np.ndarray, y_R: np.ndarray) -> np.ndarray:
    canvas, cells = _Canvas(x_X, y_R), _Cells(look, x_X, 38.0, 4)
    wanted = cells.uniform(0) < 0.7
    x, half = cells.x_X - cells.uniform(1, -4, 4), cells.uniform(2, 8, 13)
    rise = cells.uniform(3, 4, 8) * np.clip(1 - (x / half) ** 2, 0, 1)
    island = canvas.below(look.horizon - rise + 0.1) * wanted * (np.abs(x) < half)
    canvas.fill(island, look.light((120, 150, 140), haze=0.35, snow=0.6))
    return canvas.out


def _sea_near(look: Look, x_X: np.ndarray, y_R: np.ndarray) -> np.ndarray:
    canvas = _Canvas(x_X, y_R)
    water = look.light((142, 190, 214), haze=0.15, snow=0.25), look.light((58, 116, 166), snow=0.15)
    level = np.full(len(x_X), look.horizon)
    depth = (canvas.y - look.horizon) / (look.height - look.horizon)
    canvas.fill(canvas.below(level), _fade(*water, depth))
    crests = _crests(canvas, look)
    canvas.fill(
        crests * np.clip(0.5 + depth, 0, 1) * (canvas.y > look.horizon + 1.5), look.light((236, 246, 250), snow=0.7)
    )
    _boats(canvas, look)
    return canvas.out


def _crests(canvas: _Canvas, look: Look) -> np.ndarray:
    """Short curved strokes, staggered from row to row."""
    high, wide = 4.2, 13.0
    row = np.floor((canvas.y - look.horizon) / high)
    x = canvas.x_X[None] + hash01(look.seed, 41, row) * wide
    column = np.floor(x / wide)
    keys = (column, row + 0 * column)
    local = (x - (column + 0.5) * wide - (hash01(look.seed, 42, *keys) - 0.5) * 3).astype(np.float32)
    half = hash01(look.seed, 43, *keys) * 2.5 + 2.5
    middle = look.horizon + (row + 0.55) * high - 0.9 * np.cos(local / half * 1.5)
    return canvas.cover(np.abs(canvas.y - middle) - 0.5) * np.clip((half - np.abs(local)) * 0.8, 0, 1)


def _boats(canvas: _Canvas, look: Look) -> None:
    cells = _Cells(look, canvas.x_X, 58.0, 5)
    wanted = cells.uniform(0) < 0.6
    x, water = cells.x_X - cells.uniform(1, -18, 18), look.horizon + cells.uniform(2, 3.5, 7.5)
    up = water - canvas.y
    hull = canvas.cover(np.maximum(np.abs(x) - 4.4 - 0.5 * up, np.abs(up - 0.9) - 0.9))
    canvas.fill(hull * wanted, look.light((146, 108, 92)))
    sail = canvas.cover(np.maximum(np.maximum(-x - 0.2, x - 0.2 - (9.5 - up) * 0.5), 2.2 - up))
    canvas.fill(sail * wanted, look.light((252, 250, 244)))
    jib = canvas.cover(np.maximum(np.maximum(x + 0.9, -x - 0.9 - (8.0 - up) * 0.45), 2.4 - up))
    canvas.fill(jib * wanted, look.light((226, 222, 226)))


def _desert_far(look: Look, x_X: np.ndarray, y_R: np.ndarray) -> np.ndarray:
    canvas, cells = _Canvas(x_X, y_R), _Cells(look, x_X, 36.0, 6)
    wanted = cells.uniform(0) < 0.75
    x, half = cells.x_X - cells.uniform(1, -3, 3), cells.uniform(2, 7, 12)
    top = look.horizon - cells.uniform(3, 7, 13)
    mesa = canvas.cover(np.maximum(np.abs(x) - half - 0.35 * (canvas.y - top), top - canvas.y)) * wanted
    rock = look.light((208, 158, 132), haze=0.3, snow=0.5)
    canvas.fill(mesa, _fade(rock * 1.04, rock * 0.94, (canvas.y - top) / 10))
    stripe = mesa * canvas.cover(np.abs(canvas.y - top - 3.2) - 0.5)
    canvas.fill(stripe * 0.5, look.light((176, 126, 108), haze=0.3, snow=0.5))
    plain = look.horizon - 1 + 1.2 * _hills(look, x_X, 61, 43)
    canvas.fill(canvas.below(plain), look.light((226, 196, 156), haze=0.25, snow=0.7))
    return canvas.out


def _desert_near(look: Look, x_X: np.ndarray, y_R: np.ndarray) -> np.ndarray:
    canvas = _Canvas(x_X, y_R)
    for lift, salt, length, rgb in ((3.0, 62, 53, (236, 212, 170)), (11.0, 63, 39, (226, 196, 148))):
        crest = look.horizon + lift + 2.4 * _hills(look, x_X, salt, length)
        sand = look.light(rgb, snow=0.45)
        canvas.fill(canvas.below(crest), _fade(sand * 1.02, sand * 0.86, (canvas.y - crest) / 12))
        if lift < 10:
            _cacti(canvas, look, crest)
    pebble = _speckle(canvas, look, 64, (8.0, 5.0), (1.5, 0.8), 0.7) * (canvas.y > look.horizon + 9)
    canvas.fill(pebble * 0.8, look.light((158, 122, 92), snow=0.2))
    return canvas.out


def _cacti(canvas: _Canvas, look: Look, ground_X: np.ndarray) -> None:
    cells = _Cells(look, canvas.x_X, 30.0, 7)
    wanted = cells.uniform(0) < 0.75
    x, tall = cells.x_X - cells.uniform(1, -7, 7), cells.uniform(2, 8, 12)
    foot = ground_X.astype(np.float32) + 3
    trunk = canvas.box(x, 1.3, foot - tall, foot)
    arms = np.maximum(
        np.maximum(
            canvas.box(x + 3.4, 0.8, foot - tall * 0.75, foot - tall * 0.4),
            canvas.box(x + 2, 2.2, foot - tall * 0.48, foot - tall * 0.34),
        ),
        np.maximum(
            canvas.box(x - 3.4, 0.8, foot - tall * 0.9, foot - tall * 0.5),
            canvas.box(x - 2, 2.2, foot - tall * 0.6, foot - tall * 0.46),
        ),
    )
    canvas.fill(np.maximum(trunk, arms) * wanted, look.light((104, 142, 106), snow=0.35))


def _city_far(look: Look, x_X: np.ndarray, y_R: np.ndarray) -> np.ndarray:
    canvas, cells = _Canvas(x_X, y_R), _Cells(look, x_X, 8.0, 8)
    top = look.horizon + 4 - cells.uniform(0, 10, 28)
    towers = canvas.box(cells.x_X, 3.6, top, look.height)
    canvas.fill(
        np.maximum(towers, canvas.below(np.full(len(x_X), look.horizon))),
        look.light((150, 162, 188), haze=0.4, snow=0.2),
    )
    return canvas.out


_WALLS: tuple[RGB, ...] = ((202, 172, 158), (168, 178, 192), (212, 198, 172), (156, 156, 172))


def _city_near(look: Look, x_X: np.ndarray, y_R: np.ndarray) -> np.ndarray:
    canvas, cells = _Canvas(x_X, y_R), _Cells(look, x_X, 17.0, 9)
    street = look.height * 0.84
    top = street - 3.5 - np.floor(cells.uniform(0, 2, 5)) * 5.0
    walls = np.stack([look.light(rgb, snow=0.1) for rgb in _WALLS]).astype(np.float32)
    paint = walls[np.minimum(cells.uniform(1, 0, 4).astype(int), 3)].T
    house = canvas.box(cells.x_X, 7.4, top, street)
    canvas.fill(house, paint)
    canvas.fill(canvas.box(cells.x_X, 7.8, top - 0.9, top + 0.3), look.light((110, 104, 112), snow=0.9))
    _windows(canvas, look, cells, top, street)
    canvas.fill(canvas.below(np.full(len(x_X), street)), look.light((186, 186, 188), snow=0.8))
    canvas.fill(canvas.below(np.full(len(x_X), street + 2.6)), look.light((112, 114, 124), snow=0.35))
    dash = _Cells(look, x_X, 11.0, 10)
    middle = (street + 2.6 + look.height) / 2
    canvas.fill(canvas.box(dash.x_X, 2.8, middle - 0.6, middle + 0.6), look.light((240, 238, 226)))
    return canvas.out


def _windows(canvas: _Canvas, look: Look, cells: _Cells, top_X: np.ndarray, street: float) -> None:
    """A grid of panes, dark by day, many of them lit at night."""
    column = np.floor(cells.x_X / 4.6 + 0.5)
    row = np.floor((canvas.y - top_X - 1.2) / 5.0)
    x = cells.x_X - column * 4.6
    middle = top_X + 1.2 + (row + 0.5) * 5.0
    pane = canvas.cover(np.abs(x) - 1.2) * canvas.cover(np.abs(canvas.y - middle) - 1.4)
    pane = pane * (np.abs(column) < 1.5) * (row >= 0) * (canvas.y < street)
    lit = (
        hash01(look.seed, 91, cells.index_X * 3 + column + 0 * row, row + 0 * column)
        < {"day": 0, "sunset": 0.4, "night": 0.62}[look.time]
    )
    dark, warm = look.light((112, 132, 158)), look.dim(np.array((250.0, 228, 178)))
    canvas.fill(pane, [np.where(lit, w, d) for w, d in zip(warm, dark)])


def _mountains_far(look: Look, x_X: np.ndarray, y_R: np.ndarray) -> np.ndarray:
    canvas = _Canvas(x_X, y_R)
    for lift, salt, length, haze in ((27.0, 81, 62, 0.4), (15.0, 82, 44, 0.12)):
        ridge = _ridge(look, x_X, salt, length)
        top = look.horizon - lift * (0.25 + ridge)
        rock = look.light((138, 148, 172), haze=haze, snow=0.15)
        canvas.fill(canvas.below(top), _fade(rock * 0.95, rock * 1.05, (canvas.y - top) / 14))
        jag = (1.2 * np.sin(x_X * 0.9) + 0.9 * np.sin(x_X * 1.63)).astype(np.float32)
        cap = canvas.below(top) * canvas.cover(canvas.y - (look.horizon - lift * 0.8 + jag))
        canvas.fill(cap, look.light((244, 247, 251), haze=haze * 0.3))
    return canvas.out


def _ridge(look: Look, x_X: np.ndarray, salt: int, length: float) -> np.ndarray:
    """Pointed peaks, one per cell, of random height: 0..1."""
    cells = _Cells(look, x_X, length * 0.6, salt)
    reach = length * 0.3
    peak = cells.uniform(0, 0.55, 1.0) * (1 - np.abs(cells.x_X) / reach)
    second = _Cells(look, x_X + reach, length * 0.6, salt + 100)
    saddle = second.uniform(0, 0.4, 0.85) * (1 - np.abs(second.x_X) / reach)
    return np.maximum(peak, saddle)


def _mountains_near(look: Look, x_X: np.ndarray, y_R: np.ndarray) -> np.ndarray:
    canvas = _Canvas(x_X, y_R)
    top = look.horizon + 6 + 1.5 * _hills(look, x_X, 83, 37)
    back = look.horizon + 1.5 + 1.5 * _hills(look, x_X, 84, 29)
    canvas.fill(canvas.below(back), look.light((134, 164, 142), haze=0.12, snow=0.8))
    _firs(canvas, look, top)
    slope = look.light((126, 156, 126), snow=0.9), look.light((86, 122, 104), snow=0.85)
    canvas.fill(canvas.below(top), _fade(*slope, (canvas.y - top) / (look.height - look.horizon - 6)))
    stone = _speckle(canvas, look, 86, (8.0, 5.0), (1.4, 0.8), 0.6) * (canvas.y > top + 2)
    canvas.fill(stone, look.light((176, 182, 184), snow=0.4))
    return canvas.out


def _firs(canvas: _Canvas, look: Look, ground_X: np.ndarray) -> None:
    cells = _Cells(look, canvas.x_X, 9.0, 11)
    wanted = cells.uniform(0) < 0.8
    x, tall = np.abs(cells.x_X - cells.uniform(1, -1.5, 1.5)), cells.uniform(2, 8, 13)
    down = canvas.y - (ground_X.astype(np.float32) + 2 - tall)
    upper = np.maximum(x - down * 0.42, down - tall * 0.5)
    lower = np.maximum(x - (down - tall * 0.25) * 0.42, down - tall * 0.95)
    fir = np.maximum(canvas.cover(upper), canvas.cover(lower)) * (down > -1)
    canvas.fill(fir * wanted, look.light((72, 112, 96), snow=0.45))


def _speckle(
    canvas: _Canvas, look: Look, salt: int, cell: tuple[float, float], half: tuple[float, float], share: float
) -> np.ndarray:
    """Coverage of small ellipses strewn over the ground, one or none per cell."""
    columns, rows = _Cells(look, canvas.x_X, cell[0], salt), _Cells(look, canvas.y[:, 0], cell[1], salt)
    draw_x, draw_y, wanted = (_cell_grid(look, columns, rows, salt + extra) for extra in (0, 200, 400))
    dx = columns.x_X - (draw_x - np.float32(0.5)) * np.float32(cell[0] - 2 * half[0])
    dy = rows.x_X[:, None] - (draw_y - np.float32(0.5)) * np.float32(cell[1] - 2 * half[1])
    near = np.hypot(dx * np.float32(1 / half[0]), dy * np.float32(1 / half[1]))
    return canvas.cover((near - 1) * np.float32(min(half))) * (wanted < share)


def _cell_grid(look: Look, columns: _Cells, rows: _Cells, salt: int) -> np.ndarray:
    """[R, X] one number per two-dimensional cell."""
    per_cell = hash01(look.seed, salt, columns.cells[None, :] + 0 * rows.cells[:, None], rows.cells[:, None])
    return per_cell[rows.which_X[:, None], columns.which_X]


_LAYERS: dict[str, tuple[Callable, Callable]] = {
    "meadow": (_meadow_far, _meadow_near),
    "sea": (_sea_far, _sea_near),
    "desert": (_desert_far, _desert_near),
    "city": (_city_far, _city_near),
    "mountains": (_mountains_far, _mountains_near),
}
