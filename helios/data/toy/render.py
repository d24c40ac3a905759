"""Scene and frame numbers in, pixels out; any frame by itself, the same whichever frames are asked for with it.

Shape letters: F pixel frames, C 3 colours, H W height and width in pixels.
"""

import numpy as np

from helios.data.toy.fall import FallPainter
from helios.data.toy.scenery import SLOWEST, Layer, Look, layers, sky
from helios.data.toy.sprite import RADIUS, Sprite
from helios.data.toy.track import PAN_SPEED, Track, track
from helios.data.toy.world import TRANSITION_FRAMES, Scene, SceneChange
from helios.errors import InputError

_BLOCK = 66
"""Frames drawn in one go, to bound memory whatever the request."""


def render(scene: Scene | SceneChange, start: int, stop: int, *, height: int = 64, width: int = 64) -> np.ndarray:
    """Frames ``start`` to ``stop - 1`` of an endless video.

    Args:
        start, stop: frame range at 24 frames a second; a minute in is ``start=1440`` and costs no more than 0.
        height, width: in pixels; 32 or more, any number (models want multiples of 64). Objects scale with the smaller
            side, the scenery fills the rest.
    Returns: uint8 [F, H, W, 3].
    Raises: InputError for an empty or negative range or a frame under 32 pixels.
    """
    if not 0 <= start < stop:
        raise InputError(f"frames {start} to {stop} are no range: pass 0 <= start < stop")
    if min(height, width) < 32:
        raise InputError(f"{height}x{width} (height x width) is too small to see anything: use 32x32 or more")
    blocks = [range(first, min(first + _BLOCK, stop)) for first in range(start, stop, _BLOCK)]
    return np.concatenate([_block(scene, np.array(block), height, width) for block in blocks])


class Painter:
    """One scene's look along a path, painted frame by frame into a buffer that stays in the processor's cache.

    Args:
        frames_F: frame indices.
        path: where object and camera are at those frames.
        height, width: in pixels.
    """

    def __init__(self, scene: Scene, frames_F: np.ndarray, path: Track, height: int, width: int):
        unit = min(height, width) / 64
        self._backdrop = Backdrop(scene, path.camera_F, height, width)
        self._sprite = Sprite(
            scene.shape,
            scene.colour,
            path.x_F * unit,
            path.y_F * unit,
            radius=RADIUS[scene.size] * unit,
            unit=unit,
        )
        self._fall = FallPainter(scene, frames_F, height, width)

    def paint(self, frame_CHW: np.ndarray, index: int) -> None:
        """Fill a planar float32 frame, 0..255, with the picture at ``frames_F[index]``."""
        self._backdrop.draw(frame_CHW, index)
        self._sprite.draw(frame_CHW, index)
        self._fall.draw(frame_CHW, index)


class Backdrop:
    """Sky and scenery of one scene as a panning camera sees them; no object, nothing that falls."""

    def __init__(self, scene: Scene, camera_F: np.ndarray, height: int, width: int):
        unit = min(height, width) / 64
        look = Look.of(scene, height / unit)
        x_W, y_H = (np.arange(width) + 0.5) / unit, (np.arange(height) + 0.5) / unit
        self._still_CHW = sky(look, x_W, y_H)
        self._strips = [
            _Strip(layer, look, y_H, camera_F * layer.speed * unit, width, unit) for layer in layers(look.background)
        ]
        self._moves = len(camera_F) > 0 and camera_F.min() < camera_F.max()
        if not self._moves:
            self._lay(self._still_CHW, 0)

    def draw(self, frame_CHW: np.ndarray, index: int) -> None:
        """Fill a planar float32 frame with the scenery at the camera's place number ``index``."""
        np.copyto(frame_CHW, self._still_CHW)
        if self._moves:
            self._lay(frame_CHW, index)

    def _lay(self, frame_CHW: np.ndarray, index: int) -> None:
        for strip in self._strips:
            strip.draw(frame_CHW, index)


class _Strip:
    """The stretch of one layer that a pan passes, sampled between pixels so that it glides instead of stepping."""

    def __init__(self, layer: Layer, look: Look, y_H: np.ndarray, shift_F: np.ndarray, width: int, unit: float):
        height = len(y_H)
        self._rows = slice(int(layer.top * height), int(np.ceil(layer.bottom * height)))
        self._steps = _substeps(unit)
        step_F = np.round(shift_F * self._steps).astype(np.int64)
        self._place_F = step_F - step_F.min()
        pixels = width + int(self._place_F.max()) // self._steps + 1
        samples = int(step_F.min()) + np.arange((pixels + 1) * self._steps - 1) + 0.5
        fine = layer.draw(look, samples / (unit * self._steps), y_H[self._rows])
        length = pixels * self._steps
        smooth = sum(fine[..., k : k + length] for k in range(self._steps)) * np.float32(1 / self._steps)
        by_phase = smooth.reshape(*smooth.shape[:-1], pixels, self._steps)
        self._phases = np.ascontiguousarray(np.moveaxis(by_phase, -1, 0))

    def draw(self, frame_CHW: np.ndarray, index: int) -> None:
        """Blend the layer over a planar float32 frame, in place."""
        pixel, phase = divmod(int(self._place_F[index]), self._steps)
        view = self._phases[phase, :, :, pixel : pixel + frame_CHW.shape[-1]]
        region = frame_CHW[:, self._rows]
        region *= view[3]
        region += view[:3]


def _substeps(unit: float) -> int:
    """Samples per pixel: the fewest with which the slowest layer of a pan moves a whole number of samples per frame."""
    return next((n for n in (1, 2) if (PAN_SPEED * SLOWEST * unit * n).is_integer()), 4)


def _block(scene: Scene | SceneChange, frames_F: np.ndarray, height: int, width: int) -> np.ndarray:
    unit = min(height, width) / 64
    path = track(scene, frames_F, width / unit, height / unit)
    out_FHWC = np.empty((len(frames_F), height, width, 3), np.uint8)
    frame_CHW, other_CHW = np.empty((2, 3, height, width), np.float32)
    levels_CHW = np.empty((3, height, width), np.uint8)
    at = scene.at if isinstance(scene, SceneChange) else 0
    for part, looks in _parts(scene, frames_F):
        painters = [Painter(look, frames_F[part], path[part], height, width) for look in looks]
        for index, frame_HWC in enumerate(out_FHWC[part]):
            painters[0].paint(frame_CHW, index)
            for painter in painters[1:]:
                painter.paint(other_CHW, index)
                other_CHW -= frame_CHW
                frame_CHW += other_CHW * _share(frames_F[part][index] - at)
            frame_CHW += np.float32(0.5)
            np.copyto(levels_CHW, frame_CHW, casting="unsafe")
            for channel, plane_HW in enumerate(levels_CHW):  # five times faster than one strided cast
                frame_HWC[..., channel] = plane_HW
    return out_FHWC


def _parts(scene: Scene | SceneChange, frames_F: np.ndarray) -> list[tuple[slice, tuple[Scene, ...]]]:
    """Consecutive frames cut into stretches that show one look, or two that dissolve."""
    if isinstance(scene, Scene):
        return [(slice(0, len(frames_F)), (scene,))]
    change, end = np.searchsorted(frames_F, [scene.at, scene.at + TRANSITION_FRAMES - 1])
    stretches = [(0, change, (scene.before,)), (change, end, (scene.before, scene.after)), (end, None, (scene.after,))]
    return [(slice(a, b), looks) for a, b, looks in stretches if len(frames_F[a:b])]


def _share(frames_since: int) -> float:
    """Share of the new look in a dissolve: smooth, and 1 after ``TRANSITION_FRAMES``."""
    x = (frames_since + 1) / TRANSITION_FRAMES
    return float(x * x * (3 - 2 * x))
