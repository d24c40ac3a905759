"""The folder of all phases of a recipe: ``WORKSPACE/<phase>/`` with a run's record and checkpoints, and
``WORKSPACE/<phase>/model/`` with what it exported.

Some folders in it are made once and read by several phases: the model before any training, encoded clips, recorded
pairs. They are found by name, so each says what made it, and what another VAE, teacher or setting made is refused.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helios.checkpoints import resolve
from helios.checkpoints.wan import export_wan_start
from helios.errors import InputError
from helios.training.checkpoint import replace_file
from helios.training.config import differences, to_plain
from helios.training.errors import writing
from helios.training.phase import After, Checkpoint, Scratch, Start, Wan

MODEL = "model"
MADE_BY = "made_by.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workspace:
    """The folder of a recipe's phases.

    Args:
        folder: the folder.
        complete: whether everything that is made once must be there already, because several ranks cannot make it
            together; otherwise what is missing is made.
    """

    folder: Path
    complete: bool = False

    def phase(self, name: str) -> Path:
        """Folder of a phase."""
        return self.folder / name

    def model(self, name: str) -> Path:
        """Where a phase exports its model."""
        return self.folder / name / MODEL

    def data(self, name: str) -> Path:
        """A data folder or file, relative to the workspace unless absolute."""
        return self.folder / name

    def start(self, start: Start) -> Path:
        """The checkpoint directory that a phase starts from; made or downloaded if need be.

        Raises: InputError when the phase before has not been run, or the model was made with other settings.
        """
        if isinstance(start, After):
            if not self.model(start.phase).is_dir():
                raise InputError(f"{self.model(start.phase)} does not exist: train the phase {start.phase!r} first")
            return self.model(start.phase)
        if isinstance(start, Checkpoint):
            return resolve(start.source)
        name, make = ("scratch", _write_scratch) if isinstance(start, Scratch) else ("wan", _convert_wan)
        model = self.model(name)
        self.once(model.parent, to_plain(start), finished=model.is_dir(), make=lambda: make(start, model))
        return model

    def once(self, folder: Path, made_by: Mapping[str, Any], *, finished: bool, make: Callable[[], None]) -> None:
        """Make a folder, or go on making it, unless it is finished.

        Args:
            folder: in the workspace.
            made_by: settings, and identities of the weights that its content depends on, as plain data.
            finished: whether all of it is there.
            make: makes what is missing.
        Raises: InputError when something else made it, or it is not finished and may not be made here; TrainingError
            when it cannot be written.
        """
        if self.complete and not finished:
            raise InputError(
                f"{folder} is not complete and several ranks cannot make it together: run the same command with "
                "--prepare-only first, in one process without torchrun"
            )
        check_made_by(folder, made_by)
        if finished:
            return
        with writing(folder, "what is in it already stays"):
            if _empty(folder):
                replace_file(folder / MADE_BY, json.dumps(made_by, indent=1))
            make()


def check_made_by(folder: Path, made_by: Mapping[str, Any]) -> None:
    """Refuse what something else made; what was made before folders said so is taken, with a warning.

    Raises: InputError that names the first difference.
    """
    if _empty(folder):
        return
    if not (folder / MADE_BY).is_file():
        logger.warning(
            "%s does not say what made it and is taken as it is: delete it if VAE, teacher or settings changed", folder
        )
        return
    found = differences(json.loads((folder / MADE_BY).read_text(encoding="utf-8")), json.loads(json.dumps(made_by)))
    for key, (old, new) in found.items():
        raise InputError(f"{folder} was made with {key}={old} and now it is {new}: delete the folder to make it anew")


def _empty(folder: Path) -> bool:
    return not folder.is_dir() or all(entry.name == MADE_BY for entry in folder.iterdir())


def _write_scratch(start: Scratch, model: Path) -> None:
    start.model.write(model, start.corpus.corpus())


def _convert_wan(start: Wan, model: Path) -> None:
    export_wan_start(resolve(start.source), model)
