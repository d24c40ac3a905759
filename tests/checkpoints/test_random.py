"""A random checkpoint is whole: Diffusers and transformers load it, and no tensor has a trivial value."""

import json

import pytest
import torch
from safetensors.torch import load_file

from helios.checkpoints.random import PRESETS, write_random_checkpoint, write_random_tokenizer
from helios.errors import InputError


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    return write_random_checkpoint(tmp_path_factory.mktemp("random") / "distilled", "distilled")


@pytest.mark.parametrize("variant", ["base", "mid", "distilled"])
def test_diffusers_loads_every_variant(tmp_path, variant):
    from diffusers import DiffusionPipeline

    path = write_random_checkpoint(tmp_path / variant, variant)
    pipeline = DiffusionPipeline.from_pretrained(path)
    assert type(pipeline).__name__ == ("HeliosPipeline" if variant == "base" else "HeliosPyramidPipeline")
    assert type(pipeline.scheduler).__name__ == ("HeliosDMDScheduler" if variant == "distilled" else "HeliosScheduler")
    assert pipeline.scheduler.config.stages == (1 if variant == "base" else 3)
    assert pipeline.config.get("is_distilled", False) is (variant == "distilled")
    assert pipeline.vae_scale_factor_spatial == 8 and pipeline.vae_scale_factor_temporal == 4


def test_no_tensor_is_trivial_and_all_are_finite(distilled):
    for folder in ("transformer", "vae", "text_encoder"):
        (file,) = (distilled / folder).glob("*.safetensors")
        for name, tensor in load_file(file).items():
            assert tensor.isfinite().all(), name
            assert tensor.numel() == 1 or tensor.std() > 0.01, name
            assert not torch.any(tensor == 0) and not torch.any(tensor == 1), name


def test_the_diffusers_transformer_holds_exactly_the_files_weights(distilled):
    from diffusers import HeliosTransformer3DModel

    model, report = HeliosTransformer3DModel.from_pretrained(distilled / "transformer", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert sum(parameter.numel() for parameter in model.parameters()) == 656_960


def test_a_random_video_is_finite_and_mostly_inside_the_range(distilled):
    """The VAE's output is clamped to [-1, 1]; if most of it were clamped, comparisons of frames would see little."""
    from diffusers import AutoencoderKLWan

    vae = AutoencoderKLWan.from_pretrained(distilled / "vae")
    latents = torch.randn(1, 16, 2, 8, 8, generator=torch.Generator().manual_seed(0)) * 2
    with torch.no_grad():
        pixels = vae.decode(latents).sample
    assert pixels.isfinite().all() and pixels.std() > 0.2
    assert (pixels.abs() == 1).float().mean() < 0.3


def test_the_seed_alone_decides_the_bytes(tmp_path):
    first = write_random_checkpoint(tmp_path / "a", "mid", seed=3)
    second = write_random_checkpoint(tmp_path / "b", "mid", seed=3)
    other = write_random_checkpoint(tmp_path / "c", "mid", seed=4)
    names = sorted(file.relative_to(first) for file in first.rglob("*") if file.is_file())
    assert len(names) == 12
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    weights = "transformer/diffusion_pytorch_model.safetensors"
    assert (first / weights).read_bytes() != (other / weights).read_bytes()


def test_tokenizer_special_ids_and_unknown_words(tmp_path):
    from transformers import AutoTokenizer

    vocabulary = write_random_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert len(tokenizer) == vocabulary
    ids = tokenizer("a red Ω", padding="max_length", max_length=12).input_ids
    assert 2 in ids and ids.count(1) == 1 and ids[-1] == 0
    assert tokenizer("").input_ids == [1]


def test_sharded_weights_have_an_index_that_names_every_tensor(tmp_path):
    path = write_random_checkpoint(tmp_path / "sharded", "base", max_shard_bytes=500_000)
    folder = path / "transformer"
    weight_map = json.loads((folder / "diffusion_pytorch_model.safetensors.index.json").read_text())["weight_map"]
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) > 2 and set(weight_map.values()) == {file.name for file in files}
    assert set(weight_map) == {name for file in files for name in load_file(file)}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_consistent(preset):
    config = PRESETS[preset].transformer_config()
    assert sum(config["rope_dim"]) == config["attention_head_dim"]


def test_refusals(tmp_path):
    with pytest.raises(InputError, match="variant='huge' is unknown: use base, mid or distilled"):
        write_random_checkpoint(tmp_path / "x", "huge")
    with pytest.raises(InputError, match="preset='big' is unknown: use tiny or small"):
        write_random_checkpoint(tmp_path / "x", "base", preset="big")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty: choose another directory or pass overwrite=True"):
        write_random_checkpoint(tmp_path / "full", "base")
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"
