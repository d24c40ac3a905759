"""Drift of appearance: how far the end of a clip has moved from its start, and how it got there. No weights.

Start and end windows are the first and last max(4, int(0.15 T)) frames; because the two can agree by chance, the clip is
also cut into ten equal parts. Everything is a running mean per window, so memory does not grow with the clip.
K statistics.
"""

from dataclasses import dataclass, field

import numpy as np

from helios.bench.frames.samplers import Window, end_windows, equal_parts
from helios.bench.frames.source import Frame
from helios.bench.metrics.base import Clip, Fields, Tier, require_frames
from helios.bench.metrics.statistics import NAMES, frame_statistics, hellinger, lab_grid, lab_histogram, theil_sen

LEAST_WINDOW = 4
PARTS = 10
_SHIFT = [NAMES.index(name) for name in ("luma_mean", "lab_a", "lab_b")]


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Differences between the two end windows, and curves over ten parts.

    Fields: ``drift_<statistic>`` = |mean start - mean end| of every statistic of
    :func:`~helios.bench.metrics.statistics.frame_statistics`; ``lab_shift`` the Euclidean length of the shifts of luma, a
    and b; ``hist_drift`` the Hellinger distance of the Lab histograms; ``layout_drift`` the mean absolute difference of
    6 x 10 mean-Lab grids; for all of them ``max_dev_<name>`` (largest departure of a part from the first part) and
    ``slope_<name>`` (Theil-Sen, per 100 frames); ``curves`` with the part means, ``curve_frames`` with their centres.
    """

    name: str = "drift"
    tier: Tier = "offline"
    version: str = "1"

    def check(self) -> None:
        from helios.bench.vision import opencv

        opencv()

    def begin(self, clip: Clip) -> "_WindowMeans":
        require_frames(clip, 2 * LEAST_WINDOW, self.name)
        return _WindowMeans(clip.info.num_frames)


@dataclass
class _Mean:
    """Running means of one window."""

    window: Window
    statistics_K: np.ndarray = field(default_factory=lambda: np.zeros(len(NAMES)))
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(1))
    grid: np.ndarray = field(default_factory=lambda: np.zeros(1))

    def add(self, statistics_K: np.ndarray, histogram: np.ndarray, grid: np.ndarray) -> None:
        share = 1.0 / len(self.window)
        self.statistics_K = self.statistics_K + statistics_K * share
        self.histogram = self.histogram + histogram * share
        self.grid = self.grid + grid * share


class _WindowMeans:
    def __init__(self, num_frames: int):
        self._ends = [_Mean(window) for window in end_windows(num_frames, at_least=LEAST_WINDOW)]
        self._parts = [_Mean(window) for window in equal_parts(num_frames, PARTS)]

    def add(self, frame: Frame) -> None:
        values = frame_statistics(frame.offline, frame.grey, frame.lab), lab_histogram(frame.lab), lab_grid(frame.lab)
        for mean in (*self._ends, *self._parts):
            if frame.index in mean.window:
                mean.add(*values)

    def finish(self) -> Fields:
        fields = _differences(*self._ends)
        centres = np.array([(part.window.start + part.window.stop - 1) / 2 for part in self._parts])
        curves = _curves(self._parts)
        for name, values in curves.items():
            fields[f"max_dev_{name}"] = float(np.abs(values - values[0]).max())
            fields[f"slope_{name}"] = theil_sen(values, centres) * 100
        fields["curves"] = {name: values.tolist() for name, values in curves.items()}
        fields["curve_frames"] = centres.tolist()
        return fields


def _differences(start: _Mean, end: _Mean) -> Fields:
    moved_K = end.statistics_K - start.statistics_K
    return {
        **{f"drift_{name}": float(abs(value)) for name, value in zip(NAMES, moved_K)},
        **_distances(start, end),
    }


def _distances(start: _Mean, end: _Mean) -> dict[str, float]:
    return {
        "lab_shift": float(np.linalg.norm((end.statistics_K - start.statistics_K)[_SHIFT])),
        "hist_drift": hellinger(start.histogram, end.histogram),
        "layout_drift": float(np.abs(end.grid - start.grid).mean()),
    }


def _curves(parts: list[_Mean]) -> dict[str, np.ndarray]:
    """Part means of every statistic, and each part's distance from the first part."""
    plain = np.stack([part.statistics_K for part in parts], -1)
    away = [_distances(parts[0], part) for part in parts]
    return {
        **dict(zip(NAMES, plain)),
        **{name: np.array([distances[name] for distances in away]) for name in away[0]},
    }
