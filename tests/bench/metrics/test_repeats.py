import numpy as np
import pytest

from helios.bench.metrics.base import Refused
from helios.bench.metrics.repeats import Repeats, repeat_ratio
from tests.bench.clips import expose, loop, moving, noise, ramp
from tests.bench.scoring import measure


def by_definition(frames):
    """The ratio written out in loops."""
    frames = frames - frames.mean(0)

    def distance(a, b):
        return np.sqrt(np.mean((frames[a : a + 8] - frames[b : b + 8]) ** 2))

    ratios = []
    for start in range(16, len(frames) - 7, 2):
        moved = distance(start, start - 8)
        if moved > 0.5 / 255:
            ratios.append(min(distance(start, earlier) for earlier in range(0, start - 15, 2)) / moved)
    return min(ratios) if ratios else 1.0


@pytest.mark.parametrize("num_frames", [24, 41, 180])
def test_blocks_equal_the_definition(num_frames):
    frames = np.cumsum(np.random.default_rng(num_frames).standard_normal((num_frames, 10)), 0)
    assert repeat_ratio(frames) == pytest.approx(by_definition(frames), rel=1e-3)


def test_an_exact_repeat_is_zero_and_a_changed_one_still_small():
    clip = moving(80, step=(1.3, 0.6))
    assert measure(clip, Repeats())["repeat_ratio"] > 0.6
    assert measure(loop(clip), Repeats())["repeat_ratio"] < 0.02
    worn = loop(clip)
    worn[40:] = ramp(worn[40:], lambda f, a: noise(expose(f, 0.1), 0.5), 1.0)
    found = measure(worn, Repeats())
    assert found["repeat_ratio"] < 0.3 and found["loops"]


def test_ping_pong_is_between():
    half = moving(40, step=(1.3, 0.6))
    assert measure(np.concatenate([half, half[::-1]]), Repeats())["repeat_ratio"] < 0.7


def test_a_still_clip_does_not_loop():
    found = measure(np.repeat(moving(1), 40, 0), Repeats())
    assert found == {"repeat_ratio": 1.0, "loops": False}


def test_short_clips_are_refused():
    with pytest.raises(Refused, match="needs 24 frames"):
        measure(moving(23), Repeats())
