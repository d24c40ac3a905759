"""The scheduler of a checkpoint: which solver, which levels, which shift; read from and written to Diffusers' JSON."""

import logging
import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from torch import Tensor

from helios.errors import InputError
from helios.schedulers.shift import DynamicShift, NoShift, Shift, StaticShift
from helios.schedulers.solvers import DistilledSolver, EulerSolver, Solver, UniPCSolver
from helios.schedulers.stages import TRAIN_TIMESTEPS, PyramidStages, SingleStage
from helios.schedulers.tables import LevelSchedule

logger = logging.getLogger(__name__)

SolverKind = Literal["unipc", "euler", "distilled"]

_MULTISTEP_CLASS = "HeliosScheduler"
_DISTILLED_CLASS = "HeliosDMDScheduler"

# Keys of the published files with the only value that Helios computes. The published classes read some of them and
# ignore others; another value would either change the mathematics or silently do nothing.
_FIXED: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
_FIXED_MULTISTEP: dict[str, Any] = {
    "thresholding": False,
    "solver_order": 2,
    "predict_x0": True,
    "solver_type": "bh2",
    "lower_order_final": True,
    "disable_corrector": [],
    "solver_p": None,
}
_SIZE_KEYS = {  # JSON key of the dynamic shift's constants: field of DynamicShift
    "base_image_seq_len": "base_tokens",
    "max_image_seq_len": "max_tokens",
    "base_shift": "base_shift",
    "max_shift": "max_shift",
    "max_shift_factor": "max_factor",  # ours; absent unless set
}
_KNOWN = {"scheduler_type", "num_train_timesteps", "shift", "stages", "stage_range", "gamma", "use_dynamic_shifting"}
_KNOWN |= {"time_shift_type", *_FIXED, *_FIXED_MULTISTEP, *_SIZE_KEYS}


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """Everything a checkpoint says about its schedule.

    Args:
        solver: "unipc" (Base, Mid), "euler", or "distilled" (Distilled).
        stages: one resolution or a pyramid.
        shift: no, static or dynamic shift of the in-level sigmas.
    Raises: InputError for a solver that does not exist and for shifts that exclude each other.
    """

    solver: SolverKind
    stages: PyramidStages | SingleStage
    shift: Shift = NoShift()

    def __post_init__(self):
        if self.solver not in get_args(SolverKind):
            raise InputError(f"solver {self.solver!r} is unknown: use one of {', '.join(get_args(SolverKind))}")
        if isinstance(self.stages, PyramidStages) and isinstance(self.shift, StaticShift):
            raise InputError(
                f"a static shift of {self.shift.shift} acts on a pyramid's borders and not inside its levels: "
                "give it to PyramidStages as table_shift"
            )
        if isinstance(self.stages, PyramidStages) and self.stages.table_shift != 1 and self.shift != NoShift():
            raise InputError(f"table_shift={self.stages.table_shift} excludes a dynamic shift: use one of the two")

    @property
    def levels(self) -> int:
        """Resolution levels; 1 for Base, 3 for Mid and Distilled."""
        return self.stages.levels

    @property
    def num_train_timesteps(self) -> int:
        """Entries of a training table, 1000."""
        return self.stages.num_train_timesteps

    def level_schedule(self, level: int, steps: int, tokens: int, *, amplified: bool = False) -> LevelSchedule:
        """The points that one level of a chunk visits.

        Args:
            level: 0 is the coarsest.
            steps: network evaluations asked for, 1 or more.
            tokens: noisy video tokens that the dynamic shift is computed from. The published sampling takes the chunk
                as it is *before* the level enlarges it: the tokens of level - 1 for levels above 0, its own for
                level 0. Distillation training takes the level's own.
            amplified: twice the steps, for the first chunk of a distilled model, which has no history to lean on.
        Raises: InputError when an argument is out of range or a model that is not distilled is amplified.
        """
        if not 0 <= level < self.levels:
            raise InputError(f"level={level} does not exist: this checkpoint has levels 0 to {self.levels - 1}")
        if steps < 1:
            raise InputError(f"steps={steps} at level {level} denoises nothing: use 1 or more")
        if amplified and self.solver != "distilled":
            raise InputError(f"first-chunk amplification is for distilled models, this one runs {self.solver}")
        grid = self.stages.grid if self.solver != "distilled" else self.stages.distilled_grid
        table = grid(level, 2 * steps if amplified else steps).shifted(self.shift, tokens)
        return table.schedule(whole_timesteps=isinstance(self.stages, PyramidStages))

    def make_solver(self, schedule: LevelSchedule, start: Tensor | None = None) -> Solver:
        """A fresh solver for one level of one chunk.

        Args:
            schedule: from :meth:`level_schedule`.
            start: the level's first latents. The distilled solver needs them, the others leave them alone.
        """
        if self.solver == "unipc":
            return UniPCSolver(schedule)
        if self.solver == "euler":
            return EulerSolver(schedule)
        if start is None:
            raise ValueError("the distilled solver goes back to the level's start: pass start")
        return DistilledSolver(schedule, start)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "SchedulerConfig":
        """Read the ``scheduler_config.json`` of Diffusers' two Helios schedulers.

        The distilled solver is chosen by the class ``HeliosDMDScheduler`` or by ``scheduler_type`` "dmd"; the second
        occurs in files of the authors' own code, whose class is named ``HeliosScheduler`` throughout. The keys
        ``base_image_seq_len``, ``max_image_seq_len``, ``base_shift`` and ``max_shift`` are optional extras. Unknown
        keys are named in a warning and left out.

        Raises: InputError for another scheduler, for values that contradict each other, and for settings that Helios
            does not compute.
        """
        solver = _read_solver(config)
        _refuse_unsupported(config)
        stages, shift = _read_stages(config), _read_shift(config, solver)
        if isinstance(shift, StaticShift):
            stages, shift = _place_static_shift(stages, shift, _read_shift_kind(config, solver))
        unknown = sorted(key for key in config if not key.startswith("_") and key not in _KNOWN)
        if unknown:
            logger.warning("scheduler settings that Helios does not know are left out: %s", ", ".join(unknown))
        return cls(solver=solver, stages=stages, shift=shift)

    def to_dict(self) -> dict[str, Any]:
        """The ``scheduler_config.json`` that Diffusers' schedulers and ``from_dict`` read.

        A distilled model is written with its class *and* ``scheduler_type`` "dmd", by which other engines tell it.
        """
        distilled = self.solver == "distilled"
        config: dict[str, Any] = {
            "_class_name": _DISTILLED_CLASS if distilled else _MULTISTEP_CLASS,
            "num_train_timesteps": self.num_train_timesteps,
            **_written_stages(self.stages),
            **_FIXED,
            **({} if distilled else deepcopy(_FIXED_MULTISTEP)),
            "scheduler_type": "dmd" if distilled else self.solver,
        }
        return config | _written_shift(self.shift, config["shift"])


def _read_solver(config: Mapping[str, Any]) -> SolverKind:
    name, kind = config.get("_class_name"), config.get("scheduler_type")
    if name not in (_MULTISTEP_CLASS, _DISTILLED_CLASS):
        raise InputError(
            f"scheduler class {name!r} is not one of Helios': its scheduler_config.json must name "
            f"{_MULTISTEP_CLASS} or {_DISTILLED_CLASS}"
        )
    if name == _DISTILLED_CLASS:
        if kind not in (None, "dmd"):
            raise InputError(f"{_DISTILLED_CLASS} contradicts scheduler_type={kind!r}: write 'dmd' or remove the key")
        return "distilled"
    kinds: dict[str, SolverKind] = {"None": "unipc", "unipc": "unipc", "euler": "euler", "dmd": "distilled"}
    if str(kind) not in kinds:
        raise InputError(f"scheduler_type={kind!r} is unknown: use unipc, euler or dmd")
    return kinds[str(kind)]


def _refuse_unsupported(config: Mapping[str, Any]) -> None:
    for key, only in (_FIXED | _FIXED_MULTISTEP).items():
        if key in config and config[key] != only:
            raise InputError(f"scheduler setting {key}={config[key]!r} is not supported: the only value is {only!r}")


def _read_stages(config: Mapping[str, Any]) -> PyramidStages | SingleStage:
    """One stage leaves ``stage_range`` unread, as Diffusers does: its classes write the thirds by default."""
    count, timesteps = _integer(config, "stages", 3), _integer(config, "num_train_timesteps", TRAIN_TIMESTEPS)
    if count == 1:
        return SingleStage(num_train_timesteps=timesteps)
    stage_range = config.get("stage_range", PyramidStages.stage_range)
    if not isinstance(stage_range, list | tuple) or len(stage_range) != count + 1:
        raise InputError(f"stages={count} contradicts stage_range={stage_range!r}: it needs {count + 1} borders")
    borders = tuple(_number({"stage_range": border}, "stage_range", 0.0) for border in stage_range)
    return PyramidStages(stage_range=borders, gamma=_number(config, "gamma", 1 / 3), num_train_timesteps=timesteps)


def _read_shift(config: Mapping[str, Any], solver: SolverKind) -> Shift:
    static, dynamic = _number(config, "shift", 1.0), config.get("use_dynamic_shifting", False)
    if not isinstance(dynamic, bool):
        raise InputError(f"use_dynamic_shifting={dynamic!r} is not a yes or no: write true or false")
    if not dynamic:
        return NoShift() if static == 1 else StaticShift(shift=static)
    if static != 1:
        raise InputError(f"shift={static} contradicts use_dynamic_shifting=true: set shift to 1")
    given = [key for key in _SIZE_KEYS if config.get(key) is not None]
    constants: dict[str, Any] = {
        _SIZE_KEYS[key]: (_integer if "seq_len" in key else _number)(config, key, 0) for key in given
    }
    return DynamicShift(kind=_read_shift_kind(config, solver), **constants)


def _read_shift_kind(config: Mapping[str, Any], solver: SolverKind) -> Any:
    """``time_shift_type``, or the default of the class that wrote the file."""
    if config["_class_name"] == _DISTILLED_CLASS:
        return config.get("time_shift_type", "linear")
    if solver == "distilled" and "time_shift_type" not in config:
        raise InputError(
            "time_shift_type is missing and its default differs between versions of HeliosScheduler: write 'linear' "
            "(the published distilled model) or 'exponential'"
        )
    return config.get("time_shift_type", "exponential")


def _place_static_shift(
    stages: PyramidStages | SingleStage, shift: StaticShift, kind: str
) -> tuple[PyramidStages | SingleStage, Shift]:
    """A pyramid's static shift bends the table its borders come from, a single stage's bends the steps."""
    if isinstance(stages, PyramidStages):
        return replace(stages, table_shift=shift.shift), NoShift()
    if kind != "linear":
        raise InputError(
            f"shift={shift.shift} would be used as an exponent under time_shift_type {kind!r}: write 'linear' there"
        )
    return stages, shift


def _written_stages(stages: PyramidStages | SingleStage) -> dict[str, Any]:
    if isinstance(stages, SingleStage):
        return {"stages": 1, "stage_range": [0, 1], "gamma": 1 / 3, "shift": 1.0}
    return {
        "stages": stages.levels,
        "stage_range": list(stages.stage_range),
        "gamma": stages.gamma,
        "shift": stages.table_shift,
    }


def _written_shift(shift: Shift, table_shift: float) -> dict[str, Any]:
    """The shift's keys; constants of a dynamic shift only where they differ, because Diffusers warns about them."""
    if isinstance(shift, DynamicShift):
        default = DynamicShift(kind=shift.kind)
        changed = {key: getattr(shift, field) for key, field in _SIZE_KEYS.items()}
        changed = {key: value for key, value in changed.items() if value != getattr(default, _SIZE_KEYS[key])}
        return {"shift": table_shift, "use_dynamic_shifting": True, "time_shift_type": shift.kind, **changed}
    return {"shift": shift.factor(1) * table_shift, "use_dynamic_shifting": False, "time_shift_type": "linear"}


def _number(config: Mapping[str, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"scheduler setting {key}={value!r} is not a number: correct scheduler_config.json")
    return float(value)


def _integer(config: Mapping[str, Any], key: str, default: int) -> int:
    value = _number(config, key, default)
    if value != int(value) or value < 1:
        raise InputError(
            f"scheduler setting {key}={value} is not a whole number above 0: correct scheduler_config.json"
        )
    return int(value)
