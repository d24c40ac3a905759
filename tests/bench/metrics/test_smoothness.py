import numpy as np
import pytest

from helios.bench.frames.samplers import Window, halfway_triples
from helios.bench.metrics.base import Refused
from helios.bench.metrics.smoothness import DisHalfway, PairErrors, SmoothnessDis, pair_error, score
from tests.bench.clips import moving
from tests.bench.scoring import measure


class Blend:
    """Counts its calls; the halfway frame is the plain average."""

    def __init__(self):
        self.calls = 0

    def between(self, before, after):
        self.calls += 1
        return ((before.astype(np.uint16) + after) // 2).astype(np.uint8)


def by_definition(clip, window, halfway):
    errors = [pair_error(halfway.between(clip[a], clip[c]), clip[b]) for a, b, c in halfway_triples(window)]
    return score(float(np.mean(errors)))


@pytest.mark.parametrize("num_frames", [8, 9, 27, 40, 41])
def test_streamed_scores_equal_the_definition(num_frames):
    rng = np.random.default_rng(num_frames)
    clip = rng.integers(0, 256, (num_frames, 6, 8, 3), dtype=np.uint8)
    pairs = PairErrors(num_frames, Blend())
    for index, frame in enumerate(clip):
        pairs.add(index, frame)
    size = max(4, int(0.15 * num_frames))
    windows = {"whole": (0, num_frames), "start": (0, size), "end": (num_frames - size, num_frames)}
    expected = {name: by_definition(clip, Window(*window), Blend()) for name, window in windows.items()}
    assert pairs.scores() == pytest.approx(expected)


def test_a_pair_that_two_windows_use_is_predicted_once():
    blend = Blend()
    pairs = PairErrors(40, blend)
    for index in range(40):
        pairs.add(index, np.zeros((4, 4, 3), np.uint8))
    assert blend.calls == len(range(0, 38, 2))  # the end window begins at an even frame: all its pairs are the clip's


def test_score_ends():
    assert score(0) == 1 and score(255) == 0 and score(2.55) == pytest.approx(0.99)


def test_flow_predicts_motion_better_than_blending():
    clip = moving(9, step=(2, 1))
    flow, blend = (by_definition(clip, Window(0, 9), halfway) for halfway in (DisHalfway(), Blend()))
    assert flow > 0.985 and flow - blend > 0.01


def test_the_halfway_frame_is_truncated():
    dark, light = np.full((16, 16, 3), 10, np.uint8), np.full((16, 16, 3), 13, np.uint8)
    assert (DisHalfway().between(dark, light) == 11).all()


def test_flow_length_is_per_frame_at_640_wide():
    found = measure(moving(12, step=(1, 0)), SmoothnessDis())
    assert found["flow_mag_dis"] == pytest.approx(640 / 128, rel=0.05)
    assert found["dynamic_frac_dis"] > 0.98


def test_jitter_lowers_the_score_monotonically():
    rng = np.random.default_rng(0)
    shifts = rng.standard_normal((24, 2))
    scores = []
    for strength in (0, 1, 2, 4):
        wide = moving(24, step=(0.5, 0.2), height=96, width=152)
        offsets = np.clip(np.rint(strength * shifts), -12, 12).astype(int)
        clip = np.stack([f[12 + y : 84 + y, 12 + x : 140 + x] for f, (y, x) in zip(wide, offsets)])
        scores.append(measure(clip, SmoothnessDis())["smoothness_dis"])
    assert scores == sorted(scores, reverse=True) and scores[0] - scores[-1] > 0.01


def test_a_short_clip_is_refused():
    with pytest.raises(Refused, match="needs 8 frames"):
        measure(moving(7), SmoothnessDis())
