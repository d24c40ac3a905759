"""Wan's weights become a Helios transformer: everything taken over, the history patches averages of Wan's patches."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import avg_pool3d

from helios.checkpoints import Variant, inspect
from helios.checkpoints.wan import ADDED, export_wan_start, helios_config, load_wan_transformer
from helios.errors import InputError
from tests.checkpoints.edit import copy_of, edit_json

SIZES = {"num_attention_heads": 4, "attention_head_dim": 20, "text_dim": 32, "freq_dim": 64, "ffn_dim": 112}
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def wan(tmp_path_factory, tiny):
    from diffusers import WanTransformer3DModel

    path = tmp_path_factory.mktemp("wan") / "wan"
    torch.manual_seed(0)
    model = WanTransformer3DModel(**SIZES, num_layers=2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(path / "transformer")
    for folder in ("vae", "text_encoder", "tokenizer"):
        shutil.copytree(tiny("base") / folder, path / folder)
    return path


def test_every_tensor_of_wan_is_taken_over(wan):
    model, report = load_wan_transformer(wan, "cpu", torch.float32)
    stored, state = load_file(wan / "transformer" / WEIGHTS), model.state_dict()
    assert report.loaded == len(stored) == len(state) - 6
    assert report.renamed == {"scale_shift_table": "norm_out.scale_shift_table"}
    assert set(report.initialised) == set(ADDED) and len(ADDED) == 6
    assert torch.equal(state["norm_out.scale_shift_table"], stored.pop("scale_shift_table"))
    assert all(torch.equal(state[name], tensor) for name, tensor in stored.items())
    assert not any(tensor.is_meta for tensor in state.values()) and not model.training


def test_a_history_token_is_the_mean_of_the_patches_it_covers(wan):
    """Not only for constant regions: with this tiling, averaging tokens and averaging kernels are the same."""
    model, _ = load_wan_transformer(wan, "cpu", torch.float32)
    latents_BCTHW = torch.randn(1, 16, 4, 16, 16)
    with torch.no_grad():
        fine = torch.nn.functional.conv3d(
            latents_BCTHW, model.patch_embedding.weight, model.patch_embedding.bias, stride=(1, 2, 2)
        )
        for name, size, pool in (
            ("patch_short", (1, 2, 2), 1),
            ("patch_mid", (2, 4, 4), 2),
            ("patch_long", (4, 8, 8), 4),
        ):
            patch = getattr(model, name)
            assert tuple(patch.weight.shape[2:]) == size
            coarse = torch.nn.functional.conv3d(latents_BCTHW, patch.weight, patch.bias, stride=size)
            assert torch.allclose(coarse, avg_pool3d(fine, pool), atol=1e-5)


def test_without_history_the_start_computes_what_wan_computes(wan):
    """Same weights, same mathematics: Wan's attention runs over the chunk alone when there is no history."""
    from diffusers import WanTransformer3DModel

    theirs = WanTransformer3DModel.from_pretrained(wan / "transformer").eval()
    ours, _ = load_wan_transformer(wan / "transformer", "cpu", torch.float32)
    generator = torch.Generator().manual_seed(1)
    latents_BCTHW = torch.randn(2, 16, 3, 8, 12, generator=generator)
    text_BSE, timestep_B = torch.randn(2, 7, 32, generator=generator), torch.tensor([700.0, 20.0])
    with torch.no_grad():
        expected = theirs(latents_BCTHW, timestep_B, text_BSE).sample
        got = ours(latents_BCTHW, timestep_B, text_BSE, indices_hidden_states=torch.arange(3)[None]).sample
    assert torch.allclose(got, expected, atol=1e-4 * float(expected.abs().max()))


def test_precision_follows_helios(wan):
    model, _ = load_wan_transformer(wan, "cpu", torch.bfloat16)
    assert model.patch_mid.weight.dtype == model.proj_out.weight.dtype == torch.bfloat16
    assert model.norm_out.scale_shift_table.dtype == torch.float32


def test_the_exported_start_is_a_base_checkpoint(wan, tmp_path):
    report = export_wan_start(wan, tmp_path / "start")
    info = inspect(tmp_path / "start")
    assert info.variant is Variant.BASE and len(report.initialised) == 6
    assert info.transformer_config["rope_dim"] == [8, 6, 6]


def test_the_released_wan_gives_the_released_helios_configuration():
    released = {"_class_name": "WanTransformer3DModel", "image_dim": None, "rope_max_seq_len": 1024}
    assert helios_config(released) == helios_config({"_class_name": "WanTransformer3DModel"})
    config = helios_config(released)
    assert config["rope_dim"] == [44, 42, 42] and config["num_layers"] == 40 and config["ffn_dim"] == 13824


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"_class_name": "FluxTransformer2DModel"},
            "FluxTransformer2DModel is not a Wan transformer: pass a Wan2.1-T2V",
        ),
        ({"image_dim": 1280}, r"made for image input \(image_dim=1280\): pass a Wan2.1-T2V one"),
        ({"added_kv_proj_dim": 5120}, r"made for image input \(added_kv_proj_dim=5120\)"),
        ({"in_channels": 36}, "takes 36 channels and gives 16: pass a T2V one"),
        ({"ffn_dim": 64}, "tensors misshapen"),
        ({"num_layers": 3}, "missing"),
        ({"num_layers": 1}, "unexpected"),
    ],
)
def test_other_checkpoints_are_refused(wan, tmp_path, changes, message):
    copy = copy_of(wan, tmp_path)
    edit_json(copy / "transformer" / "config.json", **changes)
    with pytest.raises(InputError, match=message) as refusal:
        load_wan_transformer(copy, "cpu", torch.float32)
    assert "patch_mid" not in str(refusal.value)


def test_damage_is_refused(wan, tmp_path):
    with pytest.raises(InputError, match="is not a Wan checkpoint: it has no transformer/config.json"):
        load_wan_transformer(tmp_path, "cpu", torch.float32)
    copy = copy_of(wan, tmp_path)
    tensors = load_file(copy / "transformer" / WEIGHTS)
    del tensors["proj_out.bias"]
    save_file(tensors, copy / "transformer" / WEIGHTS)
    with pytest.raises(InputError, match=r"1 of \d+ tensors missing \(proj_out.bias\)"):
        load_wan_transformer(copy, "cpu", torch.float32)
