"""What codecs and models do to pictures: each fault takes frames uint8 [F, H, W, 3] and a generator of numbers."""

from collections.abc import Callable
from io import BytesIO

import numpy as np

Fault = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _uint8(pixels: np.ndarray) -> np.ndarray:
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


def noise(sigma: float) -> Fault:
    return lambda frames, rng: _uint8(frames + rng.normal(0, sigma, frames.shape))


def blur(sigma: float) -> Fault:
    reach = np.arange(-12, 13)
    weights = np.exp(-(reach**2) / (2 * sigma**2))
    weights /= weights.sum()

    def apply(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        pixels = frames.astype(np.float32)
        for axis in (1, 2):
            margins = [(12, 12) if a == axis else (0, 0) for a in range(4)]
            wide, size = np.pad(pixels, margins, mode="edge"), pixels.shape[axis]
            pixels = sum(w * np.take(wide, range(i, i + size), axis=axis) for i, w in enumerate(weights))
        return _uint8(pixels)

    return apply


def pale(share: float) -> Fault:
    def apply(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        grey = frames.mean(-1, keepdims=True)
        return _uint8(grey + share * (frames - grey))

    return apply


def jitter(pixels: int) -> Fault:
    return lambda frames, rng: np.stack([np.roll(f, rng.integers(-pixels, pixels + 1, 2), (0, 1)) for f in frames])


def coarse(factor: int) -> Fault:
    def apply(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        count, height, width, _ = frames.shape
        blocks = frames.reshape(count, height // factor, factor, width // factor, factor, 3).mean((2, 4))
        return _uint8(blocks.repeat(factor, 1).repeat(factor, 2))

    return apply


def h264(crf: int) -> Fault:
    def apply(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        import av

        file = BytesIO()
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=24, options={"crf": str(crf)})
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        file.seek(0)
        with av.open(file) as container:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])

    return apply


FAULTS: dict[str, Fault] = {
    "none": lambda frames, rng: frames,
    "H.264 crf 23": h264(23),
    "H.264 crf 35": h264(35),
    "noise 20": noise(20),
    "noise 40": noise(40),
    "blur 1.5": blur(1.5),
    "blur 3": blur(3),
    "pale 0.6": pale(0.6),
    "tint": lambda frames, rng: _uint8(frames * np.array([1.04, 1.0, 0.96]) + 3),
    "jitter 2": jitter(2),
    "4x down and up": coarse(4),
    "first 16 frames": lambda frames, rng: frames[:16],
    "frames shuffled": lambda frames, rng: frames[rng.permutation(len(frames))],
    "pure noise": lambda frames, rng: rng.integers(0, 256, frames.shape, dtype=np.uint8),
}
