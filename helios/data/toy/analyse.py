"""Read a scene back from pixels, with the constants that painted it, so that reader and painter cannot drift apart.

How each attribute is read, on frames shrunk so that the smaller side is 64 pixels:

- object: pixels whose opponent colour reaches towards one of the vivid object colours; the scenery never does.
- colour: hue direction of those pixels, averaged over all frames.
- shape and size: the mask, averaged over frames around its own centre, against masks made by the painter's own signed
  distances at many radii.
- motion: path of the centre on the torus, fitted by a straight line, an orbit and a bounce.
- background, time, weather: mean colour per row against rows painted without an object; weather also by what falls.
- camera: the sideways shift of the nearest scenery that best explains one frame by an earlier one.

Shape letters: F pixel frames, H W height and width of the shrunk frames, C 3 colours, P side of a patch, R row bins,
K known words or templates.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from helios.data.toy.fall import FallPainter
from helios.data.toy.render import Backdrop
from helios.data.toy.scenery import HORIZON
from helios.data.toy.sprite import COLOUR_RGB, RADIUS, signed_distance
from helios.data.toy.track import BOUNCE_FRAMES, ORBIT_FRAMES, PAN_SPEED, SPEED
from helios.data.toy.world import ATTRIBUTES, BACKGROUNDS, CHUNK_FRAMES, SHAPES, TIMES, WEATHERS, Scene
from helios.errors import InputError

_GRID = 64
_THRESHOLD = 0.6
"""Share of the most vivid pixels' strength from which a pixel belongs to the object."""
_FAINTEST = 0.54
"""Strength below which even the most vivid pixels are taken for scenery, which a test keeps below this."""
_SMALLEST, _LARGEST = 40, 1500
"""Pixels of a believable object on the 64-pixel grid (a small star has about 150, a big square about 470)."""
_HALF = 21
_BAND = 4
"""Rows of the shrunk frame whose mean colour counts as one."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the analyser sees; None where it sees nothing that could be called one of the words.

    presence is the share of frames with an object; radius its nominal radius in units; pan the camera's speed in units
    per frame, positive to the right.
    """

    shape: str | None
    colour: str | None
    size: str | None
    motion: str | None
    background: str | None
    time: str | None
    weather: str | None
    camera: str | None
    presence: float
    radius: float
    pan: float

    @property
    def attributes(self) -> dict[str, str | None]:
        """Attribute to the word read."""
        return {attribute: getattr(self, attribute) for attribute in ATTRIBUTES}


def analyse(frames: np.ndarray, *, shapes: tuple[str, ...] = SHAPES) -> Reading:
    """Read every attribute from a clip.

    Args:
        frames: uint8 [F, H, W, 3] at 24 frames a second, 2 frames or more, 32 pixels or more on each side. Motion and
            camera need about 12 frames; up to a minute is fine.
        shapes: shapes to tell apart; add ``NOVEL_SHAPES`` for a fine-tuned model.
    Raises: InputError when this is not such an array.
    """
    _check(frames)
    picture_FHWC = shrink(frames)
    seen = _Object.find(picture_FHWC)
    place = _read_place(picture_FHWC, seen.mask_FHW)
    pan = _read_pan(picture_FHWC, seen.mask_FHW)
    shape, radius = seen.read_shape(shapes)
    return Reading(
        shape=shape,
        colour=seen.read_colour(),
        size=None if shape is None else min(RADIUS, key=lambda size: abs(np.log(radius / RADIUS[size]))),
        motion=_read_motion(seen),
        **place,
        camera=_camera_word(pan),
        presence=float(seen.present_F.mean()),
        radius=radius,
        pan=pan,
    )


def shrink(frames: np.ndarray) -> np.ndarray:
    """Area average to a smaller side of 64 pixels: float32 [F, H, W, 3] in 0..255."""
    height, width = frames.shape[1:3]
    scale = _GRID / min(height, width)
    rows_Hh, columns_Ww = _area(height, round(height * scale)), _area(width, round(width * scale))
    picture = frames.astype(np.float32)
    if len(rows_Hh) != height:
        picture = np.einsum("ah,fhwc->fawc", rows_Hh, picture, optimize=True)
    if len(columns_Ww) != width:
        picture = np.einsum("bw,fawc->fabc", columns_Ww, picture, optimize=True)
    return picture


def _area(old: int, new: int) -> np.ndarray:
    """[new, old] weights of an area average (of a linear-ish enlargement where new > old)."""
    edge = np.arange(new + 1) * old / new
    low, high = edge[:-1, None], edge[1:, None]
    overlap = np.minimum(high, np.arange(old) + 1) - np.maximum(low, np.arange(old))
    return (np.clip(overlap, 0, None) * new / old).astype(np.float32)


def _check(frames: np.ndarray) -> None:
    shape = getattr(frames, "shape", None)
    if shape is None or len(shape) != 4 or shape[3] != 3 or frames.dtype != np.uint8:
        raise InputError(
            f"frames {shape} {getattr(frames, 'dtype', '')} are no clip: pass uint8 [frames, height, width, 3]"
        )
    if shape[0] < 2 or min(shape[1:3]) < 32:
        raise InputError(f"a clip of shape {shape} is too small to read: pass 2 frames or more of 32x32 or more")


def _grey(picture: np.ndarray) -> np.ndarray:
    return (picture[..., 0] + picture[..., 1] + picture[..., 2]) * np.float32(1 / 3)


def _opponent(picture: np.ndarray) -> np.ndarray:
    """Red against green and yellow against blue, [..., 2]: grey is 0, brightness plays no part."""
    red, green, blue = picture[..., 0], picture[..., 1], picture[..., 2]
    return np.stack([red - green, (red + green) / 2 - blue], axis=-1)


_PALETTE_K2 = _opponent(np.array(list(COLOUR_RGB.values()), dtype=np.float32))


def _strength(hue: np.ndarray) -> np.ndarray:
    """How far each opponent colour reaches towards the nearest object colour, 0 to 1: [...]."""
    red_green, yellow_blue = hue[..., 0], hue[..., 1]
    strength = np.zeros_like(red_green)
    for direction in _PALETTE_K2 / (_PALETTE_K2**2).sum(1, keepdims=True):
        np.maximum(strength, red_green * direction[0] + yellow_blue * direction[1], out=strength)
    return np.minimum(strength, 1)


@dataclass(frozen=True)
class _Object:
    """The object through a clip: masks, centres (in pixels of the shrunk grid), patches around the centres."""

    mask_FHW: np.ndarray
    hue_F2: np.ndarray
    centre_F2: np.ndarray
    patch_FPP: np.ndarray
    present_F: np.ndarray

    @classmethod
    def find(cls, picture_FHWC: np.ndarray) -> "_Object":
        hue_FHW2 = _box3(_opponent(picture_FHWC))
        strength_FHW = _strength(hue_FHW2)
        vivid = np.quantile(strength_FHW, 1 - _SMALLEST / strength_FHW[0].size)
        mask_FHW = (strength_FHW > _THRESHOLD * vivid) & (vivid > _FAINTEST)
        centre_F2 = _peak(mask_FHW.astype(np.float32))
        for _ in range(2):
            rows_FP, columns_FP = _window(centre_F2, mask_FHW.shape)
            near_FPP = _gather(mask_FHW, rows_FP, columns_FP)
            centre_F2 = _centroid(near_FPP, np.round(centre_F2))
        rows_FP, columns_FP = _window(centre_F2, mask_FHW.shape)
        near_FPP = _gather(mask_FHW, rows_FP, columns_FP)
        pixels_F = near_FPP.sum((1, 2))
        present_F = (pixels_F >= _SMALLEST) & (pixels_F <= _LARGEST) & (pixels_F > 0.7 * mask_FHW.sum((1, 2)))
        patch_FPP = _gather(strength_FHW, rows_FP, columns_FP)
        weight_FPP = near_FPP.astype(np.float32)
        hue_FPP2 = hue_FHW2[np.arange(len(mask_FHW))[:, None, None], rows_FP[:, :, None], columns_FP[:, None, :]]
        hue_F2 = (hue_FPP2 * weight_FPP[..., None]).sum((1, 2)) / np.maximum(pixels_F, 1)[:, None]
        return cls(mask_FHW, hue_F2, centre_F2, patch_FPP, present_F)

    @property
    def absent(self) -> bool:
        return self.present_F.mean() < 0.5

    def read_colour(self) -> str | None:
        if self.absent:
            return None
        hue_2 = self.hue_F2[self.present_F].mean(0)
        return list(COLOUR_RGB)[int((_PALETTE_K2 @ hue_2 / np.linalg.norm(_PALETTE_K2, axis=1)).argmax())]

    def read_shape(self, shapes: tuple[str, ...]) -> tuple[str | None, float]:
        if self.absent:
            return None, 0.0
        offset_F2 = (self.centre_F2 - np.round(self.centre_F2))[self.present_F]
        mean_PP = _shift_mean(self.patch_FPP[self.present_F], offset_F2)
        body_PP = _level(mean_PP - np.median(mean_PP[_ring()]))
        names, radii, templates_KPP = _shape_templates(tuple(shapes))
        best = int(((templates_KPP - body_PP) ** 2).sum((1, 2)).argmin())
        return names[best], float(radii[best])


def _box3(x_FHWC: np.ndarray) -> np.ndarray:
    """3x3 mean over height and width; the frame wraps around, as the object does."""
    rows = x_FHWC + np.roll(x_FHWC, 1, 1) + np.roll(x_FHWC, -1, 1)
    return (rows + np.roll(rows, 1, 2) + np.roll(rows, -1, 2)) * np.float32(1 / 9)


def _peak(mask_FHW: np.ndarray) -> np.ndarray:
    """[F, 2] row and column around which the most mask lies, on the torus."""
    near = mask_FHW
    for axis in (1, 2):
        ring = [(0, 0)] * 3
        ring[axis] = (8, 7)
        total = np.cumsum(np.pad(near, ring, mode="wrap"), axis=axis)
        size = near.shape[axis]
        near = np.take(total, range(15, 15 + size), axis=axis) - np.take(total, range(size), axis=axis)
    flat = near.reshape(len(near), -1).argmax(1)
    return np.stack(np.unravel_index(flat, mask_FHW.shape[1:]), axis=1).astype(np.float64)


def _window(centre_F2: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    reach_P = np.arange(-_HALF, _HALF + 1)
    corner_F2 = np.round(centre_F2).astype(int)
    return (corner_F2[:, :1] + reach_P) % shape[1], (corner_F2[:, 1:] + reach_P) % shape[2]


def _gather(x_FHW: np.ndarray, rows_FP: np.ndarray, columns_FP: np.ndarray) -> np.ndarray:
    return x_FHW[np.arange(len(x_FHW))[:, None, None], rows_FP[:, :, None], columns_FP[:, None, :]]


def _centroid(near_FPP: np.ndarray, middle_F2: np.ndarray) -> np.ndarray:
    reach_P = np.arange(-_HALF, _HALF + 1)
    total_F = np.maximum(near_FPP.sum((1, 2)), 1)
    return middle_F2 + np.stack([near_FPP.sum(2) @ reach_P / total_F, near_FPP.sum(1) @ reach_P / total_F], axis=1)


def _shift_mean(patch_FPP: np.ndarray, offset_F2: np.ndarray) -> np.ndarray:
    """Mean of the patches after undoing each one's sub-pixel offset (bilinear)."""
    for axis in (1, 2):
        share = offset_F2[:, axis - 1][:, None, None]
        ahead, behind = np.roll(patch_FPP, -1, axis), np.roll(patch_FPP, 1, axis)
        patch_FPP = patch_FPP + np.where(share > 0, share * (ahead - patch_FPP), -share * (behind - patch_FPP))
    return patch_FPP.mean(0)


def _ring() -> np.ndarray:
    reach_P = np.arange(-_HALF, _HALF + 1)
    return np.hypot(reach_P[:, None], reach_P[None]) > _HALF - 2


_BLURS = (0.0, 1.0, 1.8, 2.6)
"""Softness of pictures that shapes are looked for in: standard deviations in units."""


@lru_cache(maxsize=8)
def _shape_templates(shapes: tuple[str, ...]) -> tuple[list[str], list[float], np.ndarray]:
    """Masks of every shape at many radii, sharp and soft, blurred as the finder blurs, each around its own centre."""
    reach_P = np.arange(-_HALF, _HALF + 1, dtype=np.float64)
    soft = [np.exp(-((reach_P[:, None] - reach_P[None]) ** 2) / (2 * max(s, 0.1) ** 2)) for s in _BLURS]
    soft = [matrix / matrix.sum(1, keepdims=True) for matrix in soft]
    names, radii, masks = [], [], []
    for shape in shapes:
        for radius in np.exp(np.linspace(np.log(5.0), np.log(16.5), 41)):
            mask_PP = _template(shape, radius, reach_P)
            for matrix in soft:
                names.append(shape)
                radii.append(float(radius))
                masks.append(_level(matrix @ mask_PP @ matrix.T))
    return names, radii, np.stack(masks).astype(np.float32)


def _level(mask_PP: np.ndarray) -> np.ndarray:
    """The same mask with its solid part at 1."""
    solid_PP = mask_PP[mask_PP > _THRESHOLD * mask_PP.max()]
    return np.clip(mask_PP / max(np.quantile(solid_PP, 0.7), 0.1), 0, 1)


def _template(shape: str, radius: float, reach_P: np.ndarray) -> np.ndarray:
    """One sharp mask, moved until its solid part is centred as the finder centres it."""
    dy = 0.0
    for _ in range(3):
        distance_PP = signed_distance(shape, reach_P[None, :], reach_P[:, None] + dy, radius)
        mask_PP = _box3(np.clip(0.5 - distance_PP, 0, 1)[None, :, :, None])[0, :, :, 0]
        solid_PP = mask_PP > _THRESHOLD
        dy += float(solid_PP.sum(1) @ reach_P / solid_PP.sum())
    return mask_PP


def _read_motion(seen: _Object) -> str | None:
    """The motion of each chunk-long window, by majority (a tie goes to the earlier window)."""
    words = []
    count = max(1, len(seen.present_F) // CHUNK_FRAMES)
    for window in np.array_split(np.arange(len(seen.present_F)), count):
        present = seen.present_F[window]
        if present.mean() >= 0.5:
            path = _unwrap(seen.centre_F2[window][present], seen.mask_FHW.shape[1:])
            words.append(_motion_word(window[present].astype(np.float64), path))
    words = [word for word in words if word is not None]
    return max(words, key=words.count) if words else None


def _unwrap(centre_F2: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The path without the jumps from one side of the frame to the other, as complex numbers right + i down."""
    step_F2 = np.diff(centre_F2, axis=0)
    step_F2 -= np.round(step_F2 / size) * size
    path_F2 = np.concatenate([np.zeros((1, 2)), np.cumsum(step_F2, axis=0)])
    return path_F2[:, 1] + 1j * path_F2[:, 0]


def _motion_word(t_F: np.ndarray, path_F: np.ndarray) -> str | None:
    """The simplest law that explains a path, or None when none does."""
    if len(t_F) < 4:
        return None
    spread = _rms(path_F - path_F.mean())
    if spread < _STILL[0]:
        return "still"
    line, (right, down) = _fit_line(t_F, path_F)
    errors = {"line": line, "circle": _fit_orbit(t_F, path_F), "bounce": _fit_bounce(t_F, path_F)}
    best = min(errors, key=lambda law: errors[law])
    if errors[best] > min(0.5 * spread, _WOBBLE):
        return "still" if spread < _STILL[1] else None
    if best != "line":
        return best
    if not 0.25 * SPEED < max(abs(right), abs(down)) < 3 * SPEED:
        return None
    if abs(right) > abs(down):
        return "right" if right > 0 else "left"
    return "down" if down > 0 else "up"


_WOBBLE = 4.5
"""Units by which a path may be off its law."""
_STILL = (1.6, 4.0)
"""Units of spread under which an object is still, surely or where no law explains its jitter."""


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.abs(x) ** 2)))


def _fit_line(t_F: np.ndarray, path_F: np.ndarray) -> tuple[float, tuple[float, float]]:
    t = t_F - t_F.mean()
    slope = (t * path_F).sum() / (t * t).sum()
    return _rms(path_F - path_F.mean() - slope * t), (slope.real, slope.imag)


def _fit_orbit(t_F: np.ndarray, path_F: np.ndarray) -> float:
    """Residual of the best clockwise circle of believable period and radius."""
    errors = []
    for period in ORBIT_FRAMES * np.array([0.8, 0.9, 1.0, 1.1, 1.2]):
        basis = np.stack([np.ones_like(t_F, dtype=complex), np.exp(2j * np.pi * t_F / period)], axis=1)
        weights, *_ = np.linalg.lstsq(basis, path_F, rcond=None)
        if 4 < abs(weights[1]) < 20:
            errors.append(_rms(path_F - basis @ weights))
    return min(errors, default=np.inf)


def _fit_bounce(t_F: np.ndarray, path_F: np.ndarray) -> float:
    """Residual of the best row of hops of believable period and height."""
    period_N1 = BOUNCE_FRAMES * np.array([0.8, 0.9, 1.0, 1.1, 1.2])[:, None]
    phase_1M = np.arange(24)[None] / 24
    hop_NMF = -np.abs(np.sin(np.pi * (t_F / period_N1[..., None] + phase_1M[..., None])))
    hop_NMF -= hop_NMF.mean(-1, keepdims=True)
    down_F = path_F.imag - path_F.imag.mean()
    height_NM = (hop_NMF @ down_F) / (hop_NMF**2).sum(-1)
    left_NM = (down_F**2).mean() - height_NM**2 * (hop_NMF**2).mean(-1)
    left_NM[(height_NM < 6) | (height_NM > 40)] = np.inf
    sideways = path_F.real - path_F.real.mean()
    return float(np.sqrt(max(left_NM.min(), 0) + (sideways**2).mean()))


def _free(mask_FHW: np.ndarray, margin: int = 3) -> np.ndarray:
    """Where neither the object nor its rim is."""
    wide = mask_FHW
    for axis in (1, 2):
        reach = 0
        while reach < margin:  # each round adds what was reached before, to both sides
            step = min(reach + 1, margin - reach)
            wide = wide | np.roll(wide, step, axis) | np.roll(wide, -step, axis)
            reach += step
    return ~wide


_BANDS = ((HORIZON - 0.2, HORIZON, 0.5, 0.5), (HORIZON + 0.05, 1.0, 1.0, 1.0))
"""Far and near scenery: top and bottom as fractions of the height, share of the camera's speed, and how much the band
has to say. The far one says less because the setting sun stands in it and never moves."""


def _read_pan(picture_FHWC: np.ndarray, mask_FHW: np.ndarray) -> float:
    """Speed of the camera to the right in units per frame: the one that makes the scenery stand still.

    Undo a speed, average over time: at the right one the scenery adds up, and what is left over is least. Chunk-long
    windows are read one by one, and their median counts.
    """
    bands = [_band(picture_FHWC, mask_FHW, top, bottom) for top, bottom, *_ in _BANDS]
    count = max(1, len(mask_FHW) // CHUNK_FRAMES)
    speeds, best = PAN_SPEED * np.linspace(-1.5, 1.5, 13), []
    for window in np.array_split(np.arange(len(mask_FHW)), count):
        cost = [
            sum(
                weight * _left_over(grey[window], free[window], speed * share)
                for (grey, free), (*_, share, weight) in zip(bands, _BANDS)
            )
            for speed in speeds
        ]
        best.append(speeds[int(np.argmin(cost))])
    return float(np.median(best))


def _band(picture_FHWC: np.ndarray, mask_FHW: np.ndarray, top: float, bottom: float) -> tuple[np.ndarray, np.ndarray]:
    """Brightness against the mean of its row, outliers clipped, 0 at the object; and where that is not."""
    height = picture_FHWC.shape[1]
    rows = slice(round(top * height), round(bottom * height))
    grey_FHW, free_FHW = _grey(picture_FHWC[:, rows]), _free(mask_FHW, 5)[:, rows].astype(np.float32)
    grey_FHW = grey_FHW - (grey_FHW * free_FHW).sum(2, keepdims=True) / np.maximum(free_FHW.sum(2, keepdims=True), 1)
    limit_F11 = 3 * np.median(np.abs(grey_FHW), axis=(1, 2), keepdims=True)
    return np.clip(grey_FHW, -limit_F11, limit_F11) * free_FHW, free_FHW


def _left_over(grey_FHW: np.ndarray, free_FHW: np.ndarray, speed: float) -> float:
    """Log of the mean square that one long still picture, seen by a camera of this speed, leaves unexplained."""
    frames, height, width = grey_FHW.shape
    shift_F = np.round(speed * np.arange(frames)).astype(int)
    shift_F -= shift_F.min()
    total, count = np.zeros((2, height, width + shift_F.max()), np.float32)
    for grey_HW, free_HW, shift in zip(grey_FHW, free_FHW, shift_F):
        total[:, shift : shift + width] += grey_HW
        count[:, shift : shift + width] += free_HW
    seen = count > 0
    left = float((grey_FHW**2).sum() - (total[seen] ** 2 / count[seen]).sum())
    return float(np.log(max(left, 0) / max(float(count.sum() - seen.sum()), 1.0) + 4))  # 2 grey levels are nothing


def _camera_word(pan: float) -> str:
    if abs(pan) < PAN_SPEED / 2:
        return "still"
    return "right" if pan > 0 else "left"


def _row_colours(picture_FHWC: np.ndarray, free_FHW: np.ndarray) -> np.ndarray:
    """[R, 3] mean colour of the scenery per band of rows."""
    height = picture_FHWC.shape[1]
    colour_HC = np.einsum("fhwc,fhw->hc", picture_FHWC, free_FHW.astype(np.float32), optimize=True)
    count_H = free_FHW.sum((0, 2)).astype(np.float32)
    bands_RH = _area(height, round(height / _BAND))
    return (bands_RH @ colour_HC) / np.maximum(bands_RH @ count_H, 1e-3)[:, None]


_TOLERANCE = 4.0
"""Grey levels by which any band of rows may be off for any reason."""


@dataclass(frozen=True)
class _Places:
    """What every background, time and weather looks like, and which differences mean little."""

    names: list[tuple[str, str, str]]
    rows_KD: np.ndarray  # D = R * 3 row colours, mean over much scenery
    whiten_DD: np.ndarray  # makes differences within one place equally likely in every direction

    def distances(self, rows_D: np.ndarray) -> np.ndarray:
        """[K] in grey levels: how far the row colours are from each place."""
        return np.sqrt((((self.rows_KD - rows_D) @ self.whiten_DD.T) ** 2).mean(1))


@lru_cache(maxsize=4)
def _places(height: int) -> _Places:
    """Learnt from the painter, once per height of the shrunk frames (64 unless they are upright)."""
    names = [(b, t, w) for b in BACKGROUNDS for t in TIMES for w in WEATHERS]
    samples_KSD = np.stack([[_painted_rows(*name, seed, height) for seed in range(_VIEWS)] for name in names])
    rows_KD = samples_KSD.mean(1)
    apart = (samples_KSD - rows_KD[:, None]).reshape(-1, rows_KD.shape[1])
    spread_DD = apart.T @ apart / len(apart) + _TOLERANCE**2 * np.eye(rows_KD.shape[1])
    return _Places(names, rows_KD, _TOLERANCE * np.linalg.inv(np.linalg.cholesky(spread_DD)))


_VIEWS = 9


def _painted_rows(background: str, time: str, weather: str, seed: int, height: int) -> np.ndarray:
    """Row colours of one view of a painted place, without an object."""
    scene = Scene(background=background, time=time, weather=weather, seed=seed)
    frame_CHW = np.empty((3, height, _GRID), np.float32)
    Backdrop(scene, np.zeros(1), height, _GRID).draw(frame_CHW, 0)
    FallPainter(scene, np.zeros(1), height, _GRID).draw(frame_CHW, 0)
    return _row_colours(frame_CHW.transpose(1, 2, 0)[None], np.ones((1, height, _GRID), bool)).ravel()


def _read_place(picture_FHWC: np.ndarray, mask_FHW: np.ndarray) -> dict[str, str]:
    """The painted place nearest to what is seen; weather that is not seen falling is held against it."""
    free_FHW = _free(mask_FHW)
    places = _places(picture_FHWC.shape[1])
    distance_K = places.distances(_row_colours(picture_FHWC, free_FHW).ravel())
    doubt = _doubt(_grey(picture_FHWC), free_FHW)
    distance_K += _FALL_WEIGHT * np.array([doubt[weather] for _, _, weather in places.names])
    return dict(zip(("background", "time", "weather"), places.names[int(distance_K.argmin())]))


_FALL_WEIGHT = 6.0
"""Grey levels of row colour that seeing, or missing, a fall is worth; two weathers differ by about ten."""
_FALL_STEPS = {"rain": (1, (3, 4), 0.3), "snow": (4, (2, 3), 0.2)}
"""Frames apart, rows fallen in that time, correlation of a plain fall."""


def _doubt(grey_FHW: np.ndarray, free_FHW: np.ndarray) -> dict[str, float]:
    """How much speaks against each weather, 0 to 1: does what moves, move down faster than up, at its speed?"""
    count_HW = np.maximum(free_FHW.sum(0), 1)
    moving_FHW = (grey_FHW - (grey_FHW * free_FHW).sum(0) / count_HW) * free_FHW
    limit = 3 * moving_FHW.std()
    moving_FHW = np.clip(moving_FHW, -limit, limit)
    power = (moving_FHW**2).sum() / max(free_FHW.sum(), 1) + 4  # 2 grey levels of anything are no fall
    seen = {}
    for weather, (apart, steps, plain) in _FALL_STEPS.items():
        apart = min(apart, len(grey_FHW) - 1)
        pairs = moving_FHW[:-apart], moving_FHW[apart:], free_FHW[:-apart] & free_FHW[apart:]
        down = np.mean([_product(*pairs, rows) - _product(*pairs, -rows) for rows in steps])
        seen[weather] = float(np.clip(down / power / plain, 0, 1))
    return {"clear": max(seen.values()), **{weather: 1 - share for weather, share in seen.items()}}


def _product(old_FHW: np.ndarray, new_FHW: np.ndarray, free_FHW: np.ndarray, rows: int) -> float:
    """Mean product of a frame with a later one, ``rows`` further down."""
    height = old_FHW.shape[1]
    upper, lower = slice(max(-rows, 0), height - max(rows, 0)), slice(max(rows, 0), height + min(rows, 0))
    return float((old_FHW[:, upper] * new_FHW[:, lower]).sum() / max(free_FHW[:, lower].sum(), 1))
