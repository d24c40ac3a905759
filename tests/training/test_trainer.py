import errno
import json
import logging
import math

import pytest
import torch

from helios.errors import InputError
from helios.training import checkpoint as checkpoint_module
from helios.training import record as record_module
from helios.training.checkpoint import Keep
from helios.training.ema import Ema
from helios.training.errors import TrainingError
from helios.training.record import METRICS, RunRecord, read_curves
from helios.training.trainer import RunConfig, Trainer
from tests.training.line import LineMethod, Points


def config(**changes) -> RunConfig:
    return RunConfig(
        **{"steps": 12, "batch_size": 4, "save_every": 4, "log_every": 1, "seed": 3, "plots": False, **changes}
    )


def train(folder, run=None, **method):
    method = LineMethod(**method)
    Trainer(method, Points(), run or config(), folder).run()
    return method.players[0]


def same(one, two) -> bool:
    state = zip(one.trainables.values(), two.trainables.values())
    return all(torch.equal(a, b) for a, b in state)


def test_training_lowers_the_loss_and_writes_curves(tmp_path):
    train(tmp_path, config(steps=200, save_every=100, plots=True))
    losses = [value for _, value in read_curves(tmp_path)["line/loss"]]
    assert len(losses) == 200
    assert sum(losses[-20:]) < 0.2 * sum(losses[:20])
    assert (tmp_path / "curves.png").is_file()
    assert json.loads((tmp_path / "config.json").read_text())["batch_size"] == 4


@pytest.mark.parametrize("killed_at", [1, 5, 8, 11])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch, killed_at):
    whole = train(tmp_path / "whole", ema=Ema(decay=0.9, start=3))
    step = Trainer._step

    def killed(self):
        if self.step == killed_at:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Trainer, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", ema=Ema(decay=0.9, start=3))
    monkeypatch.setattr(Trainer, "_step", step)
    resumed = train(tmp_path / "killed", ema=Ema(decay=0.9, start=3))
    assert same(whole, resumed)
    assert resumed.updates == 12 and resumed.average.updates == 12
    for name, shadow in whole.average.shadow.items():
        assert torch.equal(shadow, resumed.average.shadow[name])
    for (_, a), (_, b) in zip(
        read_curves(tmp_path / "whole")["line/loss"], read_curves(tmp_path / "killed")["line/loss"]
    ):
        assert a == b
    assert [s for s, _ in read_curves(tmp_path / "killed")["line/loss"]] == list(range(1, 13))


def test_accumulated_micro_batches_equal_one_batch(tmp_path):
    one, four = train(tmp_path / "one"), train(tmp_path / "four", config(accumulate=4))
    for a, b in zip(one.trainables.values(), four.trainables.values()):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_another_seed_gives_another_run(tmp_path):
    assert not same(train(tmp_path / "a"), train(tmp_path / "b", config(seed=4)))


def test_max_minutes_stops_with_a_checkpoint_and_the_next_run_finishes(tmp_path):
    trainer = Trainer(LineMethod(), Points(), config(max_minutes=1e-9), tmp_path)
    result = trainer.run()
    assert not result.finished and result.step == 0 and result.checkpoint.is_dir()
    method = LineMethod()
    assert Trainer(method, Points(), config(), tmp_path).run().finished
    assert same(method.players[0], train(tmp_path / "whole"))


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good(tmp_path):
    with pytest.raises(TrainingError, match=r"loss of the line is not finite at step 6.*0\.weight.*step-00000004"):
        train(tmp_path, bad_step=6)
    good = train(tmp_path / "good", config(steps=4))
    resumed = LineMethod()
    Trainer(resumed, Points(), config(steps=4), tmp_path).run()
    assert same(good, resumed.players[0])


def test_running_out_of_memory_says_what_needs_less(tmp_path, monkeypatch):
    def full(self, player, items, draws, scale):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    train(tmp_path, config(steps=4))
    monkeypatch.setattr(LineMethod, "backward", full)
    with pytest.raises(TrainingError, match="out of memory at step 4; .*step-00000004: raise run.accumulate"):
        train(tmp_path)


def test_a_tensor_that_never_gets_a_gradient_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"line/unused"):
        train(tmp_path, config(gradient_check_steps=3), unused=True)


@pytest.mark.parametrize("first, found_at", [(0, 3), (6, 9), (20, None)])
def test_a_tensor_whose_loss_begins_later_is_waited_for(tmp_path, first, found_at):
    method = LineMethod(unused=True)
    method.players[0].first_steps = {"unused": first}
    trainer = Trainer(method, Points(), config(gradient_check_steps=3), tmp_path)
    if found_at is None:
        assert trainer.run().finished
    else:
        with pytest.raises(TrainingError, match="got no gradient in 3 steps, such as line/unused"):
            trainer.run()
        assert trainer.step == found_at


def test_every_trained_tensor_is_in_the_checkpoint(tmp_path):
    from safetensors.torch import load_file

    player = train(tmp_path)
    saved = load_file(tmp_path / "checkpoints" / "step-00000012" / "weights.safetensors")
    assert set(saved) == {f"line/{name}" for name in player.trainables}
    assert all(value.dtype == torch.float32 for value in saved.values())


def test_only_the_last_and_the_best_checkpoints_stay(tmp_path):
    values = iter([5.0, 1.0, 3.0, 4.0, 2.0, 6.0])
    run = config(steps=24, probe_every=4, keep=Keep(last=1, best_by="probe/error"))
    trainer = Trainer(LineMethod(), Points(), run, tmp_path, probes=(lambda step, folder: {"error": next(values)},))
    trainer.run()
    assert trainer.checkpoints.steps() == [8, 24]
    assert trainer.checkpoints.best() == 8
    assert [value for _, value in read_curves(tmp_path)["probe/error"]] == [5.0, 1.0, 3.0, 4.0, 2.0, 6.0]


def test_probes_see_averaged_weights_and_leave_the_weights_alone(tmp_path):
    seen = []
    method = LineMethod(ema=Ema(decay=0.99))
    weight = method.players[0].trainables["0.weight"]
    probe = lambda step, folder: seen.append(weight.detach().clone()) or {}
    Trainer(method, Points(), config(probe_every=12), tmp_path, probes=(probe,)).run()
    assert torch.equal(seen[0], method.players[0].average.shadow["0.weight"])
    assert not torch.equal(seen[0], weight)
    assert same(method.players[0], train(tmp_path / "plain", ema=Ema(decay=0.99)))


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    write = checkpoint_module.save_file

    def full(tensors, path):
        if "step-00000008" in str(path) and "optimizer" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(tensors, path)

    monkeypatch.setattr(checkpoint_module, "save_file", full)
    with pytest.raises(TrainingError, match=r"the disk is full; the last good checkpoint is .*step-00000004"):
        train(tmp_path)
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == ["step-00000004"]
    monkeypatch.setattr(checkpoint_module, "save_file", write)
    assert same(train(tmp_path), train(tmp_path / "whole"))


def test_a_full_disk_under_the_curves_says_what_is_kept(tmp_path, monkeypatch):
    whole, write = train(tmp_path / "whole"), RunRecord.write

    def full(self, step, numbers):
        if step == 6:
            with (self.folder / METRICS).open("a") as stream:
                stream.write('{"step": 6, "lo')
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, step, numbers)

    monkeypatch.setattr(RunRecord, "write", full)
    with pytest.raises(TrainingError, match=r"metrics.jsonl, the disk is full; .*step-00000004: make room"):
        train(tmp_path / "run", config(plots=True))
    assert [step for step, _ in read_curves(tmp_path / "run")["line/loss"]] == [1, 2, 3, 4, 5]
    monkeypatch.setattr(RunRecord, "write", write)
    assert same(train(tmp_path / "run"), whole)
    assert [step for step, _ in read_curves(tmp_path / "run")["line/loss"]] == list(range(1, 13))


def test_curves_that_cannot_be_drawn_do_not_hide_why_a_run_stopped(tmp_path, monkeypatch, caplog):
    def full(folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(record_module, "plot_curves", full)
    with pytest.raises(TrainingError, match="not finite at step 2, .*; there is no checkpoint yet"):
        train(tmp_path, config(plots=True), bad_step=2)
    assert "were not drawn" in caplog.text


def test_a_half_written_checkpoint_is_not_one(tmp_path):
    train(tmp_path, config(steps=4))
    torn = tmp_path / "checkpoints" / ".unfinished-step-00000008"
    torn.mkdir()
    (torn / "weights.safetensors").write_bytes(b"half")
    assert same(train(tmp_path), train(tmp_path / "whole"))
    assert not torn.exists()


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    train(tmp_path, config(steps=4))
    with pytest.raises(InputError, match=r"is of another run: 1 tensor\(s\) differ, such as line/unused"):
        train(tmp_path, unused=True)


def test_the_current_configuration_wins_at_resume_and_says_so(tmp_path, caplog):
    train(tmp_path, config(steps=4))
    with caplog.at_level(logging.WARNING):
        train(tmp_path, config(save_every=6))
    assert "going on with save_every=6, the checkpoint was made with 4" in caplog.text


@pytest.mark.parametrize("stopped_in", ["the first probe", "writing it down"])
def test_a_probe_that_a_kill_prevented_is_made_up_for(tmp_path, monkeypatch, stopped_in):
    run = config(steps=12, probe_every=4, keep=Keep(last=1, best_by="probe/error"))
    values, seen = {4: 1.0, 8: 3.0, 12: 2.0}, []

    def probe(step, folder):
        if step == 4 and not seen and stopped_in == "the first probe":
            seen.append(None)
            raise KeyboardInterrupt
        seen.append(step)
        return {"error": values[step]}

    def killed(self, step, numbers):
        monkeypatch.undo()
        raise KeyboardInterrupt

    if stopped_in != "the first probe":
        monkeypatch.setattr(checkpoint_module.CheckpointFolder, "note_probe", killed)
    with pytest.raises(KeyboardInterrupt):
        Trainer(LineMethod(), Points(), run, tmp_path, probes=(probe,)).run()
    trainer = Trainer(LineMethod(), Points(), run, tmp_path, probes=(probe,))
    trainer.run()
    assert trainer.checkpoints.best() == 4 and trainer.checkpoints.steps() == [4, 12]
    again = len(seen)
    Trainer(LineMethod(), Points(), run, tmp_path, probes=(probe,)).run()
    assert len(seen) == again, "a finished run has nothing left to probe"


def test_a_number_that_no_probe_measures_cannot_choose(tmp_path):
    run = config(probe_every=4, keep=Keep(best_by="probe/eror"))
    trainer = Trainer(LineMethod(), Points(), run, tmp_path, probes=(lambda step, folder: {"error": 1.0},))
    with pytest.raises(TrainingError, match="best_by='probe/eror' is not what the probes measure.*probe/error"):
        trainer.run()
    assert trainer.checkpoints.steps() == [4]


def test_what_is_not_a_number_is_never_the_best():
    keep = Keep(best_by="x")
    assert keep.better(1.0, math.nan) and not keep.better(math.nan, 1.0) and not keep.better(math.nan, math.nan)


def test_a_tensor_without_any_gradient_is_named_at_the_end_of_a_short_run(tmp_path, caplog):
    train(tmp_path, config(gradient_check_steps=50), unused=True)
    assert "1 trained tensor(s) never got a gradient, such as line/unused" in caplog.text


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"steps": 0}, "steps=0"),
        ({"probe_every": -1}, "probe_every=-1 must not be negative"),
        ({"seed": -1}, "seed=-1 must not be negative"),
        ({"keep": Keep(best_by="probe/error")}, "best_by='probe/error' is a probe's number: set probe_every"),
        ({"accumulate": 3}, "does not split into accumulate=3"),
        ({"max_minutes": 0.0}, "leaves no time"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        config(**changes)


def test_too_few_clips_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"2 clip\(s\).*do not fill a batch of 4"):
        Trainer(LineMethod(), Points(2), config(), tmp_path)
