"""Synthetic clips and faults of known strength for the benchmark's tests.

T frames, H W pixels; clips are uint8 RGB [T, H, W, 3].
"""

import av
import cv2
import numpy as np

HEIGHT, WIDTH = 72, 128


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A colourful texture with structure on several scales, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for sigma, weight in ((1.5, 0.5), (4, 1.0), (12, 1.5)):
        layer = cv2.GaussianBlur(rng.standard_normal((height, width, 3)).astype(np.float32), (0, 0), sigma)
        total += weight * layer / layer.std()
    return np.clip(128 + 28 * total, 0, 255).astype(np.uint8)


def moving(
    num_frames: int,
    *,
    step: tuple[float, float] = (0.7, 0.35),
    zoom: float = 0.0,
    oscillation: float = 0.0,
    height: int = HEIGHT,
    width: int = WIDTH,
    seed: int = 0,
) -> np.ndarray:
    """A camera over a texture: ``step`` pixels (x, y) per frame, ``zoom`` per frame, sideways ``oscillation`` in pixels."""
    margin = 16 + int(num_frames * max(abs(step[0]), abs(step[1])) + oscillation)
    ground = texture(height + 2 * margin, width + 2 * margin, seed)
    frames = []
    for t in range(num_frames):
        scale = (1 + zoom) ** t
        centre = np.array([width / 2 + margin, height / 2 + margin])
        at = centre + np.array(step) * (t - num_frames / 2) + [oscillation * np.sin(2 * np.pi * t / 8), 0]
        corner = at - np.array([width, height]) / 2 / scale
        matrix = np.array([[1 / scale, 0, corner[0]], [0, 1 / scale, corner[1]]])
        frames.append(cv2.warpAffine(ground, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP))
    return np.stack(frames)


def ramp(clip: np.ndarray, change, strength: float) -> np.ndarray:
    """Apply ``change(frame as float, amount)`` with an amount that rises from 0 at 30 % of the clip to ``strength``."""
    out = []
    for t, frame in enumerate(clip):
        amount = strength * max(0.0, (t / (len(clip) - 1) - 0.3) / 0.7)
        out.append(np.clip(change(frame.astype(np.float32), amount), 0, 255))
    return np.rint(np.stack(out)).astype(np.uint8)


def saturate(frame: np.ndarray, amount: float) -> np.ndarray:
    grey = frame @ np.array([0.299, 0.587, 0.114], np.float32)
    return grey[..., None] + (frame - grey[..., None]) * (1 + amount)


def desaturate(frame: np.ndarray, amount: float) -> np.ndarray:
    return saturate(frame, -amount)


def expose(frame: np.ndarray, amount: float) -> np.ndarray:
    return frame * (1 + 0.5 * amount)


def darken(frame: np.ndarray, amount: float) -> np.ndarray:
    return frame * (1 - 0.5 * amount)


def tint(frame: np.ndarray, amount: float) -> np.ndarray:
    return frame + np.array([-20, 25, -20], np.float32) * amount


def blur(frame: np.ndarray, amount: float) -> np.ndarray:
    return cv2.GaussianBlur(frame, (0, 0), 3 * amount) if amount > 0.02 else frame


def noise(frame: np.ndarray, amount: float) -> np.ndarray:
    rng = np.random.default_rng(int(amount * 1e6))
    return frame + rng.standard_normal(frame.shape).astype(np.float32) * 10 * amount


def flicker(clip: np.ndarray, strength: float) -> np.ndarray:
    """Every second frame brighter, every other darker, by 4 % at strength 1."""
    gains = 1 + 0.04 * strength * np.where(np.arange(len(clip)) % 2, 1, -1)
    return np.clip(clip * gains[:, None, None, None], 0, 255).astype(np.uint8)


def freeze(clip: np.ndarray, start: int) -> np.ndarray:
    return np.concatenate([clip[:start], np.repeat(clip[start : start + 1], len(clip) - start, 0)])


def loop(clip: np.ndarray) -> np.ndarray:
    """The second half replaced by the first."""
    half = len(clip) // 2
    return np.concatenate([clip[:half], clip[: len(clip) - half]])


def jump_back(clip: np.ndarray, at: int) -> np.ndarray:
    """From ``at`` on, the clip starts anew from its first frame."""
    return np.concatenate([clip[:at], clip[: len(clip) - at]])


def write_mp4(path, clip: np.ndarray, *, fps: int = 24, crf: int = 12, options: dict | None = None):
    """H.264 in yuv420p at 24 frames per second; returns the path."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": str(crf), "preset": "ultrafast"})
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path
