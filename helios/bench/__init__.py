"""HeliosBench: how good is a long video, measured (paper arXiv 2603.04379, section on HeliosBench).

Two tiers. The *official* tier is the published benchmark: its frame access, windows, ratings and weights, with the
networks and the judge supplied by the user. The *offline* tier needs no weights and no network connection: motion,
smoothness by optical flow, drift of colour, sharpness, contrast and layout, flicker, seams at chunk borders, loops.
What cannot be measured is *missing* and named; it is never a zero inside an average.

    frames/     sources of frames (official decoder, PyAV, OpenCV, a running model), sizes, index samplers
    metrics/    one file per metric: an accumulator that is fed frame after frame
    networks/   CLIP, ViCLIP and AMT-S, written from their description; weights come from the user
    judge.py    the vision-language judge behind an OpenAI-compatible endpoint
    ratings.py  thresholds, ratings 1 to 10, weighted totals
    quality.py  the driver: decode each video once, feed all metrics, keep records, write result files
    merge.py compare.py anchors.py report.py    from result files to tables, plots and one HTML page

The names below load when they are used; importing this package loads neither OpenCV nor PyTorch.
"""

from helios.lazy_names import lazy_names

_PUBLIC = {
    "ClipError": "helios.bench.frames.source",
    "open_source": "helios.bench.frames.opening",
    "QualityConfig": "helios.bench.quality",
    "run": "helios.bench.quality",
    "VideoMaker": "helios.bench.quality",
    "merge_folder": "helios.bench.merge",
    "compare_folders": "helios.bench.compare",
    "write_report": "helios.bench.report",
}
__all__ = list(_PUBLIC)
__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
