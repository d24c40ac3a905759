import pytest
import torch

from helios.errors import InputError
from helios.noise import Address
from helios.noise import Purpose as RolloutPurpose
from helios.training.order import BatchOrder
from helios.training.seeds import Draws, Purpose, RolloutNoise


def test_a_sample_has_the_same_numbers_in_any_micro_batch():
    whole = Draws(7, 3, (0, 1, 2, 3)).normal(Purpose.NOISE, 5)
    parts = [Draws(7, 3, places).normal(Purpose.NOISE, 5) for places in ((0, 1), (2, 3))]
    assert torch.equal(whole, torch.cat(parts))
    assert Draws(7, 3, (2,)).uniform(Purpose.SIGMA).item() == Draws(7, 3, (0, 2)).uniform(Purpose.SIGMA)[1].item()


@pytest.mark.parametrize(
    "other", [Draws(8, 3, (0,)), Draws(7, 4, (0,)), Draws(7, 3, (1,)), Draws(7, 3, (0,), stream=1)]
)
def test_every_part_of_the_address_changes_the_numbers(other):
    assert not torch.equal(Draws(7, 3, (0,)).normal(Purpose.NOISE, 9), other.normal(Purpose.NOISE, 9))
    assert not torch.equal(other.normal(Purpose.NOISE, 9), other.normal(Purpose.NOISE, 9, index=1))
    assert not torch.equal(other.uniform(Purpose.SIGMA), other.uniform(Purpose.BRANCH))


def test_ranks_differ_in_data_and_agree_on_control_flow():
    """Conformance T27: eight ranks, ten steps."""
    ranks = [[Draws(1, step, (rank,)) for step in range(10)] for rank in range(8)]
    sigmas = {draws.uniform(Purpose.SIGMA).item() for rank in ranks for draws in rank}
    noises = {tuple(draws.normal(Purpose.NOISE, 4)[0].tolist()) for rank in ranks for draws in rank}
    assert len(sigmas) == len(noises) == 80
    for step in range(10):
        exits = {tuple(rank[step].synchronous(Purpose.EXIT).integers(100, size=3)) for rank in ranks}
        assert len(exits) == 1
    assert len({rank[0].synchronous(Purpose.EXIT).integers(1 << 60) for rank in ranks}) == 1
    assert ranks[0][0].synchronous(Purpose.EXIT).integers(1 << 60) != ranks[0][1].synchronous(Purpose.EXIT).integers(
        1 << 60
    )


def test_draws_are_what_they_say():
    draws = Draws(0, 0, tuple(range(64)))
    normal, uniform = draws.normal(Purpose.NOISE, 500), draws.uniform(Purpose.SIGMA, 500)
    assert abs(normal.mean()) < 0.02 and abs(normal.std() - 1) < 0.02
    assert abs(uniform.mean() - 0.5) < 0.01 and 0 <= uniform.min() and uniform.max() < 1
    assert set(draws.below(Purpose.CHUNK, [3] * 64)) == {0, 1, 2}


def test_rollout_noise_has_an_address_per_chunk_and_level():
    noise = RolloutNoise(Draws(0, 5, (0, 1)))
    start = noise.normal(Address(RolloutPurpose.CHUNK, 1), (2, 3, 4, 4, 4))
    assert torch.equal(start, noise.normal(Address(RolloutPurpose.CHUNK, 1), (2, 3, 4, 4, 4)))
    assert not torch.equal(start, noise.normal(Address(RolloutPurpose.CHUNK, 2), (2, 3, 4, 4, 4)))
    assert not torch.equal(start[0], start[1])
    blocks = noise.block(Address(RolloutPurpose.BLOCK, 0, 1), (2, 3, 4, 4, 4), 1 / 3)
    sums = blocks.unfold(3, 2, 2).unfold(4, 2, 2).sum((-1, -2))
    assert sums.abs().max() < 1e-5
    assert noise.uniform(Address(RolloutPurpose.ANCHOR_SIGMA), 3, 0.1, 0.2).shape == (2, 3)


def test_a_seed_out_of_range_is_refused():
    with pytest.raises(InputError, match="seed=-1"):
        Draws(-1, 0, (0,))


def test_every_clip_is_used_once_an_epoch_and_buckets_do_not_mix():
    buckets = ["a"] * 9 + ["b"] * 5
    order = BatchOrder(buckets=buckets, batch_size=2, seed=0)
    assert order.batches_per_epoch == 6
    for epoch in range(3):
        batches = [order.batch(6 * epoch + place) for place in range(6)]
        assert all(len({buckets[i] for i in batch}) == 1 for batch in batches)
        flat = [i for batch in batches for i in batch]
        assert len(set(flat)) == len(flat) == 12
    assert order.batch(0) != order.batch(6)
    assert order.batch(3) == BatchOrder(buckets=buckets, batch_size=2, seed=0).batch(3)
    assert [order.batch(i) for i in range(6)] != [
        BatchOrder(buckets=buckets, batch_size=2, seed=1).batch(i) for i in range(6)
    ]
