"""Watching a chunk while it is made: progress, cancelling, broken numbers, time by phase. None of it waits for the device
before the chunk is done.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from helios.device import HostCopy
from helios.errors import Cancelled, GenerationError
from helios.sampling.denoise import StepEvent
from helios.sampling.plan import SamplingPlan


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands after a step.

    Attributes:
        chunk, chunks: number of the chunk from 0, and of the one after the last.
        level, levels: of the pyramid, from 0, the coarsest.
        step, steps: within the level, from 0, and how many it has here.
        done, total: steps over the whole run; what a resumed session had done before does not count.
    """

    chunk: int
    chunks: int
    level: int
    levels: int
    step: int
    steps: int
    done: int
    total: int


ProgressCallback = Callable[[Progress], None]


class FiniteLog:
    """Notes on the device whether the latents of each step were finite; read once, when the chunk is done.

    Args:
        plan: levels, and their steps at most.
        device: of the latents.
    """

    def __init__(self, plan: SamplingPlan, device: torch.device) -> None:
        longest = max(len(plan.schedule(level, amplified=True).timesteps) for level in range(plan.geometry.levels))
        self._finite = torch.ones(plan.geometry.levels, longest, dtype=torch.bool, device=device)

    def record(self, event: StepEvent) -> None:
        """Note a step; on an accelerator that is queued behind it."""
        self._finite[event.level, event.step] = torch.isfinite(event.latents_BCTHW).all()

    def send(self) -> None:
        """The chunk is done: let what was noted go to the host."""
        self._sent = HostCopy(self._finite)

    def check(self, chunk: int) -> None:
        """Raises: GenerationError that names chunk, level and step of the first latents that were not finite."""
        broken = (~self._sent.wait()).nonzero().tolist()
        if broken:
            level, step = broken[0]
            raise GenerationError(
                f"the latents became NaN or infinite in chunk {chunk}, level {level}, step {step}: "
                "try float32, or check the weights"
            )


class Stopwatch:
    """Laps of one chunk, the first from its making on. On an accelerator the marks are queued events, so that marking
    does not wait.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list = []
        self._began = time.perf_counter()
        self.mark()

    def mark(self) -> None:
        """End a lap and begin the next."""
        if self._device.type == "cpu":
            self._marks.append(time.perf_counter())
            return
        event = torch.Event(device=self._device, enable_timing=True)
        event.record()
        self._marks.append(event)

    def laps(self) -> list[float]:
        """Seconds between successive marks; waits for the last of them."""
        pairs = zip(self._marks, self._marks[1:])
        if self._device.type == "cpu":
            return [after - before for before, after in pairs]
        self._marks[-1].synchronize()
        return [before.elapsed_time(after) / 1000.0 for before, after in pairs]

    def total(self) -> float:
        """Wall-clock seconds since the stopwatch was made."""
        return time.perf_counter() - self._began


class ChunkWatch:
    """The observer of one chunk: counts steps, marks levels, stops on request.

    Args:
        plan: levels and steps.
        device: where the chunk is denoised.
        stop: set from any thread to stop after the running step.
        progress: called after every step; None for nobody.
        chunks: number of the chunk after the run's last one.
        first_chunk: number of the run's first chunk.
    Attributes:
        finite: whether each step's latents were finite.
        stopwatch: laps of conditioning and of each level.
    """

    def __init__(
        self,
        plan: SamplingPlan,
        device: torch.device,
        *,
        stop: threading.Event,
        progress: ProgressCallback | None,
        chunks: int,
        first_chunk: int = 0,
    ) -> None:
        self._plan, self._stop, self._progress = plan, stop, progress
        self._chunks, self._first = chunks, first_chunk
        self.finite = FiniteLog(plan, device)
        self.stopwatch = Stopwatch(device)

    def conditioned(self, chunk: int) -> None:
        """End the lap of text, history and noise."""
        self.stopwatch.mark()

    def stepped(self, event: StepEvent) -> None:
        """Note a step, end the lap of its level after the last one, and report.

        Raises: Cancelled when the run was asked to stop.
        """
        self.finite.record(event)
        if event.step == event.steps - 1:
            self.stopwatch.mark()
        if self._progress is not None:
            self._progress(self._standing(event))
        if self._stop.is_set():
            raise Cancelled(f"cancelled in chunk {event.chunk}; the chunks before it are finished")

    def _standing(self, event: StepEvent) -> Progress:
        per_chunk = self._plan.total_steps(amplified=False)
        extra = self._plan.total_steps(amplified=True) - per_chunk if self._first == 0 else 0
        levels = range(event.level)
        within = sum(len(self._plan.schedule(i, amplified=event.chunk == 0).timesteps) for i in levels)
        before = (event.chunk - self._first) * per_chunk + (extra if event.chunk > 0 else 0)
        return Progress(
            chunk=event.chunk,
            chunks=self._chunks,
            level=event.level,
            levels=self._plan.geometry.levels,
            step=event.step,
            steps=event.steps,
            done=before + within + event.step + 1,
            total=(self._chunks - self._first) * per_chunk + extra,
        )
