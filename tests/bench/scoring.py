"""Running metrics on an array, for the benchmark's tests."""

from helios.bench.frames.lossless import array_source
from helios.bench.metrics.base import Clip
from helios.bench.vision import one_thread


def measure(clip, *metrics, prompt=None, scene=None, chunk_frames=33) -> dict:
    """All fields of some metrics on one clip."""
    source = array_source(clip, chunk_frames=chunk_frames)
    described = Clip(info=source.info, prompt=prompt, scene=scene)
    with one_thread():
        running = [metric.begin(described) for metric in metrics]
        for frame in source.frames():
            for accumulator in running:
                accumulator.add(frame)
        fields = {}
        for accumulator in running:
            fields |= accumulator.finish()
    return fields
