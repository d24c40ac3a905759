"""Every phase of a recipe, on a model so small that all of them together take seconds."""

import errno
import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from helios.checkpoints import Variant, export, inspect, load, load_transformer
from helios.data.identity import identities, latents_identity
from helios.errors import InputError
from helios.training.adapt import FullTraining, LoraTraining
from helios.training.build import build
from helios.training.config import apply_overrides
from helios.training.encode import EncodeSettings
from helios.training.errors import TrainingError
from helios.training.methods.flow_matching import EmptyPast
from helios.training.phase import After, Checkpoint, NoProbes, Phase, RolloutProbes, Scratch, StoredText
from helios.training.record import read_curves
from helios.training.run import ADAPTER, prepare_phase, run_phase
from helios.training.start import SmallModel, SmallText, SmallTransformer, SmallVae
from helios.training.toyworld import ToyPrompts, ToyWindows, ToyWorld
from helios.training.trainer import RunConfig
from helios.training.workspace import MADE_BY, Workspace
from recipes import toy

WORLD = ToyWorld(chunks=2, wordings=2, changing=0.5)
MODEL = SmallModel(
    vae=SmallVae(width=4, widths=(1, 1, 2), channels=4),
    text=SmallText(width=16, layers=1, heads=2, hidden=16, pieces=300, tokens=64),
    transformer=SmallTransformer(heads=2, head_width=16, rope=(4, 6, 6), hidden=32, layers=2, frequencies=16),
)
RUN = RunConfig(steps=2, batch_size=2, save_every=2, plots=False)
PROBES = RolloutProbes(clips=2, count=1, chunks=2, long_chunks=0, steps=(1, 1, 1))
SETTINGS = {
    "pretrain": ["optim.schedule=Constant"],
    "stage1_init": ["optim.schedule=Constant", "probes.steps=1"],
    "stage2_init": ["optim.schedule=Constant"],
    "ode": ["optim.schedule=Constant", "data.count=2", "data.steps=2,2,2", "data.chunks=2", "stage.loss.chunks=1"],
    "dmd": ["stage.teacher.phase=stage1_init"],
    "gan": ["stage.teacher.phase=stage1_init", "stage.adversary.taps=0,1", "stage.adversary.width=8"],
}
ORDER = ("vae", "pretrain", "stage1_init", "stage2_init", "ode", "dmd", "gan")


def phase(name: str) -> Phase:
    """The toy recipe's phase, made tiny."""
    full = getattr(toy, name)()
    small = replace(full, run=replace(RUN, seed=full.run.seed), precision=full.precision)
    if name == "vae":
        small = replace(small, start=Scratch(model=MODEL, corpus=WORLD), data=ToyWindows(world=WORLD, count=4))
        return apply_overrides(small, ["optim.schedule=Constant", "stage.measured=2", "stage.view.size=16"])
    small = replace(small, start=After(phase=ORDER[ORDER.index(name) - 1]), probes=NoProbes())
    if name != "ode":
        small = replace(small, data=replace(toy.pretrain().data, world=WORLD, encode=EncodeSettings(count=6)))
    if name in ("stage1_init", "stage2_init"):
        small = replace(small, probes=PROBES, run=replace(small.run, probe_every=2))
    return apply_overrides(small, SETTINGS[name])


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """All phases, one after the other."""
    folder = tmp_path_factory.mktemp("workspace")
    for name in ORDER:
        result = run_phase(phase(name), folder, device="cpu")
        assert result.run.finished and result.model == folder / name / "model"
    return folder


@cache
def information(folder, name):
    return inspect(folder / name / "model")


@pytest.mark.parametrize(
    "name, variant",
    [
        ("vae", Variant.BASE),
        ("pretrain", Variant.BASE),
        ("stage1_init", Variant.BASE),
        ("stage2_init", Variant.MID),
        ("ode", Variant.DISTILLED),
        ("dmd", Variant.DISTILLED),
        ("gan", Variant.DISTILLED),
    ],
)
def test_every_phase_exports_a_checkpoint_of_its_kind(workspace, name, variant):
    info = information(workspace, name)
    assert info.variant is variant
    assert (info.preset.height, info.preset.width) == (64, 64)
    assert info.geometry.spatial == 4 and info.geometry.latent_channels == 4


def test_what_is_trained_changes_and_the_rest_is_handed_on(workspace):
    files = {
        name: {
            part: (workspace / name / "model" / part).rglob("*.safetensors").__next__().read_bytes()
            for part in ("vae", "text_encoder", "transformer")
        }
        for name in ORDER
    }
    changes = {
        after: {part for part in files[after] if files[after][part] != files[before][part]}
        for before, after in zip(("vae", *ORDER), ORDER)
    }
    assert changes.pop("vae") == set()
    assert changes.pop("pretrain") == {"transformer", "text_encoder"}
    assert set(map(frozenset, changes.values())) == {frozenset({"transformer"})}
    scratch = (workspace / "scratch" / "model" / "vae").rglob("*.safetensors").__next__().read_bytes()
    assert files["vae"]["vae"] != scratch


def test_the_vaes_statistics_were_measured(workspace):
    deviations = information(workspace, "vae").vae_config["latents_std"]
    assert all(value != 1.0 for value in deviations)


def test_memory_patches_start_from_the_trained_patch_embedding(workspace):
    model = load_transformer(information(workspace, "pretrain"), "cpu", torch.float32)
    untrained = load_transformer(inspect(workspace / "vae" / "model"), "cpu", torch.float32)
    assert not torch.equal(model.patch_embedding.weight, untrained.patch_embedding.weight)
    assert torch.equal(model.patch_short.weight, model.patch_embedding.weight)
    assert torch.equal(model.patch_long.weight[:, :, 3, 2:4, 6:8], model.patch_embedding.weight[:, :, 0] / 64)


def test_memory_patches_that_an_empty_past_was_read_with_are_handed_on(workspace, tmp_path):
    copied = shutil.copytree(workspace, tmp_path / "workspace")
    small = phase("pretrain")
    times = replace(small, name="times", stage=replace(small.stage, past=EmptyPast()), start=After(phase="pretrain"))
    model = load_transformer(inspect(run_phase(times, copied, device="cpu").model), "cpu", torch.float32)
    before = load_transformer(information(workspace, "pretrain"), "cpu", torch.float32)
    assert torch.equal(model.patch_short.weight, before.patch_short.weight)
    assert not torch.equal(model.patch_embedding.weight, before.patch_embedding.weight)


def test_probes_left_numbers_and_pictures(workspace):
    curves = read_curves(workspace / "stage1_init")
    assert {"probe/rollout/seam", "probe/rollout/attributes", "probe/loss_sigma_0.625"} <= set(curves)
    assert list((workspace / "stage2_init").glob("probes/*/rollout.png"))


def test_the_exported_model_generates(workspace):
    import helios

    for name in ("stage1_init", "stage2_init", "gan"):
        pipe = helios.Helios.from_pretrained(workspace / name / "model", device="cpu", dtype="float32")
        steps = (1,) if name == "stage1_init" else (1, 1, 1)
        video = pipe.generate("a big red circle moves right over the sea", num_frames=33, steps=steps, seed=1)
        frames = np.asarray(video.frames)
        assert frames.shape == (33, 64, 64, 3) and frames.dtype == np.uint8


def test_the_same_command_again_exports_the_same_model(workspace):
    file = workspace / "stage1_init" / "model" / "transformer" / "diffusion_pytorch_model.safetensors"
    before = file.read_bytes()
    result = run_phase(phase("stage1_init"), workspace, device="cpu")
    assert result.run.step == 2 and file.read_bytes() == before


@pytest.mark.parametrize("name", ORDER)
def test_a_phase_that_was_stopped_half_way_ends_in_the_same_weights(workspace, name):
    """Whatever the method and the optimiser: Muon for most, AdamW for the rest, two players in the last two."""
    whole = phase(name)
    half = replace(whole, name=f"{name}_stopped", run=replace(whole.run, steps=1, save_every=1))
    run_phase(half, workspace, device="cpu")
    run_phase(replace(half, run=replace(half.run, steps=2)), workspace, device="cpu")
    place = Path("checkpoints") / "step-00000002"
    for kind in ("weights", "optimizer", "ema"):
        wanted, got = (
            load_file(workspace / folder / place / f"{kind}.safetensors") for folder in (name, f"{name}_stopped")
        )
        assert set(got) == set(wanted) and all(torch.equal(got[key], wanted[key]) for key in wanted), kind


def test_a_lora_phase_exports_an_adapter_and_a_merged_model_that_agree(workspace):
    lora = replace(
        phase("stage1_init"),
        name="lora",
        start=After(phase="stage1_init"),
        training=LoraTraining(rank=4, patches=(), full=()),
        probes=NoProbes(),
        run=replace(RUN, steps=3, save_every=3),
    )
    lora = apply_overrides(lora, ["optim.lr=0.05"])
    run_phase(lora, workspace, device="cpu")
    merged = load_transformer(information(workspace, "lora"), "cpu", torch.float32)
    adapted = load_transformer(information(workspace, "stage1_init"), "cpu", torch.float32)
    plain = adapted.proj_out.weight.clone()
    adapted.load_lora_adapter(workspace / "lora" / ADAPTER, prefix=None, weight_name="pytorch_lora_weights.safetensors")
    x, t, text = torch.randn(1, 4, 9, 16, 16), torch.tensor([500.0]), torch.randn(1, 8, 16)
    with torch.no_grad():
        outputs = [m.velocity(x, t, m.encode_text(text, keys=False), None) for m in (merged, adapted)]
    torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-4)
    assert not torch.equal(merged.proj_out.weight, plain)


def test_a_full_disk_under_the_export_keeps_the_checkpoint_and_the_earlier_export(workspace, monkeypatch):
    file = workspace / "stage1_init" / "model" / "transformer" / "diffusion_pytorch_model.safetensors"
    before = file.read_bytes()

    def full(folder, *arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export, "save_transformer", full)
    with pytest.raises(TrainingError, match=r"stage1_init/model, the disk is full; what .* in .*step-00000002"):
        run_phase(phase("stage1_init"), workspace, device="cpu")
    assert file.read_bytes() == before


def test_a_phase_before_its_start_is_refused(tmp_path):
    with pytest.raises(InputError, match="train the phase 'pretrain' first"):
        run_phase(phase("stage1_init"), tmp_path, device="cpu")


def test_a_teacher_that_is_not_base_is_refused(workspace):
    wrong = apply_overrides(replace(phase("dmd"), name="other"), ["stage.teacher.phase=ode"])
    with pytest.raises(InputError, match="the teacher of distillation is a Base model"):
        run_phase(wrong, workspace, device="cpu")


@pytest.mark.parametrize(
    "name, start, wanted",
    [
        ("stage1_init", "stage2_init", "it is mid, and other .AdaptStage. starts from base;"),
        ("stage2_init", "ode", "it is distilled, and other .PyramidStage. starts from base or mid;"),
        ("ode", "stage1_init", "it is base, and other .OdeStage. starts from mid or distilled;"),
        ("gan", "stage1_init", "it is base, and other .DmdStage. starts from mid or distilled;"),
    ],
)
def test_a_checkpoint_of_another_stage_is_refused(workspace, name, start, wanted):
    wrong = replace(phase(name), name="other", start=After(phase=start))
    with pytest.raises(InputError, match=f"{start}/model is a checkpoint of another stage: {wanted}"):
        run_phase(wrong, workspace, device="cpu")


@pytest.mark.parametrize("name, start", [("stage2_init", "stage2_init"), ("ode", "ode"), ("dmd", "stage2_init")])
def test_a_stage_goes_on_from_its_own_kind_and_the_one_before(workspace, name, start):
    again = replace(phase(name), name="again", start=After(phase=start), probes=NoProbes())
    again = apply_overrides(again, ["data.folder=pairs-again"]) if name == "ode" else again
    build(again, Workspace(workspace), torch.device("cpu"))


def test_the_text_encoder_is_loaded_once_for_a_recording(workspace, monkeypatch):
    loads, real = [], load.load_text_encoder
    monkeypatch.setattr(load, "load_text_encoder", lambda *arguments: loads.append(1) or real(*arguments))
    stored = replace(phase("ode"), name="stored", text=StoredText())
    stored = apply_overrides(stored, ["data.folder=pairs-stored", "data.batch=1"])
    data = build(stored, Workspace(workspace), torch.device("cpu")).dataset
    assert len(data) == 2 and data[0].texts_SE is not None and loads == [1]


@pytest.mark.parametrize("name", ["stage1_init", "ode"])
def test_a_caption_that_is_too_long_is_found_before_the_first_step(workspace, tmp_path, name):
    shutil.copytree(workspace, tmp_path, dirs_exist_ok=True)
    before = phase(name).start.phase
    settings = tmp_path / before / "model" / "tokenizer" / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace('"model_max_length": 64', '"model_max_length": 4'))
    with pytest.raises(InputError, match=r"a caption has \d+ tokens and the text encoder reads 4: shorten '"):
        build(replace(phase(name), name="other"), Workspace(tmp_path), torch.device("cpu"))


def test_taps_beyond_the_model_are_refused(workspace):
    wrong = apply_overrides(replace(phase("gan"), name="other"), ["stage.adversary.taps=5"])
    with pytest.raises(InputError, match="read blocks that a model of 2 does not have"):
        run_phase(wrong, workspace, device="cpu")


def test_heads_are_not_missed_before_their_loss_begins(workspace):
    adapter = LoraTraining(rank=2, patches=(), full=())
    run = replace(RUN, steps=7, save_every=7, gradient_check_steps=3)
    late = replace(phase("gan"), name="late", training=adapter, run=run)
    late = replace(late, stage=replace(late.stage, critic=adapter))
    late = apply_overrides(late, ["stage.adversary.weights.start=4", "stage.config.student_every=1"])
    assert run_phase(late, workspace, device="cpu").run.finished
    critic = build(late, Workspace(workspace), torch.device("cpu")).method.players[1]
    assert {name.partition(".")[0] for name in critic.first_steps} == {"heads"}
    assert set(critic.first_steps.values()) == {4}


@pytest.fixture
def copied(workspace, tmp_path):
    """The workspace, to be damaged."""
    shutil.copytree(workspace, tmp_path, dirs_exist_ok=True)
    return Workspace(tmp_path)


def change(file, part: str) -> None:
    """Another value in the first weights of a part."""
    tensors = load_file(file)
    name = min(key for key in tensors if key.startswith(part) and key.endswith("weight"))
    tensors[name] += 1
    save_file(tensors, file)


def built(name, space, *settings):
    return build(apply_overrides(phase(name), settings), space, torch.device("cpu"))


@pytest.mark.parametrize("part, refused", [("encoder", True), ("quant_conv", True), ("decoder", False)])
def test_latents_of_another_encoder_are_refused_and_another_decoder_is_fine(copied, part, refused):
    change(copied.model("pretrain") / "vae" / "diffusion_pytorch_model.safetensors", part)
    if refused:
        with pytest.raises(InputError, match=r"latents was made with vae=\w+ and now it is \w+: delete the folder"):
            built("stage1_init", copied)
    else:
        built("stage1_init", copied)


def test_latents_of_other_statistics_or_settings_are_refused(copied):
    with pytest.raises(InputError, match=r"latents was made with encode.seed=0 and now it is 1: delete the folder"):
        built("stage1_init", copied, "data.encode.seed=1")
    config = copied.model("pretrain") / "vae" / "config.json"
    facts = json.loads(config.read_text())
    facts["latents_std"][0] *= 2
    config.write_text(json.dumps(facts))
    with pytest.raises(InputError, match="latents was made with vae="):
        built("stage1_init", copied)


def test_pairs_of_another_teacher_or_prompt_are_refused(copied):
    with pytest.raises(InputError, match=r"pairs was made with data.guidance.scale=3.0 and now it is 2.0: delete"):
        built("ode", copied, "data.guidance.scale=2")
    with pytest.raises(InputError, match=r"pairs was made with student.shift.kind=linear and now"):
        built("ode", copied, "stage.student.shift.kind=exponential")
    (copied.folder / "prompts.txt").write_text("a red circle\n\na blue circle\n")
    with pytest.raises(InputError, match=r"pair-0000000.safetensors is of the prompt .* not of 'a red circle': delete"):
        built("ode", copied, "data.prompts=prompts.txt")
    change(copied.model("stage2_init") / "transformer" / "diffusion_pytorch_model.safetensors", "blocks")
    with pytest.raises(InputError, match=r"pairs was made with teacher=\w+ and now it is \w+: delete the folder"):
        built("ode", copied)


def test_pairs_are_recorded_on_when_more_are_wanted(copied):
    assert len(built("ode", copied, "data.count=3").dataset) == 3


def test_another_untrained_model_is_refused(copied):
    with pytest.raises(InputError, match=r"scratch was made with model.seed=0 and now it is 1: delete the folder"):
        built("vae", copied, "start.model.seed=1")


def test_folders_from_before_are_taken_with_a_warning(copied, caplog):
    (copied.folder / "latents" / MADE_BY).unlink()
    built("stage1_init", copied)
    assert "latents does not say what made it and is taken as it is" in caplog.text
    assert not (copied.folder / "latents" / MADE_BY).exists()


def test_a_frozen_encoder_keeps_the_statistics_of_its_latents(copied):
    frozen = replace(phase("vae"), name="vae_decoder", start=After(phase="vae"))
    frozen = replace(frozen, training=FullTraining(frozen=("encoder", "quant_conv")))
    run_phase(apply_overrides(frozen, ["stage.measured=1"]), copied.folder, device="cpu")
    before, after = (inspect(copied.model(name)) for name in ("vae", "vae_decoder"))
    assert latents_identity(before) == latents_identity(after)
    assert identities(before).vae != identities(after).vae


@pytest.mark.parametrize("name, folder", [("vae", "scratch"), ("stage1_init", "latents"), ("ode", "pairs")])
def test_several_ranks_find_everything_made(copied, name, folder):
    ranks = replace(copied, complete=True)
    built(name, ranks)
    next(
        file for file in sorted((copied.folder / folder).rglob("*")) if file.name != MADE_BY and file.is_file()
    ).unlink()
    if name == "vae":
        shutil.rmtree(copied.folder / folder)
    with pytest.raises(InputError, match=f"{folder} is not complete and several ranks .* with --prepare-only first"):
        built(name, ranks)
    made = prepare_phase(phase(name), copied.folder, device="cpu")
    assert any(path.is_relative_to(copied.folder / folder) for path in made)
    built(name, ranks)


def test_prompts_are_a_file_of_the_workspace(copied, monkeypatch):
    monkeypatch.chdir(copied.folder / "ode")
    (copied.folder / "ode" / "prompts.txt").write_text("one\ntwo\n")
    with pytest.raises(InputError, match="prompts.txt does not exist: write one prompt per line"):
        built("ode", copied, "data.prompts=prompts.txt", "data.folder=own")
    (copied.folder / "prompts.txt").write_text("a red circle\n\na blue circle\n")
    with pytest.raises(InputError, match="prompts.txt has 2 prompts, 3 are wanted"):
        built("ode", copied, "data.prompts=prompts.txt", "data.folder=own", "data.count=3")
    dataset = built("ode", copied, "data.prompts=prompts.txt", "data.folder=own").dataset
    assert [dataset[number].captions for number in range(2)] == [("a red circle",), ("a blue circle",)]


def test_a_start_can_be_any_checkpoint(workspace, tmp_path):
    start = Checkpoint(source=str(workspace / "pretrain" / "model"))
    assert Workspace(tmp_path).start(start) == workspace / "pretrain" / "model"


def test_toy_prompts_are_judged_right_on_the_renderers_own_clips():
    from helios.data.toy import ToyClips

    prompts = ToyPrompts(count=3)
    clips = ToyClips(seed=1, count=3, split="heldout", complete=True, chunks=2)
    for number in range(3):
        assert prompts.prompts()[number] == str(clips[number].caption)
        verdict = prompts.judge(number, clips[number].frames)
        assert verdict["all"] == 1.0 and verdict["attributes"] == 1.0


def test_changing_clips_have_words_for_each_chunk():
    world = ToyWorld(chunks=3, changing=1.0, wordings=3)
    clip = world(0)
    assert len(clip.script) == 3 and clip.script[0] != clip.script[-1]
    assert world(0).captions == clip.captions and torch.equal(world(0).frames_FHWC, clip.frames_FHWC)
    assert ToyWorld(chunks=3, changing=0.0)(0).script is None
