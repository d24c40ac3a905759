import pytest
import torch

from helios.bench.networks.clip import TowerConfig
from helios.bench.networks.viclip import TextConfig, ViCLIP, ViCLIPConfig, VideoTower
from tests.bench.networks.test_clip import parameters, randomised

TINY = ViCLIPConfig(
    vision=TowerConfig(side=28, patch=14, width=32, layers=2, heads=4, embedding=16),
    text=TextConfig(vocabulary=64, context=8, width=24, layers=2, heads=3, embedding=16),
)


def test_full_size_on_paper():
    with torch.device("meta"):
        network = ViCLIP(ViCLIPConfig())
    assert parameters(network.vision_encoder) == 303_974_400
    assert parameters(network.text_encoder) == 123_615_744
    assert parameters(network) == 303_974_400 + 123_615_744 + 1
    keys = set(network.state_dict())
    vision = ("conv1.weight", "class_embedding", "positional_embedding", "temporal_positional_embedding", "ln_pre.bias")
    assert {f"vision_encoder.{name}" for name in (*vision, "ln_post.weight", "proj")} <= keys
    text = ("token_embedding.weight", "positional_embedding", "ln_final.weight", "text_projection")
    assert {f"text_encoder.{name}" for name in text} | {"temp"} <= keys
    blocks = ("ln_1.weight", "attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight", "mlp.c_proj.bias")
    assert {
        f"{tower}_encoder.transformer.resblocks.11.{name}" for tower in ("vision", "text") for name in blocks
    } <= keys


def test_token_order_and_position_tables():
    tower = VideoTower(TINY.vision, 8)
    for parameter in tower.parameters():
        parameter.data.zero_()
    tower.class_embedding.data.fill_(100)
    tower.positional_embedding.data += torch.arange(5.0)[:, None]  # class, then 2 x 2 patches
    tower.temporal_positional_embedding.data += 10 * torch.arange(8.0)[None, :, None]
    tokens = tower.tokens(torch.zeros(1, 3, 8, 28, 28))[0, :, 0]
    assert tokens.shape == (1 + 8 * 4,)
    assert tokens[0] == 100
    assert tokens[1:].tolist() == [10 * frame + patch for frame in range(8) for patch in (1, 2, 3, 4)]
    single = tower.tokens(torch.zeros(1, 3, 1, 28, 28))[0, 1:, 0]
    assert single.tolist() == [35 + patch for patch in (1, 2, 3, 4)]  # the mean of the temporal table


def test_full_sequence_length():
    with torch.device("meta"):
        tokens = VideoTower(TowerConfig(), 8).tokens(torch.zeros(1, 3, 8, 224, 224))
    assert tokens.shape == (1, 2049, 1024)


def test_the_text_feature_is_read_at_the_largest_id_and_later_tokens_do_not_matter():
    tower = randomised(ViCLIP(TINY)).text_encoder
    first, second = torch.tensor([[1, 5, 63, 0, 0, 0, 0, 0]]), torch.tensor([[1, 5, 63, 9, 9, 9, 9, 9]])
    torch.testing.assert_close(tower(first), tower(second))
    assert not torch.allclose(tower(first), tower(torch.tensor([[1, 6, 63, 0, 0, 0, 0, 0]])))


def test_frame_order_matters_and_similarity_is_a_cosine():
    network = randomised(ViCLIP(TINY))
    pixels = torch.randn(1, 3, 8, 28, 28)
    ids = torch.tensor([[1, 5, 63, 0, 0, 0, 0, 0]])
    forward, backward = network.similarity(pixels, ids), network.similarity(pixels.flip(2), ids)
    assert forward.shape == (1,) and -1 <= forward.item() <= 1
    assert forward.item() != pytest.approx(backward.item(), abs=1e-6)
