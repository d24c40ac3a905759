from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from helios.errors import InputError
from helios.training.corruption import (
    Damage,
    NoCorruption,
    PerBatchCorruption,
    PerLatentCorruption,
    Saturation,
    Stacked,
    _segments,
)
from helios.training.sample import Past, TaskMix, cut
from helios.training.seeds import Draws, Purpose
from tests.training.clips import GEOMETRY, clip

ALL = [
    NoCorruption(),
    PerBatchCorruption(mode="noise"),
    PerBatchCorruption(),
    PerBatchCorruption(clean=0, noise=0),
    PerLatentCorruption(),
    PerLatentCorruption(exposure=0.4, noise=0.3, downsample=0.2, clean=0.1),
    Saturation(),
    Stacked(),
]


def draws(count: int, step: int = 0) -> Draws:
    return Draws(0, step, tuple(range(count)))


def past(batch: int = 6, height: int = 16) -> Past:
    generator = torch.Generator().manual_seed(1)
    anchor, window = (torch.randn(batch, 4, n, height, 20, generator=generator) for n in (1, 19))
    return Past(
        anchor_BCTHW=anchor,
        window_BCTHW=window,
        anchor_valid_B1=torch.ones(batch, 1, dtype=torch.bool),
        window_valid_BT=torch.ones(batch, 19, dtype=torch.bool),
    )


@pytest.mark.parametrize("corruption", ALL, ids=lambda c: type(c).__name__)
def test_missing_latents_stay_exactly_zero_in_every_branch(corruption):
    """Conformance T29, with mixed micro-batches: every branch beside every other."""
    for step in range(6):
        sample = cut([clip(5, seed=s) for s in range(10)], draws(10, step), GEOMETRY)
        damaged = corruption.apply(TaskMix().drop(sample, draws(10, step), GEOMETRY), draws(10, step))
        assert damaged.window_BCTHW.transpose(1, 2)[~damaged.window_valid_BT].abs().sum() == 0
        assert damaged.anchor_BCTHW[~damaged.anchor_valid_B1[:, 0]].abs().sum() == 0
        assert (damaged.window_BCTHW.transpose(1, 2)[damaged.window_valid_BT].abs().amax((1, 2, 3)) > 0).all()


def test_published_modes_come_as_often_as_the_table_says():
    """Conformance T15."""
    modes = Counter(PerBatchCorruption(mode="random").chosen(draws(1, step)) for step in range(20_000))
    assert modes["clean"] / 2e4 == pytest.approx(0.10, abs=0.008)
    assert modes["noise"] / 2e4 == pytest.approx(0.81, abs=0.01)
    assert modes["downsample"] / 2e4 == pytest.approx(0.09, abs=0.008)
    noise_only = Counter(PerBatchCorruption(mode="noise").chosen(draws(1, step)) for step in range(4000))
    assert set(noise_only) == {"clean", "noise"} and noise_only["clean"] / 4e3 == pytest.approx(0.1, abs=0.02)


def test_per_latent_modes_come_as_often_as_the_table_says():
    table = PerLatentCorruption(exposure=0.4, noise=0.3, downsample=0.2, clean=0.1)
    shares = torch.bincount(table.modes(draws(1000), 20).flatten(), minlength=4) / 20_000
    torch.testing.assert_close(shares, torch.tensor([0.4, 0.3, 0.2, 0.1]), atol=0.012, rtol=0)


def test_noise_has_one_sigma_per_latent_up_to_a_third():
    before = past(32)
    after = PerBatchCorruption(mode="noise", clean=0).apply(before, draws(32))
    # x + sigma (eps - x): with independent eps the covariance with x gives 1 - sigma.
    kept = (after.window_BCTHW * before.window_BCTHW).sum((1, 3, 4)) / before.window_BCTHW.square().sum((1, 3, 4))
    assert 0.6 < kept.min() and kept.max() < 1.1
    assert kept.std() > 0.05 and 1 - kept.mean() == pytest.approx(1 / 6, abs=0.02)
    assert not torch.equal(after.anchor_BCTHW, before.anchor_BCTHW)


def test_blur_is_antialiased_bilinear_down_and_up_per_segment():
    before, damage = past(2), Damage(min_scale=0.9)
    corruption = PerBatchCorruption(clean=0, noise=0, damage=damage)
    after = corruption.apply(before, draws(2))
    generator = draws(2).together(Purpose.DOWNSAMPLE)
    factors = [0.9 + 0.1 * generator.random() for _ in range(5)]
    frames = [before.anchor_BCTHW, *before.window_BCTHW.split([1, 9, 2, 7], dim=2)]
    got = [after.anchor_BCTHW, *after.window_BCTHW.split([1, 9, 2, 7], dim=2)]
    for factor, x, y in zip(factors, frames, got):
        for t in range(x.shape[2]):
            small = (round(factor * 16), round(factor * 20))
            resized = F.interpolate(x[:, :, t], size=small, mode="bilinear", antialias=True)
            resized = F.interpolate(resized, size=(16, 20), mode="bilinear", antialias=True)
            torch.testing.assert_close(y[:, :, t], resized, rtol=1e-5, atol=1e-6)


def test_per_latent_blur_touches_the_chosen_frames_alone():
    before = past(4)
    table = PerLatentCorruption(exposure=0, noise=0, downsample=0.5, clean=0.5)
    chosen = table.modes(draws(4), 20) == 2
    after = table.apply(before, draws(4))
    frames_before = torch.cat([before.anchor_BCTHW, before.window_BCTHW], 2).transpose(1, 2)
    frames_after = torch.cat([after.anchor_BCTHW, after.window_BCTHW], 2).transpose(1, 2)
    assert torch.equal(frames_before[~chosen], frames_after[~chosen])
    # A factor so close to 1 that it rounds to the full size changes nothing; most do.
    changed = (frames_before[chosen] != frames_after[chosen]).flatten(1).any(1)
    assert changed.float().mean() > 0.5
    assert frames_after[chosen].std() < frames_before[chosen].std()


def test_exposure_keeps_the_channel_mean_and_scales_the_rest():
    before = past(8)
    after = Saturation(clean=0).apply(before, draws(8))
    assert torch.equal(after.anchor_BCTHW, before.anchor_BCTHW)
    mean = before.window_BCTHW.mean(1, keepdim=True)
    torch.testing.assert_close(after.window_BCTHW.mean(1, keepdim=True), mean, rtol=1e-4, atol=1e-6)
    factor = (
        ((after.window_BCTHW - mean) / (before.window_BCTHW - mean)).median(1).values.median(2).values.median(2).values
    )
    assert len(factor[0].round(decimals=2).unique()) <= 4  # one per segment
    assert torch.allclose(factor[0], factor[3], atol=1e-3)  # shared by the micro-batch
    assert 0.29 < factor.min() and factor.max() < 1.71 and ((factor < 1) | (factor > 1)).all()


def test_the_anchor_never_changes_its_exposure():
    before = past(16)
    table = PerLatentCorruption(exposure=1, noise=0, downsample=0, clean=0)
    after = table.apply(before, draws(16))
    assert torch.equal(after.anchor_BCTHW, before.anchor_BCTHW)
    assert (after.window_BCTHW != before.window_BCTHW).flatten(3).any(3).all()


@pytest.mark.parametrize("corruption", ALL, ids=lambda c: type(c).__name__)
def test_corruption_is_addressed_and_works_on_slices(corruption):
    before = past()
    sliced = replace(before, window_BCTHW=torch.cat([before.window_BCTHW] * 2, dim=1)[:, ::2][:, :4])  # not contiguous
    once, twice = (corruption.apply(sliced, draws(6, 3)) for _ in range(2))
    assert torch.equal(once.window_BCTHW, twice.window_BCTHW) and torch.equal(once.anchor_BCTHW, twice.anchor_BCTHW)


def test_per_latent_damage_does_not_depend_on_the_micro_batch():
    table, before = PerLatentCorruption(exposure=0.4, noise=0.3, downsample=0.2, clean=0.1), past(4)
    together = table.apply(before, draws(4))
    half = Past(**{name: getattr(before, name)[2:] for name in before.__dataclass_fields__})
    alone = table.apply(half, Draws(0, 0, (2, 3)))
    torch.testing.assert_close(together.window_BCTHW[2:], alone.window_BCTHW, rtol=1e-6, atol=1e-6)


def test_segments_of_the_window():
    assert _segments(19) == (1, 9, 2, 7)
    assert [sum(_segments(n)) for n in (1, 7, 8, 9, 10, 11, 20)] == [1, 7, 8, 9, 10, 11, 20]


@pytest.mark.parametrize(
    "make", [lambda: PerLatentCorruption(noise=0.5), lambda: PerBatchCorruption(clean=2), lambda: Damage(max_sigma=2)]
)
def test_shares_and_bounds_are_checked(make):
    with pytest.raises(InputError):
        make()
