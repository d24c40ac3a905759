"""What one frame looks like in a few numbers: exposure, colour, sharpness, noise, layout. No weights.

Letters: H height, W width, K statistics.
"""

import numpy as np

from helios.bench.vision import opencv

NAMES = (
    "luma_mean",
    "luma_std",
    "saturation",
    "colourfulness",
    "lab_a",
    "lab_b",
    "sharpness",
    "noise",
    "clipped",
)
HISTOGRAM_BINS = 8
GRID_ROWS, GRID_COLUMNS = 6, 10
_NOISE_MASK = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_DARKEST, _BRIGHTEST = 2, 253


def frame_statistics(rgb_HW3: np.ndarray, grey_HW: np.ndarray, lab_HW3: np.ndarray) -> np.ndarray:
    """float64 [K] in the order of :data:`NAMES`.

    luma_mean, luma_std: grey / 255. saturation: HSV saturation, 0 to 1. colourfulness: Hasler and Suesstrunk 2003 on
    0-to-1 values, ``|std| + 0.3 |mean|`` of the red-green and yellow-blue opponents. lab_a, lab_b: OpenCV's 8-bit Lab as
    (value - 128) / 128. sharpness: log10(1 + variance of the Laplacian of grey). noise: Immerkaer 1996, the 3x3
    second-difference mask, mean absolute value times sqrt(pi / 2) / 6, as a share of 255. clipped: share of pixels
    with grey <= 2 or >= 253.
    """
    grey = grey_HW.astype(np.float32)
    noise = np.abs(opencv().filter2D(grey, -1, _NOISE_MASK)[1:-1, 1:-1]).mean() * np.sqrt(np.pi / 2) / 6
    lab_mean = lab_HW3.reshape(-1, 3).mean(0)
    return np.array(
        [
            grey.mean() / 255,
            grey.std() / 255,
            _saturation(rgb_HW3),
            _colourfulness(rgb_HW3),
            (lab_mean[1] - 128) / 128,
            (lab_mean[2] - 128) / 128,
            np.log10(1 + opencv().Laplacian(grey, opencv().CV_32F).var()),
            noise / 255,
            np.mean((grey_HW <= _DARKEST) | (grey_HW >= _BRIGHTEST)),
        ],
        np.float64,
    )


def lab_histogram(lab_HW3: np.ndarray) -> np.ndarray:
    """Share of pixels in each of 8 x 8 x 8 Lab cells, float64 [512], sum 1."""
    cells = lab_HW3 >> 5
    flat = (cells[..., 0].astype(np.int32) * HISTOGRAM_BINS + cells[..., 1]) * HISTOGRAM_BINS + cells[..., 2]
    return np.bincount(flat.ravel(), minlength=HISTOGRAM_BINS**3) / flat.size


def lab_grid(lab_HW3: np.ndarray, rows: int = GRID_ROWS, columns: int = GRID_COLUMNS) -> np.ndarray:
    """Mean Lab of a grid of cells / 255, float32 [rows, columns, 3]."""
    small = opencv().resize(lab_HW3.astype(np.float32), (columns, rows), interpolation=opencv().INTER_AREA)
    return small / 255


def hellinger(first: np.ndarray, second: np.ndarray) -> float:
    """Hellinger distance of two histograms, 0 (equal) to 1 (disjoint)."""
    return float(np.sqrt(max(0.0, 1.0 - np.sqrt(first * second).sum())))


def theil_sen(values: np.ndarray, positions: np.ndarray) -> float:
    """Median slope over all pairs of points (Theil 1950, Sen 1968); 0 for fewer than two points."""
    rows, columns = np.triu_indices(len(values), 1)
    if not len(rows):
        return 0.0
    return float(np.median((values[columns] - values[rows]) / (positions[columns] - positions[rows])))


def _saturation(rgb_HW3: np.ndarray) -> float:
    return float(opencv().cvtColor(rgb_HW3, opencv().COLOR_RGB2HSV)[..., 1].mean() / 255)


def _colourfulness(rgb_HW3: np.ndarray) -> float:
    red, green, blue = (rgb_HW3[..., channel].astype(np.float32) / 255 for channel in range(3))
    opponents = red - green, (red + green) / 2 - blue
    spread, offset = (float(np.linalg.norm(values)) for values in zip(*((o.std(), o.mean()) for o in opponents)))
    return spread + 0.3 * offset
