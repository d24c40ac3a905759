"""Where things are at a frame: the object on the screen, the camera along its endless scenery. World units, float64.

Shape letters: F pixel frames.
"""

from dataclasses import dataclass

import numpy as np

from helios.data.toy.world import Scene, SceneChange

SPEED = 1.25
"""Units per frame of an object that moves left, right, up or down: 64 % of a square frame in a chunk."""
PAN_SPEED = 1.0
"""Units per frame of the nearest scenery under a panning camera."""
ORBIT_RADIUS, ORBIT_FRAMES = 10.0, 40
"""Circling is clockwise on the screen."""
BOUNCE_HEIGHT, BOUNCE_FRAMES = 18.0, 24

DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}


@dataclass(frozen=True)
class Track:
    """The path of an object and of the camera for the frames asked for.

    x_F, y_F are the object's centre in units, not yet wrapped into the frame; camera_F is how far the camera has gone
    to the right.
    """

    x_F: np.ndarray
    y_F: np.ndarray
    camera_F: np.ndarray

    def __getitem__(self, part: slice) -> "Track":
        """The same path for some of the frames."""
        return Track(self.x_F[part], self.y_F[part], self.camera_F[part])


def track(scene: Scene | SceneChange, frames_F: np.ndarray, width: float, height: float) -> Track:
    """The path of a scene, or of a change of scene: after the change each thing goes on from where it was.

    Args:
        frames_F: frame indices, any order, negative ones included.
        width, height: of the frame in units.
    """
    if isinstance(scene, SceneChange):
        return _changed_track(scene, frames_F, width, height)
    dx_F, dy_F = displacement(scene.motion, frames_F, orbit_phase(scene))
    return Track(scene.x * width + dx_F, scene.y * height + dy_F, pan(scene.camera, frames_F))


def displacement(motion: str, frames_F: np.ndarray, phase: float) -> tuple[np.ndarray, np.ndarray]:
    """Offset in units from the start position after a time in frames; right and down are positive."""
    t_F = np.asarray(frames_F, dtype=np.float64)
    if motion in DIRECTIONS:
        right, down = DIRECTIONS[motion]
        return right * SPEED * t_F, down * SPEED * t_F
    if motion == "circle":
        angle_F = 2 * np.pi * (t_F / ORBIT_FRAMES + phase)
        return ORBIT_RADIUS * np.cos(angle_F), ORBIT_RADIUS * np.sin(angle_F)
    if motion == "bounce":
        return np.zeros_like(t_F), -BOUNCE_HEIGHT * np.abs(np.sin(np.pi * (t_F / BOUNCE_FRAMES + phase)))
    return np.zeros_like(t_F), np.zeros_like(t_F)


def pan(camera: str, frames_F: np.ndarray) -> np.ndarray:
    """How far the camera has gone to the right, in units of the nearest scenery."""
    return {"left": -PAN_SPEED, "right": PAN_SPEED}.get(camera, 0.0) * np.asarray(frames_F, dtype=np.float64)


def orbit_phase(scene: Scene) -> float:
    """Phase in turns, from the seed, so that orbits and bounces do not all start at the same point."""
    return (scene.seed * 0.6180339887498949) % 1.0


def _changed_track(change: SceneChange, frames_F: np.ndarray, width: float, height: float) -> Track:
    old = track(change.before, frames_F, width, height)
    at = track(change.before, np.array([change.at]), width, height)
    since_F = np.asarray(frames_F) - change.at
    late_F = since_F >= 0
    camera_F = np.where(late_F, at.camera_F + pan(change.after.camera, since_F), old.camera_F)
    if change.after.motion == change.before.motion:
        return Track(old.x_F, old.y_F, camera_F)
    phase = orbit_phase(change.after)
    dx_F, dy_F = displacement(change.after.motion, since_F, phase)
    (x0,), (y0,) = displacement(change.after.motion, np.zeros(1), phase)
    x_F, y_F = at.x_F + dx_F - x0, at.y_F + dy_F - y0
    return Track(np.where(late_F, x_F, old.x_F), np.where(late_F, y_F, old.y_F), camera_F)
