"""Checkpoints of a run: everything that a resumed run needs, written so that a crash never leaves half of one.

    RUN/checkpoints/step-00000500/
        weights.safetensors  optimizer.safetensors  ema.safetensors    "player/parameter", float32
        state.json                      counters, place in the data, configuration; a probe's numbers once it has run

Random numbers need no state: they are addressed by the step (:mod:`helios.training.seeds`).
"""

import json
import logging
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from helios.errors import InputError
from helios.training.ema import MovingAverage
from helios.training.errors import TrainingError, writing
from helios.training.parallel import Parallel, like, whole
from helios.training.player import Player

logger = logging.getLogger(__name__)

_STATE, _WEIGHTS, _OPTIMIZER, _EMA = "state.json", "weights", "optimizer", "ema"
_UNFINISHED = ".unfinished-"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Keep:
    """Which checkpoints stay on disk.

    Args:
        last: how many of the newest, 1 or more.
        best_by: name of a probe's number; the checkpoint where it was best also stays, the earlier of equals. None for
            none.
        lower_is_better: whether a small number is good.
    """

    last: int = 2
    best_by: str | None = None
    lower_is_better: bool = True

    def __post_init__(self) -> None:
        if self.last < 1:
            raise InputError(f"keep.last={self.last} would delete every checkpoint: use 1 or more")

    def better(self, new: float, old: float) -> bool:
        """Whether a probe's number beats another one; what is not a number beats nothing."""
        if math.isnan(old):
            return not math.isnan(new)
        return new < old if self.lower_is_better else new > old


class CheckpointFolder:
    """The checkpoints of one run.

    Args:
        folder: where they are.
        keep: which of them stay.
    """

    def __init__(self, folder: Path, keep: Keep = Keep()):
        self.folder, self.keep = folder, keep

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, ascending."""
        found = self.folder.glob(f"step-*/{_STATE}")
        return sorted(int(path.parent.name.removeprefix("step-")) for path in found)

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return self.folder / f"step-{step:08d}"

    def last_good(self) -> str:
        """What of the run is safe, for messages."""
        steps = self.steps()
        return f"the last good checkpoint is {self.path(steps[-1])}" if steps else "there is no checkpoint yet"

    def best(self) -> int | None:
        """Step of the best checkpoint by probe so far."""
        found: tuple[int, float] | None = None
        for step in self.steps() if self.keep.best_by else ():
            value = self.state(step).get("probe", {}).get(self.keep.best_by)
            if value is not None and (found is None or self.keep.better(float(value), found[1])):
                found = step, float(value)
        return found and found[0]

    def state(self, step: int) -> dict[str, Any]:
        """``state.json`` of a step."""
        return json.loads((self.path(step) / _STATE).read_text(encoding="utf-8"))

    def save(self, players: tuple[Player, ...], state: dict[str, Any], parallel: Parallel) -> Path:
        """Write a checkpoint; call it on every rank.

        Args:
            state: what ``state.json`` holds; ``state["step"]`` names the folder.
        Raises: TrainingError when it cannot be written; what was there before stays.
        """
        tensors = {kind: _gathered(gather(players), parallel) for kind, gather in _PARTS.items()}
        path, failure = self.path(state["step"]), None
        if parallel.rank == 0:
            try:
                self._write(path, tensors, {"format": FORMAT, **state})
                self._prune()
            except TrainingError as error:
                failure = error
        if parallel.mean(torch.tensor([float(failure is not None)])) > 0:  # all ranks stop, not only the one that wrote
            raise failure or TrainingError(f"rank 0 could not save {path}: see its message")
        return path

    def load(self, step: int, players: tuple[Player, ...]) -> dict[str, Any]:
        """Put a checkpoint back into the players and return its ``state.json``.

        The optimiser of now begins anew, with a warning, where the checkpoint was made with another kind; so does a
        moving average that it does not have, from the weights.

        Raises: InputError when it holds other tensors than the run trains.
        """
        path, state = self.path(step), self.state(step)
        _restore_weights(players, _read(path, _WEIGHTS), path)
        optimizers, averages = _read(path, _OPTIMIZER), _read(path, _EMA)
        for player in players:
            player.updates = state["updates"][player.name]
            if state["optimizers"][player.name] == optimizer_kind(player):
                _restore_optimizer(player, optimizers)
            else:
                logger.warning("%s: the %s has another kind of optimiser now, which begins anew", path, player.name)
            if player.average and player.name in state["averages"]:
                player.average.updates = state["averages"][player.name]
                _restore_average(player.name, player.average, averages)
            elif player.average:
                logger.warning("%s: there is no average of the %s, it begins with its weights", path, player.name)
                player.average = MovingAverage(player.average.config, player.trainables)
        return state

    def note_probe(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write what a probe found into the checkpoint of ``step``, which must have been saved.

        Raises: TrainingError when that cannot be written, or when ``keep.best_by`` is none of the numbers.
        """
        name = self.keep.best_by
        if name is not None and name not in numbers:
            known = ", ".join(sorted(numbers)) or "nothing"
            raise TrainingError(f"keep.best_by={name!r} is not what the probes measure: they measure {known}")
        file = self.path(step) / _STATE
        with writing(file, self.last_good()):
            probe = {key: value if math.isfinite(value) else str(value) for key, value in numbers.items()}
            replace_file(file, json.dumps(self.state(step) | {"probe": probe}, indent=1))

    def _write(self, path: Path, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        unfinished = path.with_name(_UNFINISHED + path.name)
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            with writing(path, self.last_good()):
                unfinished.mkdir(parents=True)
                for kind, named in tensors.items():
                    file = unfinished / f"{kind}.safetensors"
                    save_file({key: value.contiguous() for key, value in named.items()}, file)
                (unfinished / _STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
                _flush(unfinished)
                shutil.rmtree(path, ignore_errors=True)
                unfinished.rename(path)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _prune(self) -> None:
        steps, best = self.steps(), self.best()
        for step in steps[: -self.keep.last]:
            if best != step:
                shutil.rmtree(self.path(step), ignore_errors=True)
        for leftover in self.folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(leftover, ignore_errors=True)


def _gathered(tensors: dict[str, Tensor], parallel: Parallel) -> dict[str, Tensor]:
    """Whole values on the host of the rank that writes; the others only help to join them."""
    return {key: whole(value, keep=parallel.rank == 0) for key, value in tensors.items()}


def _weights(players: tuple[Player, ...]) -> dict[str, Tensor]:
    return {f"{p.name}/{name}": value for p in players for name, value in p.trainables.items()}


def _optimizer_tensors(players: tuple[Player, ...]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for player in players:
        for name, parameter in player.trainables.items():
            for key, value in player.optimizer.state.get(parameter, {}).items():
                found[f"{player.name}/{name}/{key}"] = torch.as_tensor(value)
    return found


def _average_tensors(players: tuple[Player, ...]) -> dict[str, Tensor]:
    return {f"{p.name}/{name}": value for p in players if p.average for name, value in p.average.shadow.items()}


_PARTS = {_WEIGHTS: _weights, _OPTIMIZER: _optimizer_tensors, _EMA: _average_tensors}


def averaged_weights(path: Path, player: str) -> dict[str, Tensor]:
    """One player's trained tensors of a checkpoint, averaged where the run kept an average."""
    found = _read(path, _EMA)
    found = found if any(key.startswith(f"{player}/") for key in found) else _read(path, _WEIGHTS)
    return {key.partition("/")[2]: value for key, value in found.items() if key.startswith(f"{player}/")}


def _read(path: Path, kind: str) -> dict[str, Tensor]:
    return load_file(path / f"{kind}.safetensors")


@torch.no_grad()
def _restore_weights(players: tuple[Player, ...], saved: dict[str, Tensor], path: Path) -> None:
    expected = {f"{p.name}/{name}": value for p in players for name, value in p.trainables.items()}
    odd = sorted(set(expected) ^ set(saved))
    odd += [key for key in expected if key in saved and expected[key].shape != saved[key].shape]
    if odd:
        raise InputError(
            f"{path} is of another run: {len(odd)} tensor(s) differ, such as {odd[0]}; use another run folder"
        )
    for key, parameter in expected.items():
        parameter.copy_(like(saved[key], parameter))


def optimizer_kind(player: Player) -> str:
    """What its optimiser is called in a checkpoint."""
    return type(player.optimizer).__name__


def _restore_optimizer(player: Player, saved: dict[str, Tensor]) -> None:
    for name, parameter in player.trainables.items():
        prefix = f"{player.name}/{name}/"
        state = {key.removeprefix(prefix): v for key, v in saved.items() if key.startswith(prefix)}
        if state:
            player.optimizer.state[parameter] = {
                key: value.clone() if key == "step" else like(value, parameter) for key, value in state.items()
            }


def _restore_average(player: str, average: MovingAverage, saved: dict[str, Tensor]) -> None:
    for name, shadow in average.shadow.items():
        average.shadow[name] = like(saved[f"{player}/{name}"], shadow).clone()


def _flush(folder: Path) -> None:
    """Files and folder on the disk, before the rename makes them the checkpoint."""
    for path in [*folder.iterdir(), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def replace_file(path: Path, text: str) -> None:
    """Write a small file as a whole: readers see the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(_UNFINISHED + path.name)
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
