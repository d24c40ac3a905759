"""The recipe of the 14B model as it is written, on a tiny model: half-precision weights, adapters on adapters' merges,
recomputed activations, stored text states, networks that take turns on the device.
"""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from helios.checkpoints import Variant, inspect
from helios.checkpoints.presets import OwnSettings, write_own_settings
from helios.checkpoints.random import write_random_checkpoint
from helios.cli.main import run
from helios.errors import InputError
from helios.training.build import build
from helios.training.config import apply_overrides
from helios.training.phase import Checkpoint, Phase
from helios.training.run import run_phase
from helios.training.workspace import Workspace
from recipes import helios_14b

SMALL = {
    "ode": ["data.count=2", "data.steps=2,2,2", "data.chunks=2", "stage.loss.chunks=1"],
    "gan": ["stage.adversary.taps=0,1", "stage.adversary.width=8"],
}
VARIANTS = dict.fromkeys(helios_14b.PHASES, Variant.DISTILLED) | {
    "stage1_init": Variant.BASE,
    "stage1_post": Variant.BASE,
    "stage2_init": Variant.MID,
    "stage2_post": Variant.MID,
}


def phase(name: str, start: str) -> Phase:
    """The recipe's phase with the length, batch and rank of a test."""
    full = getattr(helios_14b, name)()
    training = replace(full.training, rank=2)
    small = replace(full, training=training, run=replace(full.run, steps=2, batch_size=2, save_every=2, plots=False))
    if name == "stage1_init":
        small = replace(small, start=Checkpoint(source=start))
    if name in ("dmd", "gan"):
        small = replace(small, stage=replace(small.stage, critic=replace(small.stage.critic, rank=2)))
    return apply_overrides(small, SMALL.get(name, []))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A tiny Base whose pictures are large enough for a discriminator."""
    folder = write_random_checkpoint(tmp_path_factory.mktemp("start") / "base", Variant.BASE)
    write_own_settings(folder, OwnSettings(height=128, width=128))
    return str(folder)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, start):
    """All seven phases, one after the other."""
    folder = tmp_path_factory.mktemp("helios_14b")
    videos, data = str(folder / "videos"), str(folder / "data")
    assert run(["data", "toy", "-o", videos, "--clips", "3", "--chunks", "3"]) == 0
    assert run(["data", "prepare", videos, "-o", data, "-m", start, "--device", "cpu"]) == 0
    (folder / "prompts.txt").write_text("a fox runs\na bird sits\n")
    for name in helios_14b.PHASES:
        assert run_phase(phase(name, start), folder, device="cpu").run.finished
    return folder


@pytest.mark.parametrize("name", helios_14b.PHASES)
def test_every_phase_trains_and_exports_its_kind(workspace, name):
    assert inspect(workspace / name / "model").variant is VARIANTS[name]
    (checkpoint,) = (workspace / name / "checkpoints").glob("step-*")
    saved = load_file(checkpoint / "weights.safetensors")
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in saved.values())


def test_pictures_too_small_for_the_discriminator_are_refused(workspace, tiny):
    small = replace(phase("gan", ""), name="small", start=Checkpoint(source=str(tiny("mid"))))
    with pytest.raises(InputError, match="halves of 64x128 pixels.* use 128 or more each way, or set stage.adversary"):
        build(small, Workspace(workspace), torch.device("cpu"))


def test_a_finished_distillation_is_exported_again_when_its_networks_are_on_the_host(workspace, start):
    file = workspace / "dmd" / "model" / "transformer" / "diffusion_pytorch_model.safetensors"
    before = file.read_bytes()
    run_phase(phase("dmd", start), workspace, device="cpu")
    assert file.read_bytes() == before


def test_probes_of_a_network_that_takes_turns_bring_it_back(workspace, start):
    probed = apply_overrides(
        replace(phase("dmd", start), name="probed"),
        [
            "probes=RolloutProbes",
            'probes.prompts=["a fox"]',
            "probes.count=1",
            "probes.clips=1",
            "probes.long_chunks=0",
        ],
    )
    built = build(probed, Workspace(workspace), torch.device("cpu"))
    away = {name: p.data_ptr() for name, p in built.student.named_parameters() if not p.requires_grad}
    built.method.residence.bring(built.method.scores.fake.module)
    assert {name: dict(built.student.named_parameters())[name].data_ptr() for name in away} == away
    with torch.no_grad():
        built.probes[0](2, None)
    here = dict(built.student.named_parameters())
    assert all(here[name].data_ptr() != place for name, place in away.items())
