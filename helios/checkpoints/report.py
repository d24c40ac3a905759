"""Which tensors a set of files lacks, has too many, or has in another shape."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from helios.checkpoints.layout import Shape
from helios.errors import InputError

_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """How stored tensors fit a model.

    Attributes:
        total: tensors of the model.
        missing: names that the model has and the files lack.
        unexpected: names that the files have and the model lacks.
        misshapen: name -> (shape in the model, shape in the files).
    """

    total: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: Mapping[str, tuple[Shape, Shape]]

    @property
    def complete(self) -> bool:
        """Whether every tensor of the model, and nothing else, is in the files."""
        return not (self.missing or self.unexpected or self.misshapen)

    def require_complete(self, source: str | Path) -> None:
        """Raises: InputError with counts and the first few names when the files do not fit the model exactly."""
        if not self.complete:
            raise InputError(
                f"the weights in {str(source)!r} do not fit their configuration: {self.summary()}; "
                "use files and config.json of the same model"
            )

    def summary(self) -> str:
        """Counts and the first few names, for one sentence."""
        misshapen = [f"{name} {list(have)} not {list(want)}" for name, (want, have) in self.misshapen.items()]
        parts = [
            f"{len(names)} of {self.total} tensors {kind} ({_few(names)})"
            for kind, names in (("missing", self.missing), ("misshapen", misshapen))
            if names
        ]
        if self.unexpected:
            parts.append(f"{len(self.unexpected)} unexpected ({_few(self.unexpected)})")
        return ", ".join(parts) or f"all {self.total} tensors fit"


def compare(model: Mapping[str, Shape], stored: Mapping[str, Shape], *, ignored: Sequence[str] = ()) -> LoadReport:
    """Compare a model's tensors with stored ones.

    Args:
        model: name -> shape wanted.
        stored: name -> shape found.
        ignored: parts of a name (between dots) whose surplus tensors are passed over in silence.
    """
    surplus = [name for name in stored if name not in model and not set(ignored).intersection(name.split("."))]
    shared = [name for name in model if name in stored]
    return LoadReport(
        total=len(model),
        missing=tuple(name for name in model if name not in stored),
        unexpected=tuple(surplus),
        misshapen={
            name: (tuple(model[name]), tuple(stored[name]))
            for name in shared
            if tuple(model[name]) != tuple(stored[name])
        },
    )


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown}, …"
