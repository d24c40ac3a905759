"""The live line of a run: chunk, level, step, frames per second, time to the first frame, ETA, memory."""

import time
from typing import TYPE_CHECKING, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

if TYPE_CHECKING:
    from helios.engine.video import Chunk
    from helios.engine.watch import Progress


class Quiet:
    """Reports nothing, but keeps the time to the first frame."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self.first_frame_s: float | None = None
        self.frames = 0
        self.chunk_seconds: list[float] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error) -> None: ...

    def step(self, progress: "Progress") -> None: ...

    def chunk(self, chunk: "Chunk") -> None:
        if self.first_frame_s is None:
            self.first_frame_s = time.perf_counter() - self._began
        self.frames += chunk.frames.shape[0]
        self.chunk_seconds.append(chunk.timings.total)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began

    @property
    def fps(self) -> float:
        """Frames handed out per second of wall time since the start."""
        return self.frames / max(self.seconds, 1e-9)


class Lines(Quiet):
    """One line per chunk on stderr, for logs."""

    def chunk(self, chunk: "Chunk") -> None:
        super().chunk(chunk)
        typer.echo(f"chunk {chunk.index + 1}: {_summary(self, chunk)}", err=True)


class Live(Quiet):
    """A line that updates after every step, for terminals."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._bar = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeRemainingColumn(),
            _Summary(),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=None, summary="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error) -> None:
        self._bar.stop()

    def step(self, progress: "Progress") -> None:
        where = f"chunk {progress.chunk + 1}/{progress.chunks}"
        if progress.levels > 1:
            where += f"  level {progress.level + 1}/{progress.levels}"
        where += f"  step {progress.step + 1}/{progress.steps}"
        self._bar.update(self._task, description=where, completed=progress.done, total=progress.total)

    def chunk(self, chunk: "Chunk") -> None:
        super().chunk(chunk)
        self._bar.update(self._task, summary=_summary(self, chunk))


class _Summary(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields["summary"], style="dim")


def _summary(report: Quiet, chunk: "Chunk") -> str:
    megabytes = chunk.memory.peak_reserved / 2**20
    return f"{report.fps:.1f} fps  first frame {report.first_frame_s:.2f} s  memory {megabytes:.0f} MiB"


def reporter(*, quiet: bool) -> Quiet:
    """The reporter that suits where stderr goes."""
    if quiet:
        return Quiet()
    console = Console(stderr=True)
    return Live(console) if console.is_terminal else Lines()
