import pytest
import torch
from torch import nn

from helios.bench.metrics.interpolation import AmtHalfway
from helios.bench.networks.amt.blocks import LastDecoder, MiddleDecoder, ResidualBlock
from helios.bench.networks.amt.model import AMT
from helios.bench.networks.amt.sampling import Correlation, pixel_grid, resize, sample, warp
from tests.bench.networks.test_clip import parameters, randomised


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return AMT().eval().requires_grad_(False)


def test_size_on_paper():
    with torch.device("meta"):
        network = AMT()
    assert parameters(network) == 2_990_543
    assert len(network.state_dict()) == 213
    keys = set(network.state_dict())
    assert {"feat_encoder.layer2.0.downsample.0.weight", "encoder.pyramid4.1.1.weight", "comb_block.2.bias"} <= keys
    assert {
        "decoder4.convblock.1.conv5.weight",
        "decoder1.convblock.1.prelu.weight",
        "update2.flow_head.2.bias",
    } <= keys


def test_correlation_is_the_scaled_dot_product():
    torch.manual_seed(0)
    first, second = torch.randn(1, 6, 4, 5), torch.randn(1, 6, 4, 5)
    volume = Correlation(first, second, levels=1).pyramid[0].reshape(4, 5, 4, 5)
    expected = torch.einsum("chw,cyx->hwyx", first[0], second[0]) / 6**0.5
    torch.testing.assert_close(volume, expected)


def test_the_transposed_volume_swaps_the_maps():
    torch.manual_seed(0)
    first, second = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    there, back = (
        Correlation(a, b, levels=1).pyramid[0].reshape(16, 16) for a, b in ((first, second), (second, first))
    )
    torch.testing.assert_close(there, back.T)


def test_lookup_order_offsets_and_zero_outside():
    torch.manual_seed(0)
    query, target = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    correlation = Correlation(query, target)
    found = correlation.lookup(pixel_grid(query))
    assert found.shape == (1, 4 * 49, 8, 8)
    volume = correlation.pyramid[0].reshape(8, 8, 8, 8)
    for i, j, y, x in ((0, 0, 4, 5), (3, 3, 2, 2), (6, 1, 1, 4), (2, 5, 7, 7)):
        row, column = y + j - 3, x + i - 3
        inside = 0 <= row < 8 and 0 <= column < 8
        expected = volume[y, x, row, column] if inside else torch.tensor(0.0)
        torch.testing.assert_close(found[0, 7 * i + j, y, x], expected, atol=1e-5, rtol=1e-4)


def test_coarser_levels_are_pooled_over_the_target():
    torch.manual_seed(0)
    query, target = torch.randn(1, 4, 16, 16), torch.randn(1, 4, 16, 16)
    pyramid = Correlation(query, target).pyramid
    assert [volume.shape[-1] for volume in pyramid] == [16, 8, 4, 2]
    pooled = Correlation(query, target).pyramid[0].reshape(256, 8, 2, 8, 2).mean((2, 4))
    torch.testing.assert_close(pyramid[1][:, 0], pooled)


def test_warp_moves_pixels_and_replicates_borders():
    picture = torch.arange(20.0).reshape(1, 1, 4, 5)
    flow = torch.zeros(1, 2, 4, 5)
    torch.testing.assert_close(warp(picture, flow), picture)
    flow[:, 0] = 1
    torch.testing.assert_close(warp(picture, flow)[..., :4], picture[..., 1:])
    torch.testing.assert_close(warp(picture, flow)[..., 4], picture[..., 4])
    flow[:, 0], flow[:, 1] = 0.5, 0.5
    assert warp(picture, flow)[0, 0, 1, 1] == pytest.approx(picture[0, 0, 1:3, 1:3].mean().item())


def test_sampling_on_a_single_column_does_not_divide_by_zero():
    assert torch.isfinite(sample(torch.ones(1, 1, 1, 1), torch.zeros(1, 2, 3, 3), border="zeros")).all()


def test_resize_halves_by_averaging():
    picture = torch.rand(1, 2, 6, 8)
    assert resize(picture, 1) is picture
    torch.testing.assert_close(resize(picture, 0.5), nn.functional.avg_pool2d(picture, 2))


def test_the_side_branch_touches_only_the_last_channels():
    block = randomised(ResidualBlock(6, 2))
    x = torch.randn(1, 6, 5, 5)
    before = block.conv1(x)
    after = block._on_side(block.conv2, before)
    torch.testing.assert_close(after[:, :4], before[:, :4])
    assert not torch.allclose(after[:, 4:], before[:, 4:])


def silenced(decoder):
    for parameter in decoder.convblock[2].parameters():
        parameter.data.zero_()
    return decoder


def test_decoders_carry_the_flow_to_twice_the_size():
    feature, flow = torch.randn(1, 4, 4, 4), torch.full((1, 2, 4, 4), 1.5)
    middle = silenced(MiddleDecoder(4, 3, 2))
    up0, up1, found = middle(feature, feature, feature, flow, -flow)
    assert (up0 == 3).all() and (up1 == -3).all() and found.shape == (1, 3, 8, 8) and (found == 0).all()
    last = silenced(LastDecoder(4, 3, 2))
    flow0, flow1, mask, residual = last(feature, feature, feature, flow, -flow)
    assert flow0.shape == (1, 6, 8, 8) and (flow0 == 3).all() and (flow1 == -3).all()
    assert (mask == 0.5).all() and mask.shape[1] == 3 and residual.shape == (1, 9, 8, 8)


def test_without_flow_and_residual_the_halfway_frame_is_the_blend(network):
    """All decoders and heads silenced: mask 1/2, flows 0, so the merge must return the mean of both pictures."""
    import copy

    quiet = copy.deepcopy(network)
    for name, parameter in quiet.named_parameters():
        if any(part in name for part in ("convblock.2", "flow_head.2", "feat_head.2", "comb_block.2")):
            parameter.data.zero_()
    first, second = torch.rand(2, 3, 34, 50), torch.rand(2, 3, 34, 50)
    torch.testing.assert_close(quiet(first, second), (first + second) / 2, atol=1e-5, rtol=1e-5)


def test_any_size_comes_back_and_stays_in_range(network):
    first, second = torch.rand(1, 3, 33, 47), torch.rand(1, 3, 33, 47)
    found = network(first, second)
    assert found.shape == first.shape and found.min() >= 0 and found.max() <= 1


def test_a_batch_equals_its_members(network):
    first, second = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    both = network(first, second)
    for i in range(2):
        torch.testing.assert_close(both[i], network(first[i : i + 1], second[i : i + 1])[0], atol=1e-5, rtol=1e-4)


def test_quantisation_truncates():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, first, second):
            return torch.full_like(first, 100.9 / 255)

    import numpy as np

    picture = np.zeros((4, 5, 3), np.uint8)
    assert (AmtHalfway(Constant()).between(picture, picture) == 100).all()
