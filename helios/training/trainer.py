"""The training loop: accumulate, clip, step, average, save, probe. Which losses there are is the method's business.

A run is a folder. Starting it again goes on from its newest checkpoint and gives what the uninterrupted run gives:
batches and random numbers are functions of the step, and the rest is in the checkpoint.
"""

import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from helios.errors import InputError
from helios.training.checkpoint import CheckpointFolder, Keep, optimizer_kind
from helios.training.clips import Dataset
from helios.training.config import differences, save_config, to_plain
from helios.training.errors import TrainingError, naming_shortage, writing
from helios.training.methods.base import Method
from helios.training.optim import clip_gradients, gradient_norm
from helios.training.order import BatchOrder
from helios.training.parallel import OneDevice, Parallel
from helios.training.player import Player
from helios.training.record import METRICS, NoRecord, RunRecord
from helios.training.seeds import Draws

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How long a run is and what it writes.

    Args:
        steps: where it ends.
        batch_size: clips per step over all ranks and micro-batches.
        accumulate: micro-batches per rank and step, one after the other.
        seed: of the order of clips and of every draw.
        save_every: steps between checkpoints; one is also written at the end.
        probe_every: steps between probes, each of which also writes a checkpoint; they also run at the end. 0 for never.
        log_every: steps between lines in the log and points of the curves.
        keep: which checkpoints stay.
        max_minutes: stop after this long, with a checkpoint; the same command goes on later. None for no limit.
        gradient_check_steps: in so many steps every trained tensor must have had a gradient, or the run stops; counted
            from the step at which its loss begins.
        plots: write TensorBoard events and a picture of the curves beside ``metrics.jsonl``.
    """

    steps: int
    batch_size: int = 8
    accumulate: int = 1
    seed: int = 0
    save_every: int = 500
    probe_every: int = 0
    log_every: int = 10
    keep: Keep = Keep()
    max_minutes: float | None = None
    gradient_check_steps: int = 50
    plots: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "save_every", "log_every", "gradient_check_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be 1 or more")
        for name in ("probe_every", "seed"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}={getattr(self, name)} must not be negative")
        if self.keep.best_by and not self.probe_every:
            raise InputError(
                f"keep.best_by={self.keep.best_by!r} is a probe's number: set probe_every, or best_by to none"
            )
        if self.batch_size % self.accumulate:
            raise InputError(f"batch_size={self.batch_size} does not split into accumulate={self.accumulate} parts")
        if self.max_minutes is not None and self.max_minutes <= 0:
            raise InputError(f"max_minutes={self.max_minutes:g} leaves no time: pass more than 0, or none")


class Probe(Protocol):
    """Looks at the networks now and then; it must not change them nor draw from a global generator."""

    def __call__(self, step: int, folder: Path | None) -> Mapping[str, float]:
        """Numbers for the curves; pictures go into ``folder``, which is None on all ranks but the first."""
        ...


@dataclass(frozen=True)
class Progress:
    """Where a run is, for whoever shows it."""

    step: int
    steps: int
    seconds_per_step: float
    numbers: Mapping[str, float]

    @property
    def seconds_left(self) -> float:
        """Until the last step, at the present speed."""
        return (self.steps - self.step) * self.seconds_per_step


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended: at its last step, or earlier because its time was up."""

    step: int
    finished: bool
    checkpoint: Path


class Trainer:
    """One run of one method on one data set.

    Args:
        method: losses and networks.
        dataset: clips.
        config: length, batch, saving.
        folder: of the run.
        settings: the whole resolved configuration, kept with the run and compared when it goes on.
        parallel: the ranks.
        probes: what to look at along the way.
        show: called with the progress after every logged step.
    """

    def __init__(
        self,
        method: Method,
        dataset: Dataset,
        config: RunConfig,
        folder: Path,
        *,
        settings: Any = None,
        parallel: Parallel = OneDevice(),
        probes: tuple[Probe, ...] = (),
        show: Callable[[Progress], None] = lambda progress: None,
    ):
        self.method, self.dataset, self.config, self.folder = method, dataset, config, folder
        self.settings = to_plain(config if settings is None else settings)
        self.parallel, self.probes, self.show = parallel, probes, show
        self.players = {player.name: player for player in method.players}
        self.order = BatchOrder(buckets=dataset.buckets(), batch_size=config.batch_size, seed=config.seed)
        if self.order.left_out:
            logger.warning(
                "%d of %d clips are never used: fewer than batch_size=%d have their size and length; lower it, or set "
                "data.chunks to cut clips into equal pieces",
                self.order.left_out,
                len(dataset),
                config.batch_size,
            )
        self.checkpoints = CheckpointFolder(folder / "checkpoints", config.keep)
        self.step, self._saved, self._probed = 0, -1, -1
        self._since_report: dict[str, list[float]] = defaultdict(list)
        share = config.batch_size // (parallel.world * config.accumulate)
        if share * parallel.world * config.accumulate != config.batch_size:
            ways = parallel.world * config.accumulate
            raise InputError(f"batch_size={config.batch_size} does not split over {ways} ranks x micro-batches")
        self._share = share
        turns = Counter(name for step in range(config.steps) for name in method.turns(step))
        self._updates = {name: turns[name] for name in self.players}
        self._without_gradient = {(p.name, name) for p in method.players for name in p.trainables}

    def run(self) -> RunResult:
        """Train until the last step or until the time is up.

        Raises: TrainingError when a loss or a gradient is not finite, when a trained tensor gets no gradient, when
            memory runs out, or when a checkpoint or the curves cannot be written; what was saved before stays.
        """
        self._begin()
        record = self._record()
        clock = _Clock(self.config.max_minutes)
        try:
            self._probe_if_due(record)  # of a run that was killed between a checkpoint and its probe
            while self.step < self.config.steps and not self._out_of_time(clock):
                with naming_shortage(self.step, self.checkpoints.last_good):
                    numbers = self._step()
                clock.tick()
                self._report(record, clock, numbers)
                if self.step % self.config.save_every == 0:
                    self._save()
                self._probe_if_due(record)
            return self._end()
        finally:
            record.close()

    def _record(self) -> RunRecord | NoRecord:
        if self.parallel.rank != 0:
            return NoRecord()
        with writing(self.folder / METRICS, self.checkpoints.last_good()):
            return RunRecord(self.folder, from_step=self.step, plots=self.config.plots)

    def _note(self, record: RunRecord | NoRecord, numbers: Mapping[str, float]) -> None:
        with writing(self.folder / METRICS, self.checkpoints.last_good()):
            record.write(self.step, numbers)

    def _begin(self) -> None:
        for player in self.players.values():
            self.parallel.place(player)
            player.begin()
        steps = self.checkpoints.steps()
        if steps:
            state = self.checkpoints.load(steps[-1], self.method.players)
            self.step = self._saved = state["step"]
            self._probed = self.step if "probe" in state else -1
            self._without_gradient = {tuple(name) for name in state["without_gradient"]}
            self._compare(state)
        if self.parallel.rank == 0:
            with writing(self.folder / "config.json", self.checkpoints.last_good()):
                save_config(self.settings, self.folder / "config.json")

    def _compare(self, state: dict[str, Any]) -> None:
        """The configuration of now holds; what differs from the checkpoint's is said, key by key."""
        for key, (old, new) in differences(state["settings"], self.settings).items():
            logger.warning("going on with %s=%s, the checkpoint was made with %s", key, new, old)
        if state["order"] != self._order_state():
            logger.warning("data or batch size changed: clips come in another order from here")

    def _step(self) -> dict[str, float]:
        numbers: dict[str, float] = {}
        for name in self.method.turns(self.step):
            numbers |= {f"{name}/{key}": value for key, value in self._turn(self.players[name]).items()}
        self.step += 1
        self._check_gradients()
        return numbers

    def _turn(self, player: Player) -> dict[str, float]:
        for other in self.players.values():
            other.optimizer.zero_grad(set_to_none=True)
        parts = [self._micro(player, index) for index in range(self.config.accumulate)]
        parameters = list(player.trainables.values())
        self.parallel.reduce(parameters)
        numbers = self._averaged(parts)
        norm = gradient_norm(parameters)
        self._check_finite(player, numbers, norm)
        self._watch(player)
        numbers["grad_norm"] = norm
        numbers["clip_factor"] = clip_gradients(parameters, norm, player.optim.clip)
        numbers["lr"] = player.optim.set_rate(player.optimizer, player.updates, self._updates[player.name])
        player.optimizer.step()
        player.updates += 1
        if player.average:
            player.average.update(player.trainables)
        return numbers

    def _micro(self, player: Player, index: int) -> dict[str, Tensor]:
        first = (self.parallel.rank * self.config.accumulate + index) * self._share
        places = tuple(range(first, first + self._share))
        batch = self.order.batch(self.step)
        items = [self.dataset[batch[place]] for place in places]
        draws = Draws(self.config.seed, self.step, places)
        return dict(self.method.backward(player.name, items, draws, 1.0 / self.config.accumulate))

    def _averaged(self, parts: list[dict[str, Tensor]]) -> dict[str, float]:
        """Mean over micro-batches and ranks; one small transfer per turn. Some are computed on the host anyway."""
        names, home = sorted(parts[0]), parts[0]["loss"].device
        rows = [torch.stack([part[name].detach().to(home, torch.float32) for name in names]) for part in parts]
        return dict(zip(names, self.parallel.mean(torch.stack(rows).mean(0).cpu()).tolist()))

    def _check_finite(self, player: Player, numbers: dict[str, float], norm: float) -> None:
        broken = [name for name, value in numbers.items() if not math.isfinite(value)]
        if not broken and math.isfinite(norm):
            return
        tensors = [n for n, p in player.trainables.items() if p.grad is not None and not _finite(p.grad)]
        where = f"{', '.join(broken) or 'gradient'} of the {player.name}"
        first = f", first in the gradient of {tensors[0]}" if tensors else ""
        raise TrainingError(
            f"the {where} is not finite at step {self.step}{first}; {self.checkpoints.last_good()}: "
            "lower the learning rate or look at the clips of this batch"
        )

    def _watch(self, player: Player) -> None:
        """Strike off the tensors that have had a gradient that is not zero. Sorted: all ranks ask in one order."""
        waiting = sorted(name for owner, name in self._without_gradient if owner == player.name)
        for name in waiting:
            gradient = player.trainables[name].grad
            if gradient is not None and bool(_any(gradient)):
                self._without_gradient.discard((player.name, name))

    def _check_gradients(self) -> None:
        steps = self.config.gradient_check_steps
        late = [key for key in self._without_gradient if self.step == self._first_step(*key) + steps]
        if late:
            names = sorted("/".join(key) for key in late)
            raise TrainingError(
                f"{len(names)} trained tensor(s) got no gradient in {steps} steps, such as {names[0]}: "
                "leave them out of what is trained, or find out why the loss does not reach them"
            )

    def _first_step(self, player: str, tensor: str) -> int:
        return self.players[player].first_steps.get(tensor, 0)

    def _report(self, record: RunRecord | NoRecord, clock: "_Clock", numbers: dict[str, float]) -> None:
        """Means over the steps since the last report."""
        for name, value in numbers.items():
            self._since_report[name].append(value)
        if self.step % self.config.log_every and self.step != self.config.steps:
            return
        means = {name: sum(values) / len(values) for name, values in self._since_report.items()}
        self._since_report.clear()
        self._note(record, {**means, "seconds_per_step": clock.seconds_per_step})
        progress = Progress(self.step, self.config.steps, clock.seconds_per_step, means)
        losses = ", ".join(f"{name} {value:.4g}" for name, value in means.items() if name.endswith("loss"))
        logger.info("step %d of %d, %s, %s left", self.step, self.config.steps, losses, _span(progress.seconds_left))
        self.show(progress)

    def _save(self) -> None:
        state = {
            "step": self.step,
            "updates": {name: player.updates for name, player in self.players.items()},
            "optimizers": {name: optimizer_kind(player) for name, player in self.players.items()},
            "averages": {name: p.average.updates for name, p in self.players.items() if p.average},
            "without_gradient": sorted(self._without_gradient),
            "order": self._order_state(),
            "world": self.parallel.world,
            "settings": self.settings,
        }
        self.checkpoints.save(self.method.players, state, self.parallel)
        self._saved = self.step

    def _probe_if_due(self, record: RunRecord | NoRecord) -> None:
        every, step = self.config.probe_every, self.step
        if every and step and self._probed != step and (step % every == 0 or step >= self.config.steps):
            self._probe(record)

    def _probe(self, record: RunRecord | NoRecord) -> None:
        """Averaged weights are looked at where there are any: they are what is exported. All ranks take part."""
        if self._saved != self.step:
            self._save()
        numbers: dict[str, float] = {}
        folder = self.folder / "probes" / f"step-{self.step:08d}" if self.parallel.rank == 0 else None
        with ExitStack() as stack, torch.no_grad():
            for player in self.players.values():
                stack.enter_context(player.averaged())
                player.module.eval()
                stack.callback(player.module.train)
            for probe in self.probes:
                numbers |= {f"probe/{name}": value for name, value in probe(self.step, folder).items()}
        self._note(record, numbers)
        if self.parallel.rank == 0:
            self.checkpoints.note_probe(self.step, numbers)
        self._probed = self.step

    def _end(self) -> RunResult:
        if self._saved != self.step:
            self._save()
        finished = self.step >= self.config.steps
        if finished and self._without_gradient:
            names = sorted("/".join(key) for key in self._without_gradient)
            logger.warning("%d trained tensor(s) never got a gradient, such as %s", len(names), names[0])
        return RunResult(step=self.step, finished=finished, checkpoint=self.checkpoints.path(self.step))

    def _out_of_time(self, clock: "_Clock") -> bool:
        """Every rank stops when one of them is out of time."""
        if self.config.max_minutes is None:
            return False
        return bool(self.parallel.mean(torch.tensor([float(clock.expired)])) > 0)

    def _order_state(self) -> dict[str, int]:
        return {"clips": len(self.dataset), "batch_size": self.config.batch_size, "seed": self.config.seed}


class _Clock:
    """Time per step as a moving average, and the run's limit."""

    def __init__(self, max_minutes: float | None):
        self._begin = self._last = time.monotonic()
        self._limit_s = math.inf if max_minutes is None else 60 * max_minutes
        self.seconds_per_step = 0.0

    def tick(self) -> None:
        now = time.monotonic()
        taken, self._last = now - self._last, now
        self.seconds_per_step = taken if not self.seconds_per_step else 0.95 * self.seconds_per_step + 0.05 * taken

    @property
    def expired(self) -> bool:
        """Whether another step would pass the limit."""
        return time.monotonic() - self._begin + self.seconds_per_step > self._limit_s


def _span(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def _finite(gradient: Tensor) -> bool:
    local = gradient.to_local() if hasattr(gradient, "to_local") else gradient
    return bool(torch.isfinite(local).all())


def _any(gradient: Tensor) -> bool:
    whole = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
    return bool(whole.any())
