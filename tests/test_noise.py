import numpy as np
import pytest
import torch

from helios.errors import InputError
from helios.noise import Address, AddressedNoise, Purpose, ReferenceNoise

SHAPE = (1, 4, 3, 8, 8)
FIRST_VALUES = [-0.47265729308128357, 0.5694705843925476, 1.2507717609405518, 0.7949085831642151]


def draw(seed: int = 0, purpose: Purpose = Purpose.CHUNK, chunk: int = 0, level: int = 0) -> torch.Tensor:
    return AddressedNoise((seed,)).normal(Address(purpose, chunk, level), SHAPE)


def test_the_same_address_gives_the_same_numbers():
    assert torch.equal(draw(5, Purpose.BLOCK, 7, 1), draw(5, Purpose.BLOCK, 7, 1))


def test_every_part_of_the_address_matters():
    """The published code draws the same block noise for every chunk and every seed (B1)."""
    base = draw()
    others = [draw(seed=1), draw(purpose=Purpose.BLOCK), draw(chunk=1), draw(level=1), draw(seed=2**64 - 1)]
    for other in others:
        assert abs(np.corrcoef(base.flatten(), other.flatten())[0, 1]) < 0.2
        assert not torch.equal(base, other)


def test_values_are_part_of_the_contract():
    """Seeds must make the same video on every machine and in every later version."""
    values = AddressedNoise((42,)).normal(Address(Purpose.CHUNK, 3), (1, 4)).flatten()
    torch.testing.assert_close(values, torch.tensor(FIRST_VALUES), rtol=0, atol=0)


def test_a_batch_is_its_videos():
    both = AddressedNoise((3, 9))
    address = Address(Purpose.CHUNK, 2)
    stacked = torch.cat([AddressedNoise((seed,)).normal(address, SHAPE) for seed in (3, 9)])
    assert torch.equal(both.normal(address, (2, *SHAPE[1:])), stacked)
    uniform = both.uniform(Address(Purpose.ANCHOR_SIGMA), 5, 0.1, 0.2)
    assert uniform.shape == (2, 5) and 0.1 <= uniform.min() and uniform.max() < 0.2
    with pytest.raises(ValueError, match="as many seeds"):
        both.normal(address, SHAPE)


def test_draws_are_standard_normal():
    values = AddressedNoise((0,)).normal(Address(Purpose.CHUNK), (1, 100_000))
    assert abs(values.mean()) < 0.02 and abs(values.std() - 1) < 0.02


def test_block_noise_cancels_within_blocks():
    noise = AddressedNoise((0,)).block(Address(Purpose.BLOCK, 0, 1), SHAPE, 1 / 3)
    sums = torch.nn.functional.avg_pool3d(noise, (1, 2, 2))
    assert noise.std() > 0.9 and sums.abs().max() < 1e-6


def test_reference_noise_draws_in_turn():
    source = ReferenceNoise(torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    assert torch.equal(source.normal(Address(Purpose.CHUNK), SHAPE), torch.randn(SHAPE, generator=generator))
    expected = torch.rand(2, generator=generator) * 0.5 + 0.25
    assert torch.equal(source.uniform(Address(Purpose.ANCHOR_SIGMA), 2, 0.25, 0.75), expected[None])


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_out_of_range_are_refused(seed):
    with pytest.raises(InputError, match="seed="):
        AddressedNoise((seed,))
