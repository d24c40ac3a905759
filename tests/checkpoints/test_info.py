"""The files of a checkpoint decide what it is; contradictions are refused in one sentence, before weights are read."""

import shutil
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file

from helios.checkpoints import Variant, inspect, resolve
from helios.checkpoints.layout import published_scheduler
from helios.checkpoints.random import write_random_checkpoint
from helios.conditioning.guidance import ClassifierFree, ClassifierFreeZeroStar, NoGuidance
from helios.errors import InputError
from tests.checkpoints.edit import copy_of, edit_json

WEIGHTS = "diffusion_pytorch_model.safetensors"


def swap_scheduler(checkpoint, variant):
    """Give a checkpoint the scheduler of another variant, in both files that name it."""
    config = published_scheduler(Variant(variant))
    edit_json(checkpoint / "scheduler" / "scheduler_config.json", **config)
    edit_json(checkpoint / "model_index.json", scheduler=["diffusers", config["_class_name"]])


@pytest.mark.parametrize(
    ("variant", "levels", "solver", "steps", "guidance", "amplified"),
    [
        ("base", 1, "unipc", (50,), ClassifierFree(scale=5.0), False),
        ("mid", 3, "unipc", (20, 20, 20), ClassifierFreeZeroStar(scale=5.0, zero_steps=2), False),
        ("distilled", 3, "distilled", (2, 2, 2), NoGuidance(), True),
    ],
)
def test_variants_and_their_presets(tiny, variant, levels, solver, steps, guidance, amplified):
    info = inspect(tiny(variant))
    assert info.variant is Variant(variant)
    assert (info.scheduler.levels, info.scheduler.solver) == (levels, solver)
    assert (info.preset.steps, info.preset.guidance, info.preset.amplify_first_chunk) == (steps, guidance, amplified)
    assert info.geometry.levels == levels and info.geometry.size_multiple == 16 * 2 ** (levels - 1)
    assert (info.geometry.spatial, info.geometry.temporal, info.geometry.latent_channels) == (8, 4, 16)


def test_sizes_come_from_the_checkpoint(tiny, tmp_path):
    assert (inspect(tiny("base")).preset.height, inspect(tiny("base")).preset.width) == (64, 128)
    copy = copy_of(tiny("base"), tmp_path)
    (copy / "helios.json").unlink()
    preset = inspect(copy).preset
    assert (preset.height, preset.width, preset.num_frames, preset.fps) == (384, 640, 99, 24.0)
    assert inspect(tiny("base")).random_weights and not inspect(copy).random_weights


def test_what_is_stored(tiny):
    info = inspect(tiny("mid"))
    assert info.parameters("transformer") == 656_960
    assert info.stored_bytes("transformer") == 4 * 656_960
    assert info.parameters("vae") == 220_107
    assert len(info.tensors["transformer"]) == 102


def test_mid_without_zero_star_has_plain_guidance(tiny, tmp_path):
    copy = copy_of(tiny("mid"), tmp_path)
    edit_json(copy / "model_index.json", is_cfg_zero_star=False)
    assert inspect(copy).preset.guidance == ClassifierFree(scale=5.0)


def test_a_scheduler_of_the_authors_own_code_is_understood(tiny, tmp_path):
    """There every scheduler is a HeliosScheduler, and scheduler_type "dmd" makes it the distilled one (Q36)."""
    copy = copy_of(tiny("distilled"), tmp_path)
    edit_json(copy / "scheduler" / "scheduler_config.json", _class_name="HeliosScheduler", scheduler_type="dmd")
    edit_json(copy / "model_index.json", scheduler=["diffusers", "HeliosScheduler"])
    assert inspect(copy).variant is Variant.DISTILLED


def test_prompts_are_padded_to_what_the_tokenizer_says(tiny, tmp_path):
    assert inspect(tiny("base")).text_tokens == 512
    assert inspect(resolve("small-base")).text_tokens == 40
    settings = copy_of(tiny("base"), tmp_path) / "tokenizer" / "tokenizer_config.json"
    for stored, tokens in ((77, 77), (10**30, 512), (None, 512)):
        edit_json(settings, model_max_length=stored)
        assert inspect(settings.parents[1]).text_tokens == tokens
    for wrong in ("many", 0, -3, [40]):
        edit_json(settings, model_max_length=wrong)
        with pytest.raises(InputError, match="tokenizer_config.json' has model_max_length=.*: it must be 1 or more"):
            inspect(settings.parents[1])
    settings.unlink()
    assert inspect(settings.parents[1]).text_tokens == 512


def test_inspecting_reads_no_weights_and_imports_no_model_library(tiny):
    code = (
        "import sys\nfrom helios.checkpoints import inspect\n"
        f"inspect({str(tiny('distilled'))!r})\n"
        "print({'diffusers', 'transformers', 'huggingface_hub', 'accelerate', 'ftfy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_identity_changes_with_configuration_and_weights_and_not_with_the_place(tiny, tmp_path):
    original = inspect(tiny("base")).identity
    copy = copy_of(tiny("base"), tmp_path)
    assert inspect(copy).identity == original and len(original) == 16
    assert inspect(write_random_checkpoint(tmp_path / "seed", "base", seed=1)).identity != original
    edit_json(copy / "scheduler" / "scheduler_config.json", time_shift_type="linear")
    assert inspect(copy).identity != original


def test_contradictions_between_pipeline_class_and_scheduler(tiny, tmp_path):
    base = copy_of(tiny("base"), tmp_path / "base")
    swap_scheduler(base, "mid")
    with pytest.raises(InputError, match="HeliosPipeline has one resolution but its scheduler has 3 stages; name"):
        inspect(base)
    mid = copy_of(tiny("mid"), tmp_path / "mid")
    swap_scheduler(mid, "base")
    with pytest.raises(InputError, match="HeliosPyramidPipeline needs a scheduler with several stages, this one has 1"):
        inspect(mid)
    edit_json(base / "scheduler" / "scheduler_config.json", scheduler_type="dmd", stages=1, stage_range=[0, 1])
    with pytest.raises(
        InputError, match="HeliosPipeline is the Base model but its scheduler runs the distilled solver"
    ):
        inspect(base)


def test_contradictions_between_the_distilled_mark_and_the_solver(tiny, tmp_path):
    """B4: a distilled scheduler in a pipeline not marked so broke off deep inside the published code."""
    distilled = copy_of(tiny("distilled"), tmp_path / "a")
    swap_scheduler(distilled, "mid")
    edit_json(distilled / "scheduler" / "scheduler_config.json", scheduler_type="unipc")
    with pytest.raises(
        InputError, match="is_distilled is true in model_index.json but its scheduler runs the unipc sol"
    ):
        inspect(distilled)
    mid = copy_of(tiny("mid"), tmp_path / "b")
    shutil.copy(tiny("distilled") / "scheduler" / "scheduler_config.json", mid / "scheduler")
    edit_json(mid / "model_index.json", scheduler=["diffusers", "HeliosDMDScheduler"], is_cfg_zero_star=False)
    with pytest.raises(
        InputError, match="is_distilled is false in model_index.json but its scheduler runs the distilled"
    ):
        inspect(mid)


@pytest.mark.parametrize(
    ("variant", "changes", "message"),
    [
        (
            "distilled",
            {"is_cfg_zero_star": True},
            "is_distilled and is_cfg_zero_star are both true in model_index.json",
        ),
        (
            "base",
            {"is_distilled": True},
            "is_distilled is true in model_index.json but HeliosPipeline is the Base model",
        ),
        ("base", {"is_cfg_zero_star": True}, "is_cfg_zero_star is true in model_index.json but HeliosPipeline is the"),
        ("mid", {"scheduler": ["diffusers", "HeliosDMDScheduler"]}, "names the scheduler HeliosDMDScheduler but"),
        ("base", {"_class_name": "WanPipeline"}, "is a checkpoint of WanPipeline, not of Helios: its model_index.json"),
    ],
)
def test_contradictions_in_the_model_index(tiny, tmp_path, variant, changes, message):
    copy = copy_of(tiny(variant), tmp_path)
    edit_json(copy / "model_index.json", **changes)
    with pytest.raises(InputError, match=message):
        inspect(copy)


@pytest.mark.parametrize(
    ("component", "changes", "message"),
    [
        (
            "vae",
            {"z_dim": 8, "latents_mean": [0] * 8, "latents_std": [1] * 8},
            "in_channels=16 but the VAE has z_dim=8;",
        ),
        ("transformer", {"out_channels": 8}, "the transformer has out_channels=8 but the VAE has z_dim=16; take both"),
        ("transformer", {"text_dim": 64}, "text_dim=64 but the text encoder has d_model=32; take both from the same"),
        ("transformer", {"has_multi_term_memory_patch": False}, "the transformer has no history patches"),
        ("transformer", {"patch_size": [1, 1, 1]}, "patch_size"),
        (
            "transformer",
            {"_class_name": "WanTransformer3DModel"},
            "holds WanTransformer3DModel, not HeliosTransformer3D",
        ),
        ("vae", {"_class_name": "AutoencoderKL"}, "vae' holds AutoencoderKL, not AutoencoderKLWan"),
        ("vae", {"latents_mean": [0.0]}, "this VAE has 1 latents_mean entries"),
        ("text_encoder", {"model_type": "t5"}, "text_encoder' holds t5, not UMT5EncoderModel"),
    ],
)
def test_contradictions_between_components(tiny, tmp_path, component, changes, message):
    copy = copy_of(tiny("base"), tmp_path)
    edit_json(copy / component / "config.json", **changes)
    with pytest.raises(InputError, match=message):
        inspect(copy)


def test_a_directory_that_is_not_a_checkpoint(tmp_path):
    with pytest.raises(InputError, match=r"is not a Helios checkpoint: it has no model_index.json$"):
        inspect(tmp_path)
    with pytest.raises(InputError, match=r"nowhere' is not a directory: pass a checkpoint"):
        inspect(tmp_path / "nowhere")


@pytest.mark.parametrize("component", ["scheduler", "text_encoder", "tokenizer", "transformer", "vae"])
def test_a_missing_component_is_refused_by_name(tiny, tmp_path, component):
    copy = copy_of(tiny("base"), tmp_path)
    shutil.rmtree(copy / component)
    with pytest.raises(
        InputError, match=f"has no folder '{component}': the checkpoint is incomplete, download it again"
    ):
        inspect(copy)


@pytest.mark.parametrize(
    "file",
    ["scheduler/scheduler_config.json", "transformer/config.json", "vae/config.json", "text_encoder/config.json"],
)
def test_a_missing_configuration_is_refused_by_name(tiny, tmp_path, file):
    copy = copy_of(tiny("base"), tmp_path)
    (copy / file).unlink()
    with pytest.raises(InputError, match=f"cannot read '.*{file}' .*: the checkpoint is incomplete"):
        inspect(copy)


def test_a_missing_tokenizer_file_is_refused(tiny, tmp_path):
    copy = copy_of(tiny("base"), tmp_path)
    (copy / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="tokenizer' has neither tokenizer.json nor spiece.model"):
        inspect(copy)


@pytest.mark.parametrize(
    "file", [f"transformer/{WEIGHTS}", f"vae/{WEIGHTS}", "text_encoder/model.safetensors"], ids=lambda file: file[:3]
)
def test_truncated_weights_are_refused_by_name(tiny, tmp_path, file):
    copy = copy_of(tiny("base"), tmp_path)
    content = (copy / file).read_bytes()
    (copy / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(
        InputError, match=f"'.*{file}' is truncated, it has {len(content) // 2} of {len(content)} bytes"
    ):
        inspect(copy)


def test_weights_that_do_not_fit_their_configuration_are_refused(tiny, tmp_path):
    copy = copy_of(tiny("base"), tmp_path)
    file = copy / "transformer" / WEIGHTS
    tensors = load_file(file)
    for name in ("patch_mid.weight", "patch_mid.bias", "patch_long.bias", "patch_short.bias"):
        del tensors[name]
    tensors["surprise"] = tensors["proj_out.bias"].clone()
    tensors["proj_out.weight"] = tensors["proj_out.weight"][:3].clone()
    save_file(tensors, file)
    with pytest.raises(InputError) as refusal:
        inspect(copy)
    message = str(refusal.value)
    assert "4 of 102 tensors missing (" in message and ", …)" in message
    assert "1 unexpected (surprise)" in message
    assert "1 of 102 tensors misshapen (proj_out.weight [3, 80] not [64, 80])" in message


def test_the_inert_tensor_of_older_files_is_passed_over(tiny, tmp_path):
    copy = copy_of(tiny("base"), tmp_path)
    file = copy / "transformer" / WEIGHTS
    tensors = load_file(file)
    save_file(tensors | {"blocks.0.attn2.norm_added_q.weight": tensors["proj_out.bias"].clone()}, file)
    assert inspect(copy).variant is Variant.BASE
