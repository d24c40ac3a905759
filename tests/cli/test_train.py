import json

import pytest

from helios.checkpoints import Variant, embedded
from helios.checkpoints.embedded import write_embedded
from helios.cli.main import run
from recipes import toy

TINY = [
    "start.model.vae.width=4",
    "start.model.vae.channels=4",
    "start.model.text.width=16",
    "start.model.text.heads=2",
    "start.model.transformer.heads=2",
    "start.model.transformer.layers=1",
    "start.model.transformer.hidden=32",
    "stage.measured=2",
    "stage.view.size=16",
    "stage.view.frames=5",
    "optim.schedule=Constant",
    "run.steps=3",
    "run.batch_size=2",
    "run.plots=false",
]
SETS = [part for setting in TINY for part in ("--set", setting)]


def test_recipes_are_listed_with_what_they_are_for(capsys):
    assert run(["train"]) == 0
    text = capsys.readouterr().out
    assert "toy.vae" in text and "helios_14b.gan" in text and "The video VAE" in text
    assert run(["train", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) >= {"toy.stage1_post", "finetune.lora"}


def test_a_dry_run_counts_and_writes_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["train", "toy", "--dry-run"]) == 0
    text = capsys.readouterr().out
    for word in ("vae: ", "gan: ", "parameters", "on one device", "a checkpoint", "encoded into latents/ once"):
        assert word in text
    assert run(["train", "helios_14b.stage1_init", "--dry-run", "--json", "--devices", "64"]) == 0
    (facts,) = json.loads(capsys.readouterr().out)
    assert facts["settings"]["run"]["steps"] == 5500 and facts["estimate"]["parameters"] == 14_312_427_584
    assert run(["train", "finetune_14b.lora", "--dry-run", "--json"]) == 0  # without a network
    (facts,) = json.loads(capsys.readouterr().out)
    assert facts["estimate"]["parameters"] == 14_312_427_584
    assert list(tmp_path.iterdir()) == []


def test_a_fine_tune_starts_from_the_model_of_the_package(capsys, tmp_path, monkeypatch, tiny):
    write_embedded(tmp_path / "small", {Variant.BASE: tiny("base")})
    monkeypatch.setattr(embedded, "EMBEDDED", tmp_path / "small")
    monkeypatch.setenv("HELIOS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert run(["train", "finetune.lora", "--dry-run"]) == 0
    assert "lora: 400 steps" in capsys.readouterr().out
    assert run(["train", "finetune.lora", "--device", "cpu"]) == 2
    assert "runs/finetune/data is no data set: make one with `helios data prepare`" in capsys.readouterr().err


def test_a_phase_stops_goes_on_and_ends(capsys, tmp_path):
    arguments = ["train", "toy.vae", "-w", str(tmp_path), *SETS, "--device", "cpu", "--json", "-q"]
    assert run([*arguments, "--minutes", "0.0001"]) == 0
    stopped = json.loads(capsys.readouterr().out)
    assert not stopped["finished"] and stopped["model"] is None
    assert run(arguments) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["finished"] and done["step"] == 3
    assert (tmp_path / "vae" / "model" / "vae" / "config.json").is_file()


def test_a_phase_is_prepared_without_training_it(capsys, tmp_path):
    arguments = ["train", "toy.vae", "-w", str(tmp_path), *SETS, "--device", "cpu", "-q", "--prepare-only"]
    assert run(arguments) == 0
    assert capsys.readouterr().out == f"vae: {tmp_path / 'scratch' / 'model'}\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["scratch"]
    assert run([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prepared"] == [str(tmp_path / "scratch" / "model")]


def test_several_ranks_prepare_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(["train", "toy.vae", "-w", str(tmp_path), "--device", "cpu", "--prepare-only"]) == 2
    assert "without torchrun" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["toy.stage2"], "there is no recipe 'toy.stage2': did you mean 'toy.stage2_"),
        (["toy.vae", "--set", "optim.learning=1"], "'optim.learning' is not a setting"),
        (["toy.vae", "--set", "run.steps"], "write it as key=value"),
        (["toy.vae", "--set", "run.steps=many"], "run.steps"),
        (["toy", "--set", "run.steps=3"], f"--set changes one phase and toy has {len(toy.PHASES)}"),
        (["toy.pretrain"], "train the phase 'vae_decoder' first"),
        (["toy.vae", "--minutes", "-1"], "leaves no time"),
        (["toy.vae", "--threads", "0"], "threads=0"),
        (["toy", "--prepare-only"], f"--prepare-only prepares one phase and this recipe has {len(toy.PHASES)}"),
        (["toy.vae", "--prepare-only", "--dry-run"], "pass one of them"),
        (["toy.stage1_init", "--prepare-only"], "train the phase 'pretrain_small' first"),
        (["toy.stage1_init", "--dry-run", "--devices", "7"], "batch_size=16 does not split over 7 devices"),
    ],
)
def test_wrong_input_is_one_sentence(arguments, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("helios: ") and error.count("\n") == 1 and sentence in error
