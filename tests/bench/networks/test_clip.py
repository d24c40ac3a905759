import numpy as np
import pytest
import torch

from helios.bench.metrics.aesthetic import aesthetic_scores
from helios.bench.networks.clip import MEAN, STD, AestheticHead, ImageTower, TowerConfig, preprocess, tower_state
from helios.bench.networks.weights import load_strictly
from helios.errors import InputError

TINY = TowerConfig(side=28, patch=14, width=32, layers=2, heads=4, embedding=16)


def randomised(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return network.eval().requires_grad_(False)


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_full_size_on_paper():
    with torch.device("meta"):
        tower, head = ImageTower(TowerConfig()), AestheticHead()
    assert parameters(tower) == 303_966_208
    assert {name: tuple(value.shape) for name, value in head.state_dict().items()} == {"weight": (1, 768), "bias": (1,)}
    assert tower.positional_embedding.shape == (257, 1024) and tower.proj.shape == (1024, 768)
    keys = set(tower.state_dict())
    assert {"conv1.weight", "class_embedding", "ln_pre.weight", "ln_post.bias", "proj"} <= keys
    assert {"transformer.resblocks.23.attn.in_proj_weight", "transformer.resblocks.0.mlp.c_fc.bias"} <= keys


def test_equals_transformers_with_converted_weights():
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=28,
        patch_size=14,
        projection_dim=16,
        hidden_act="quick_gelu",
    )
    theirs = randomised(CLIPVisionModelWithProjection(config))
    with torch.device("meta"):
        empty = ImageTower(TINY)
    ours = load_strictly(empty, tower_state(theirs.state_dict()), "tiny")
    pixels = torch.randn(3, 3, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(ours(pixels), theirs(pixel_values=pixels).image_embeds, rtol=1e-4, atol=1e-4)


def test_openais_layout_is_taken_as_it_is():
    tower = randomised(ImageTower(TINY))
    state = {f"visual.{name}": value for name, value in tower.state_dict().items()} | {"logit_scale": torch.ones(())}
    assert set(tower_state(state)) == set(tower.state_dict())
    with pytest.raises(InputError, match="neither visual"):
        tower_state({"logit_scale": torch.ones(())})


def denormalised(pixels):
    return (pixels * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 255


def test_preprocessing_sees_the_middle_of_the_width():
    frames = torch.zeros(1, 368, 640, 3, dtype=torch.uint8)
    frames[:, :, 320:] = 200
    pixels = denormalised(preprocess(frames, clamp=True))[0]
    assert pixels.shape == (3, 224, 224)
    columns = (pixels[0, 100] > 100).nonzero()
    assert columns.min().item() == 389 // 2 - 82 + 1  # 224 x 389, cropped from column 82


def test_overshoot_is_clamped_only_where_the_published_script_does():
    frames = torch.zeros(1, 448, 448, 3, dtype=torch.uint8)
    frames[:, :, 224:] = 255
    free, clamped = (denormalised(preprocess(frames, clamp=clamp)) for clamp in (False, True))
    assert free.min() < -1 and free.max() > 256
    assert clamped.min() > -0.01 and clamped.max() < 255.01
    torch.testing.assert_close(clamped, clamped.round(), rtol=0, atol=1e-3)


def test_portrait_frames_are_cropped_in_height():
    assert preprocess(torch.zeros(2, 600, 300, 3, dtype=torch.uint8), clamp=False).shape == (2, 3, 224, 224)


def test_scores_are_a_tenth_of_the_head_on_unit_embeddings():
    tower, head = (
        randomised(ImageTower(TowerConfig(width=32, layers=1, heads=2, embedding=16))),
        randomised(AestheticHead(16)),
    )
    frames = np.random.default_rng(0).integers(0, 256, (2, 240, 300, 3), dtype=np.uint8)
    scores = aesthetic_scores(frames, tower, head)
    embedding = tower(preprocess(torch.from_numpy(frames), clamp=False))
    expected = head(embedding / embedding.norm(dim=-1, keepdim=True))[:, 0] / 10
    assert scores == pytest.approx(expected.numpy(), abs=1e-5)
