"""What a run writes about itself: one JSON line per step, TensorBoard, and curves as a picture."""

import json
import logging
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from helios.errors import InputError
from helios.extras import load_extra
from helios.training.checkpoint import replace_file

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"


class RunRecord:
    """Curves of one run, in its folder. A resumed run first forgets what came after the checkpoint it goes on from.

    Args:
        folder: of the run.
        from_step: lines and events after this step are dropped.
        plots: also write TensorBoard events and ``curves.png``; ``metrics.jsonl`` is always written.
    """

    def __init__(self, folder: Path, *, from_step: int = 0, plots: bool = True):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._file = folder / METRICS
        self._forget(from_step)
        self._plots = plots
        self._board = _tensorboard(folder, from_step) if plots else None

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add the numbers of a step."""
        line = json.dumps({"step": step, **{k: v if math.isfinite(v) else str(v) for k, v in numbers.items()}})
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Draw the curves and let TensorBoard's file go. A picture that cannot be written stops nothing."""
        try:
            if self._plots:
                plot_curves(self.folder)
            if self._board is not None:
                self._board.close()
        except OSError as error:
            logger.warning("the curves of %s were not drawn: %s", self.folder, error)

    def _forget(self, from_step: int) -> None:
        if not self._file.is_file():
            return
        lines = [(line, _step_of(line)) for line in self._file.read_text().splitlines()]
        kept = [line for line, step in lines if step is not None and step <= from_step]
        replace_file(self._file, "".join(line + "\n" for line in kept))


class NoRecord:
    """Writes nothing: for every rank but the first."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def read_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every curve of a run as (step, value) points."""
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    file = folder / METRICS
    for line in file.read_text().splitlines() if file.is_file() else ():
        if (step := _step_of(line)) is not None:
            for name, value in json.loads(line).items():
                if name != "step":
                    curves[name].append((step, float(value)))
    return dict(curves)


def plot_curves(folder: Path) -> Path | None:
    """``curves.png`` of a run: one small plot per curve. None when matplotlib is not installed."""
    curves = read_curves(folder)
    try:
        load_extra("matplotlib", extra="train")
    except InputError:
        logger.info("no curves.png: matplotlib is not installed")
        return None
    if not curves:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(4, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(4 * columns, 2.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (name, points) in enumerate(sorted(curves.items()), start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.plot(*zip(*points), linewidth=0.8, marker="." if len(points) < 20 else None)
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=7)
    path = folder / "curves.png"
    figure.savefig(path, dpi=90)
    return path


def _step_of(line: str) -> int | None:
    """None for a line that is cut off, as the last one of a killed run or on a full disk may be."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return None


def _tensorboard(folder: Path, from_step: int):
    try:
        load_extra("tensorboard", extra="train")
    except InputError:
        logger.info("no TensorBoard events: tensorboard is not installed")
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=from_step + 1)
