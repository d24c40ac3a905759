"""Small videos for the media tests, made on the spot."""

from fractions import Fraction

import av
import numpy as np


def moving_pattern(frames, height, width):
    """[F, H, W, 3] uint8: smooth colours that move, so that a codec keeps them well."""
    y, x, t = np.mgrid[:height, :width, :frames].astype(np.float32)
    waves = [np.sin((x + 3 * t) / 17), np.sin((y - 2 * t) / 13), np.sin((x + y + t) / 23)]
    return np.stack([128 + 100 * wave for wave in waves], -1).astype(np.uint8).transpose(2, 0, 1, 3).copy()


def frame_with_id(number, height=32, width=64):
    """[H, W, 3] uint8: eight dark or bright columns spell ``number`` in binary, so that it survives a codec."""
    bits = [(number >> bit) & 1 for bit in range(8)]
    row = np.repeat(np.array([32 + 192 * bit for bit in bits], np.uint8), width // 8)
    return np.repeat(np.broadcast_to(row, (height, width))[..., None], 3, axis=2)


def read_id(frame):
    """The number in a frame of :func:`frame_with_id`."""
    row = frame[frame.shape[0] // 2].mean(-1).reshape(8, -1).mean(1)
    return int(sum(1 << bit for bit, value in enumerate(row) if value > 128))


def write_clip(path, frames, times, *, time_base=Fraction(1, 1000), container=None, **stream_settings):
    """Encode ``frames`` with PyAV's own muxer, shown at ``times`` (in units of ``time_base``)."""
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream("libx264", rate=1 / time_base, options={"crf": "10", "preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = frames[0].shape[0], frames[0].shape[1], "yuv420p"
        stream.codec_context.time_base = time_base
        for name, value in stream_settings.items():
            setattr(stream.codec_context, name, value)
        for pixels, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = time, time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def psnr(a, b):
    """Peak signal-to-noise ratio of two uint8 arrays, in dB."""
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)
