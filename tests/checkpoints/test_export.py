"""What is exported loads everywhere, byte by byte what was not trained, and is there whole or not at all."""

import json

import pytest
import torch
from safetensors.torch import load_file

from helios.checkpoints import Variant, inspect, load_transformer, load_vae, save, save_transformer
from helios.checkpoints.presets import OwnSettings
from helios.checkpoints.tensor_files import weight_files
from helios.errors import InputError
from helios.models.transformer.precision import cast, keeps_float32
from tests.checkpoints.edit import copy_of, edit_json


def exported(source, target, **changes):
    info = inspect(source)
    parts = {
        "variant": info.variant,
        "scheduler": info.scheduler,
        "transformer": load_transformer(info, "cpu", torch.float32),
        "vae": load_vae(info, "cpu"),
        "text_encoder": source / "text_encoder",
        "tokenizer": source / "tokenizer",
    }
    return save(target, **{**parts, **changes})


def tensors(checkpoint, component):
    files = weight_files(checkpoint / component, "diffusion_pytorch_model")
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def content(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.parametrize("variant", list(Variant))
def test_an_export_is_the_same_checkpoint(tiny, tmp_path, variant):
    source = tiny(variant.value)
    target = exported(source, tmp_path / "new")
    before, after = inspect(source), inspect(target)
    assert after.variant is variant and after.scheduler == before.scheduler
    assert after.transformer_config == before.transformer_config and after.vae_config == before.vae_config
    for component in ("transformer", "vae"):
        old, new = tensors(source, component), tensors(target, component)
        assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new"]


@pytest.mark.parametrize("variant", list(Variant))
def test_diffusers_loads_an_export_with_its_own_classes(tiny, tmp_path, variant):
    from diffusers import DiffusionPipeline

    target = exported(tiny(variant.value), tmp_path / "new")
    pipeline = DiffusionPipeline.from_pretrained(target)
    assert type(pipeline).__name__ == variant.pipeline_class
    assert type(pipeline.scheduler).__name__ == variant.scheduler_class
    assert type(pipeline.transformer).__module__.startswith("diffusers.")
    published = DiffusionPipeline.from_pretrained(tiny(variant.value))
    ours, theirs = dict(pipeline.scheduler.config), dict(published.scheduler.config)
    assert {key: ours[key] for key in theirs if key[0] != "_"} == {key: theirs[key] for key in theirs if key[0] != "_"}


def test_the_keys_that_engines_decide_by(tiny, tmp_path):
    for variant in Variant:
        target = exported(tiny(variant.value), tmp_path / variant.value)
        scheduler = json.loads((target / "scheduler" / "scheduler_config.json").read_text())
        assert scheduler["_class_name"] == variant.scheduler_class
        assert scheduler["scheduler_type"] == ("dmd" if variant is Variant.DISTILLED else "unipc")
        index = json.loads((target / "model_index.json").read_text())
        assert index["_class_name"] == variant.pipeline_class
        assert index["transformer"] == ["diffusers", "HeliosTransformer3DModel"]
        config = json.loads((target / "transformer" / "config.json").read_text())
        assert config["_class_name"] == "HeliosTransformer3DModel"
        assert len([key for key in config if not key.startswith("_")]) == 20


def test_text_folders_are_copied_byte_for_byte(tiny, tmp_path):
    target = exported(tiny("base"), tmp_path / "new", vae=tiny("base") / "vae")
    for folder in ("text_encoder", "tokenizer", "vae"):
        assert content(target / folder) == content(tiny("base") / folder)
    assert "shared.weight" in load_file(target / "text_encoder" / "model.safetensors")


def test_tied_embeddings_are_stated_even_where_the_released_file_denies_them(tiny, tmp_path):
    source = copy_of(tiny("base"), tmp_path)
    edit_json(source / "text_encoder" / "config.json", tie_word_embeddings=False)
    target = exported(source, tmp_path / "new")
    old, new = content(source / "text_encoder"), content(target / "text_encoder")
    assert json.loads(new["config.json"]) == json.loads(old["config.json"]) | {"tie_word_embeddings": True}
    assert new["model.safetensors"] == old["model.safetensors"]


def test_precision_is_written_as_it_is(tiny, tmp_path):
    model = cast(load_transformer(inspect(tiny("base")), "cpu", torch.float32), torch.bfloat16)
    save_transformer(tmp_path / "transformer", model)
    for name, tensor in load_file(tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").items():
        assert tensor.dtype == (torch.float32 if keeps_float32(name) else torch.bfloat16)


def test_shards_and_own_settings(tiny, tmp_path):
    own = OwnSettings(num_frames=33, height=64, width=64)
    target = exported(tiny("mid"), tmp_path / "new", max_shard_bytes=400_000, own=own)
    assert len(weight_files(target / "transformer", "diffusion_pytorch_model")) > 3
    preset = inspect(target).preset
    assert (preset.num_frames, preset.height, preset.width) == (33, 64, 64)
    assert json.loads((target / "helios.json").read_text()) == {"num_frames": 33, "height": 64, "width": 64}


def test_nothing_is_left_when_writing_breaks_off(tiny, tmp_path, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("helios.checkpoints.export.save_vae", full_disk)
    with pytest.raises(OSError, match="No space left"):
        exported(tiny("base"), tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_overwrite_leaves_the_old_checkpoint(tiny, tmp_path, monkeypatch):
    target = exported(tiny("base"), tmp_path / "new")
    before = inspect(target).identity
    with monkeypatch.context() as patch:
        patch.setattr("helios.checkpoints.export.inspect", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            exported(tiny("mid"), target, overwrite=True)
    assert inspect(target).identity == before
    exported(tiny("mid"), target, overwrite=True)
    assert inspect(target).variant is Variant.MID
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_killed_export_never_looks_like_a_checkpoint(tiny, tmp_path, monkeypatch):
    """model_index.json comes last; a directory without it is refused by every loader."""
    seen = []
    monkeypatch.setattr("helios.checkpoints.export.write_own_settings", lambda draft, own: seen.append(draft) or 1 / 0)
    monkeypatch.setattr("shutil.rmtree", lambda *args, **kwargs: None)
    with pytest.raises(ZeroDivisionError):
        exported(tiny("base"), tmp_path / "new")
    assert not (tmp_path / "new").exists() and seen[0].name.startswith(".new.part-")
    with pytest.raises(InputError, match="it has no model_index.json"):
        inspect(seen[0])


def test_refusals(tiny, tmp_path):
    target = exported(tiny("base"), tmp_path / "new")
    with pytest.raises(InputError, match="is not empty: choose another directory or pass overwrite=True"):
        exported(tiny("base"), target)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(InputError, match="is not a checkpoint, so it is not overwritten: choose another directory"):
        exported(tiny("base"), tmp_path / "notes", overwrite=True)
    with pytest.raises(InputError, match="a.txt' is a file: choose another name for the checkpoint"):
        exported(tiny("base"), tmp_path / "notes" / "a.txt")
    with pytest.raises(InputError, match="is not a directory: pass the 'tokenizer' folder of a checkpoint"):
        exported(tiny("base"), tmp_path / "other", tokenizer=tmp_path / "gone")
    with pytest.raises(InputError, match="HeliosPyramidPipeline needs a scheduler with several stages, this one has 1"):
        exported(tiny("base"), tmp_path / "other", variant="mid")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "notes"]


def test_an_adapter_that_was_not_merged_is_refused(tiny, tmp_path):
    from peft import LoraConfig

    model = load_transformer(inspect(tiny("base")), "cpu", torch.float32)
    model.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    with pytest.raises(InputError, match="cannot be exported: .* missing .* merge adapters and unwrap it first"):
        save_transformer(tmp_path / "transformer", model)
