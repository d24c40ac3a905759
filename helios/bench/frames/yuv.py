"""YUV to RGB as the official decoder computes it: nearest chroma, fixed-point tables.

The official scripts read frames through ``video-reader-rs``, which scales in yuv420p and converts after that. Observed
on its output: a sample x is first widened to 10 bits by bit replication, ``4 x + (x >> 6)``; luma and every chroma
product are rounded to integers one by one and then added. Doing the same leaves 0.1 % of the pixels different for equal
planes; exact arithmetic (round once at the end) leaves a third of them different.
"""

from functools import lru_cache

import numpy as np

_KR_KB = {1: (0.2126, 0.0722), 9: (0.2627, 0.0593)}  # FFmpeg's matrix numbers: BT.709, BT.2020; all others BT.601
_BT601 = (0.299, 0.114)
FULL_RANGE = 2


def rgb_from_planes(
    y: np.ndarray, u: np.ndarray, v: np.ndarray, *, matrix: int = 2, colour_range: int = 0
) -> np.ndarray:
    """uint8 RGB [H, W, 3] from yuv420p planes [H, W] and [ceil(H/2), ceil(W/2)].

    Args:
        matrix: the stream's colour matrix as FFmpeg numbers it; untagged (2) means BT.601.
        colour_range: 2 is full range; anything else is limited range (16 to 235).
    """
    luma, red, green_u, green_v, blue = _tables(matrix, colour_range == FULL_RANGE)
    height, width = y.shape
    base = luma[y]
    out = np.empty((height, width, 3), np.uint8)
    for channel, chroma in enumerate((red[v], green_u[u] + green_v[v], blue[u])):
        full = chroma.repeat(2, 0).repeat(2, 1)[:height, :width]
        out[..., channel] = np.clip(base + full, 0, 255)
    return out


@lru_cache(maxsize=8)
def _tables(matrix: int, full_range: bool) -> tuple[np.ndarray, ...]:
    """Integer contributions of every sample value: luma, red from V, green from U, green from V, blue from U."""
    kr, kb = _KR_KB.get(matrix, _BT601)
    kg = 1 - kr - kb
    offset, luma_gain, chroma_gain = (0, 1.0, 1.0) if full_range else (16, 255 / 219, 255 / 224)
    values = np.arange(256)
    chroma = (_widened(values) - _widened(np.array(128))) / 4 * chroma_gain
    return (
        _rounded(_widened(np.maximum(values - offset, 0)) / 4 * luma_gain),
        _rounded(chroma * 2 * (1 - kr)),
        -_rounded(chroma * 2 * (1 - kb) * kb / kg),
        -_rounded(chroma * 2 * (1 - kr) * kr / kg),
        _rounded(chroma * 2 * (1 - kb)),
    )


def _widened(values: np.ndarray) -> np.ndarray:
    return 4 * values + (values >> 6)


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.floor(values + 0.5).astype(np.int16)
