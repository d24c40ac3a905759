"""Two gloo ranks against one: the same weights after a few steps, in data parallelism and with split weights."""

import os
import time
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from helios.errors import InputError
from helios.training.adapt import FullTraining, LoraTraining
from helios.training.checkpoint import CheckpointFolder, averaged_weights
from helios.training.corruption import NoCorruption, PerLatentCorruption
from helios.training.ema import Ema
from helios.training.methods.dmd import DmdConfig
from helios.training.methods.stage1 import Stage1
from helios.training.methods.task import Tasks
from helios.training.network import Network
from helios.training.optim import OptimConfig
from helios.training.parallel import OneDevice, Replicated, Sharded, connect, disconnect
from helios.training.player import Player
from helios.training.record import read_curves
from helios.training.run import run_phase
from helios.training.toyworld import ToyWindows
from helios.training.trainer import RunConfig, Trainer
from helios.training.workspace import Workspace
from tests.training.clips import GEOMETRY, clips
from tests.training.line import LineMethod, Points
from tests.training.methods.test_dmd import dmd
from tests.training.methods.test_gan import gan
from tests.training.models import HashedCaptions, transformer
from tests.training.test_run import phase

KINDS = {"one": OneDevice, "replicated": Replicated, "sharded": Sharded}


# Decisions per latent do not depend on how the batch is split; the published ones are per micro-batch.
TASKS = Tasks(corruption=PerLatentCorruption(exposure=0.2, noise=0.5, downsample=0.2, clean=0.1))


def method_named(name: str):
    if name in ("dmd", "gan"):
        make = {"dmd": dmd, "gan": gan}[name]
        return make(config=DmdConfig(tasks=TASKS, student_damage=NoCorruption(), student_every=2))
    if name == "unused":
        return LineMethod(unused=True)
    model = transformer()
    training = {"lora": LoraTraining(rank=4), "full": FullTraining()}[name]
    # Plain descent speed with a clear clip: the clip needs the norm over all ranks.
    optim = OptimConfig(lr=1e-3, clip=0.05)
    student = Player(name="student", module=model, trainables=training.attach(model), optim=optim, ema=Ema(decay=0.5))
    return Stage1(student, Network(module=model), HashedCaptions(), GEOMETRY, tasks=TASKS)


def train(name: str, kind: str, folder, steps: int) -> None:
    config = RunConfig(steps=steps, batch_size=4, save_every=2, log_every=1, plots=False)
    data = Points(8) if name == "unused" else clips(8, height=16) if name == "gan" else clips(8)
    Trainer(method_named(name), data, config, folder, parallel=KINDS[kind]()).run()


def worker(rank: int, folder: str, jobs: list) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for name, kind, place, steps in jobs:
        torch.manual_seed(rank)  # whatever global generators hold must not matter
        train(name, kind, Path(place), steps)
    disconnect()


JOBS = [
    ("full", "replicated"),
    ("lora", "replicated"),
    ("full", "sharded"),
    ("lora", "sharded"),
]
OTHERS = [("dmd", "replicated"), ("gan", "replicated"), ("unused", "replicated")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of all runs of this file: two ranks in one spawn, then one rank."""
    root = tmp_path_factory.mktemp("ranks")
    jobs = [(name, kind, str(root / f"{name}-{kind}"), 4) for name, kind in JOBS + OTHERS]
    jobs.append(("full", "sharded", str(root / "regrown"), 2))
    mp.spawn(worker, args=(str(root), jobs), nprocs=2)
    for name in ("full", "lora", "dmd", "gan", "unused"):
        train(name, "one", root / f"{name}-one", 4)
    train("full", "one", root / "regrown", 4)
    return root


@cache
def final(folder, step=4, player="student"):
    return averaged_weights(CheckpointFolder(folder / "checkpoints").path(step), player)


@pytest.mark.parametrize("name, kind", JOBS)
def test_two_ranks_equal_one(runs, name, kind):
    wanted, got = final(runs / f"{name}-one"), final(runs / f"{name}-{kind}")
    assert set(got) == set(wanted)
    for key, value in wanted.items():
        torch.testing.assert_close(got[key], value, rtol=1e-3, atol=2e-5, msg=lambda m, key=key: f"{key}: {m}")
    one, two = (read_curves(runs / f"{name}-{k}") for k in ("one", kind))
    for curve in ("student/loss", "student/grad_norm", "student/clip_factor"):
        for (_, a), (_, b) in zip(one[curve], two[curve]):
            assert a == pytest.approx(b, rel=1e-3)
    assert all(factor < 1 for _, factor in one["student/clip_factor"])


@pytest.mark.parametrize("player", ["student", "critic"])
@pytest.mark.parametrize("name", ["dmd", "gan"])
def test_two_ranks_distil_as_one(runs, name, player):
    wanted, got = (final(runs / f"{name}-{kind}", player=player) for kind in ("one", "replicated"))
    for key, value in wanted.items():
        torch.testing.assert_close(got[key], value, rtol=1e-3, atol=5e-5, msg=lambda m, key=key: f"{key}: {m}")


def test_what_no_rank_has_a_gradient_of_does_not_move(runs):
    """An optimiser that is handed zeros decays the weight and counts the step."""
    wanted, got = (final(runs / f"unused-{kind}", player="line") for kind in ("one", "replicated"))
    assert torch.equal(got["unused"], wanted["unused"]) and torch.equal(got["unused"], torch.ones(3))


def test_a_run_goes_on_with_another_number_of_ranks(runs):
    """Two ranks with split weights for two steps, then one device: equal to one device all along."""
    for key, value in final(runs / "full-one").items():
        torch.testing.assert_close(final(runs / "regrown")[key], value, rtol=1e-3, atol=2e-5)


def failing_worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    os.environ["WORLD_SIZE"] = "2"
    if rank == 1:
        ToyWindows.__getitem__ = lambda self, index: windows_are_gone()
    run_phase(phase("vae"), folder, device="cpu")


def windows_are_gone():
    raise InputError("the windows are gone")


def test_a_rank_that_fails_alone_ends_the_run(tmp_path):
    """It would wait for the others, which wait for its gradients, until the time limit of the exchange (30 minutes)."""
    Workspace(tmp_path).start(phase("vae").start)
    begun = time.monotonic()
    with pytest.raises((mp.ProcessRaisedException, mp.ProcessExitedException), match="the windows are gone|process 0"):
        mp.spawn(failing_worker, args=(str(tmp_path),), nprocs=2)
    assert time.monotonic() - begun < 120


def test_outside_of_torchrun_there_is_one_device(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert isinstance(connect("sharded"), OneDevice)
    with pytest.raises(InputError, match="parallel='ddp' is unknown"):
        connect("ddp")


def test_a_batch_that_does_not_split_over_the_ranks_is_refused(tmp_path):
    three = type("Three", (OneDevice,), {})(rank=0, world=3)
    with pytest.raises(InputError, match="does not split over 3 ranks x micro-batches"):
        Trainer(method_named("lora"), clips(8), RunConfig(steps=1, batch_size=4), tmp_path, parallel=three)
