from collections import Counter

import pytest
import torch

from helios.errors import InputError
from helios.shapes import Geometry
from helios.training import sample as sample_module
from helios.training.clips import LatentClip
from helios.training.sample import TaskMix, cut
from helios.training.seeds import Draws
from tests.training.clips import GEOMETRY, clip

CONTINUATION = TaskMix(t2v=0, i2v=0, v2v=0, full=1)


def draws(count: int, step: int = 0) -> Draws:
    return Draws(0, step, tuple(range(count)))


def cut_at(chunk: int, monkeypatch, *, chunks: int = 4, **kwargs):
    monkeypatch.setattr(sample_module.Draws, "below", lambda self, purpose, limits: [chunk] * len(limits))
    return cut([clip(chunks, **kwargs)], draws(1), GEOMETRY)


@pytest.mark.parametrize("chunk, zeros", [(0, 19), (1, 10), (2, 1), (3, 0)])
def test_the_cut_has_the_right_number_of_missing_latents(chunk, zeros, monkeypatch):
    """Conformance T13."""
    latents = clip(4).latents_CTHW
    got = cut_at(chunk, monkeypatch)
    empty = got.past.window_BCTHW[0].abs().sum((0, 2, 3)) == 0
    assert empty.sum() == zeros and empty[:zeros].all()
    assert torch.equal(~empty, got.past.window_valid_BT[0])
    assert bool(got.past.anchor_valid_B1[0]) == (chunk > 0)
    expected = latents[:, :1] if chunk else torch.zeros_like(latents[:, :1])
    assert torch.equal(got.past.anchor_BCTHW[0], expected)
    assert torch.equal(got.target_BCTHW[0], latents[:, 9 * chunk : 9 * chunk + 9])
    known = latents[:, max(0, 9 * chunk - 19) : 9 * chunk]
    assert torch.equal(got.past.window_BCTHW[0, :, zeros:], known)
    assert bool(got.past.empty_B[0]) == (chunk == 0)


def test_streams_are_long_mid_and_anchor_with_newest(monkeypatch):
    past = cut_at(3, monkeypatch).past
    streams = past.streams(GEOMETRY)
    assert torch.equal(streams.long_BCTHW, past.window_BCTHW[:, :, :16])
    assert torch.equal(streams.mid_BCTHW, past.window_BCTHW[:, :, 16:18])
    assert torch.equal(streams.short_BCTHW, torch.cat([past.anchor_BCTHW, past.window_BCTHW[:, :, 18:]], dim=2))


def test_every_chunk_is_drawn_equally_often():
    counts = Counter(cut([clip(4)] * 400, draws(400), GEOMETRY).chunks)
    assert set(counts) == {0, 1, 2, 3} and min(counts.values()) > 75


def test_branches_come_as_often_as_the_nested_probabilities_say():
    """Conformance T14."""
    mix = TaskMix.nested(t2v=0.4, i2v=0.1, v2v=0.4)
    assert (mix.t2v, mix.i2v, mix.v2v, mix.full) == pytest.approx((0.4, 0.06, 0.216, 0.324))
    counts = Counter(mix.branches(draws(100_000)))
    for name in ("t2v", "i2v", "v2v", "full"):
        assert counts[name] / 1e5 == pytest.approx(getattr(mix, name), abs=0.006)


@pytest.mark.parametrize("branch, kept", [("t2v", {0}), ("i2v", {1}), ("v2v", {18, 9, 0}), ("full", {19})])
def test_a_branch_keeps_the_newest_latents_and_the_anchor(branch, kept, monkeypatch):
    monkeypatch.setattr(TaskMix, "branches", lambda self, draws: [branch] * len(draws.samples))
    counts = set()
    for step in range(12):
        sample = cut([clip(9)] * 8, draws(8, step), GEOMETRY)
        past = TaskMix().drop(sample, draws(8, step), GEOMETRY)
        for row, chunk in enumerate(sample.chunks):
            if chunk >= 3:
                valid = past.window_valid_BT[row]
                counts.add(int(valid.sum()))
                assert valid[19 - int(valid.sum()) :].all()
                assert bool(past.anchor_valid_B1[row]) == (branch != "t2v")
                assert torch.equal(past.window_BCTHW[row][:, valid], sample.past.window_BCTHW[row][:, valid])
        assert past.window_BCTHW.transpose(1, 2)[~past.window_valid_BT].abs().sum() == 0
        assert past.anchor_BCTHW[~past.anchor_valid_B1[:, 0]].abs().sum() == 0
    assert counts == kept


def test_a_dropped_latent_that_is_not_finite_is_zero_all_the_same():
    broken = clip(4)
    broken.latents_CTHW[:, :27] = float("nan")
    sample = cut([broken] * 16, draws(16), GEOMETRY)
    past = TaskMix(t2v=1, i2v=0, v2v=0, full=0).drop(sample, draws(16), GEOMETRY)
    assert past.window_BCTHW.abs().max() == 0 and past.anchor_BCTHW.abs().max() == 0


def test_still_pictures_take_both_slots_of_the_image_branch(monkeypatch):
    mix = TaskMix(t2v=0, i2v=1, v2v=0, full=0, still=1)
    sample = cut_at(2, monkeypatch, stills=True)
    past = mix.drop(sample, draws(1), GEOMETRY)
    pictures = clip(4, stills=True).stills_TCHW
    assert torch.equal(past.anchor_BCTHW[0, :, 0], pictures[2])
    assert torch.equal(past.window_BCTHW[0, :, -1], pictures[3])
    assert past.window_BCTHW[0, :, :-1].abs().max() == 0
    moving = TaskMix(t2v=0, i2v=1, v2v=0, full=0).drop(sample, draws(1), GEOMETRY)
    assert torch.equal(moving.anchor_BCTHW, sample.past.anchor_BCTHW)


def test_a_clip_without_stills_keeps_its_own_latents(monkeypatch):
    sample = cut_at(2, monkeypatch)
    past = TaskMix(t2v=0, i2v=1, v2v=0, full=0, still=1).drop(sample, draws(1), GEOMETRY)
    assert torch.equal(past.anchor_BCTHW, sample.past.anchor_BCTHW)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: TaskMix(t2v=0.5), "add up to 1.1"),
        (lambda: TaskMix(still=2.0), "still=2.0 is not a share"),
        (lambda: LatentClip(latents_CTHW=torch.zeros(4, 9, 8, 8), captions=("",)), "no caption"),
        (lambda: LatentClip(latents_CTHW=torch.zeros(4, 9, 8), captions=("a",)), "are not"),
        (lambda: clip(1).chunks(Geometry()), "have 4 channels: this model reads 16"),
        (
            lambda: LatentClip(latents_CTHW=torch.zeros(4, 10, 8, 8), captions=("a",)).chunks(GEOMETRY),
            "10 latent frames",
        ),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
