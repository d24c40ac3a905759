"""From a folder of videos to an adapter that changes what the small model of the package makes, by its commands."""

import json

import pytest
import torch
from safetensors.torch import load_file

import helios
from helios.cli.main import run
from helios.training.run import ADAPTER

ADAPTER_FILE = "pytorch_lora_weights.safetensors"
SETTINGS = ("run.steps=3", "run.batch_size=2", "run.plots=false", "training.rank=4", "optim.lr=0.02")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A finished fine-tune on three videos of hearts."""
    folder = tmp_path_factory.mktemp("finetune")
    videos, data = str(folder / "videos"), str(folder / "data")
    assert run(["data", "toy", "-o", videos, "--clips", "3", "--shape", "heart"]) == 0
    assert run(["data", "prepare", videos, "-o", data, "-m", "small-base", "--device", "cpu"]) == 0
    sets = [part for setting in SETTINGS for part in ("--set", setting)]
    assert run(["train", "finetune.lora", "-w", str(folder), "--device", "cpu", *sets]) == 0
    return folder


def frames(pipe) -> torch.Tensor:
    video = pipe.generate("a big red heart moves right over the sea", num_frames=33, steps=(2,), seed=1)
    return torch.as_tensor(video.frames).float()


def test_the_adapter_changes_the_video_and_the_merged_model_makes_the_same(workspace):
    pipe = helios.Helios.from_pretrained("small-base", device="cpu", dtype="float32")
    plain = frames(pipe)
    pipe.transformer.load_lora_adapter(workspace / "lora" / ADAPTER, prefix=None, weight_name=ADAPTER_FILE)
    adapted = frames(pipe)
    merged = frames(helios.Helios.from_pretrained(workspace / "lora" / "model", device="cpu", dtype="float32"))
    assert (adapted - plain).abs().mean() > 1, "three steps at a high rate are to be seen"
    assert (adapted - merged).abs().max() <= 1, "rounding of a level"


def test_only_the_adapter_was_trained(workspace):
    saved = load_file(workspace / "lora" / "checkpoints" / "step-00000003" / "weights.safetensors")
    assert saved and all(".lora_A." in name or ".lora_B." in name for name in saved)
    state = json.loads((workspace / "lora" / "checkpoints" / "step-00000003" / "state.json").read_text())
    assert state["without_gradient"] == [], "every trained tensor got a gradient"
