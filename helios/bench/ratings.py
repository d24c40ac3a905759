"""Ratings from 1 to 10 and weighted totals.

A metric's mean over the videos of a model is clamped to [0, 1] and walks down nine thresholds: the first one met gives
10, 9, ... 2; none met gives 1. Basic metrics meet a threshold from above, drifting ones from below.

Two rule sets. ``OFFICIAL`` is the published one with its oddities: long-aesthetic ratings 3 and 2 can never be given,
naturalness skips .35, the long weights sum to 0.996. ``CORRECTED`` repairs these three and is always shown beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Literal

from helios.errors import InputError

Mode = Literal["short", "long"]
BASIC = ("aesthetic", "motion_amplitude", "motion_smoothness", "semantic", "naturalness")
DRIFTING = ("drifting_aesthetic", "drifting_motion_smoothness", "drifting_semantic", "drifting_naturalness")


@dataclass(frozen=True)
class Steps:
    """Nine thresholds for the ratings 10 to 2.

    Attributes:
        thresholds: in the order they are tried.
        lower_is_better: met by values at or below instead of at or above.
    """

    thresholds: tuple[float, ...]
    lower_is_better: bool = False

    def __post_init__(self):
        if len(self.thresholds) != 9:
            raise InputError(f"{len(self.thresholds)} thresholds given: pass 9, for the ratings 10 to 2")

    def rate(self, value: float) -> int:
        """The rating of a value, 1 to 10."""
        for place, threshold in enumerate(self.thresholds):
            if value <= threshold if self.lower_is_better else value >= threshold:
                return 10 - place
        return 1


def _falling(first: float, step: float) -> Steps:
    return Steps(tuple(round(first - i * step, 6) for i in range(9)))


def _rising(first: float, step: float) -> Steps:
    return Steps(tuple(round(first + i * step, 6) for i in range(9)), lower_is_better=True)


_AESTHETIC = _falling(0.70, 0.05)
_DRIFT = _rising(0.01, 0.01)
_SHORT_STEPS: dict[str, Steps] = {
    "aesthetic": _AESTHETIC,
    "motion_amplitude": _falling(0.45, 0.05),
    "motion_smoothness": _falling(0.99, 0.01),
    "semantic": _falling(0.30, 0.01),
    "naturalness": Steps((0.65, 0.60, 0.55, 0.50, 0.45, 0.40, 0.30, 0.25, 0.20)),
}
_LONG_STEPS: dict[str, Steps] = {
    **_SHORT_STEPS,
    "aesthetic": Steps((0.70, 0.65, 0.60, 0.55, 0.50, 0.45, 0.40, 0.45, 0.40)),
    "drifting_aesthetic": _DRIFT,
    "drifting_motion_smoothness": _DRIFT,
    "drifting_semantic": _DRIFT,
    "drifting_naturalness": _rising(0.06, 0.02),
}
_SHORT_WEIGHTS = dict(zip(BASIC, (0.10, 0.10, 0.10, 0.35, 0.35)))
_LONG_WEIGHTS = {**dict(zip(BASIC, (0.03, 0.03, 0.03, 0.255, 0.255))), **dict.fromkeys(DRIFTING, 0.099)}
_REPAIRED = {"aesthetic": _AESTHETIC, "naturalness": _falling(0.65, 0.05)}


@dataclass(frozen=True, kw_only=True)
class RuleSet:
    """Thresholds and weights of both sets of videos.

    Attributes:
        name: ``official`` or ``corrected``.
        steps, weights: by mode, then by metric.
        zero_is_missing: the published merge tool reads a basic mean of exactly 0 as missing.
    """

    name: str
    steps: Mapping[Mode, Mapping[str, Steps]]
    weights: Mapping[Mode, Mapping[str, float]]
    zero_is_missing: bool

    def metrics(self, mode: Mode) -> tuple[str, ...]:
        """Names of the metrics that a mode counts, in table order."""
        if mode not in self.weights:
            raise InputError(f"mode={mode!r} is unknown: use short or long")
        return tuple(self.weights[mode])

    def rate(self, metric: str, value: float, mode: Mode) -> int:
        """The rating of a model-level mean, clamped to [0, 1] first."""
        return self.steps[mode][metric].rate(normalised(value))

    def total(self, ratings: Mapping[str, int], mode: Mode) -> float:
        """Weighted sum, rounded to 4 places; a metric that is not there adds nothing."""
        return round(sum(weight * ratings.get(name, 0) for name, weight in self.weights[mode].items()), 4)


OFFICIAL = RuleSet(
    name="official",
    steps={"short": _SHORT_STEPS, "long": _LONG_STEPS},
    weights={"short": _SHORT_WEIGHTS, "long": _LONG_WEIGHTS},
    zero_is_missing=True,
)
CORRECTED = RuleSet(
    name="corrected",
    steps={"short": {**_SHORT_STEPS, **_REPAIRED}, "long": {**_LONG_STEPS, **_REPAIRED}},
    weights={
        "short": _SHORT_WEIGHTS,
        "long": {name: weight / sum(_LONG_WEIGHTS.values()) for name, weight in _LONG_WEIGHTS.items()},
    },
    zero_is_missing=False,
)


def normalised(value: float) -> float:
    """Clamp to [0, 1], the range of every metric."""
    return min(1.0, max(0.0, value))


ThroughputRule = Literal["official", "paper-table"]


def rate_throughput(fps: float, rule: ThroughputRule = "official") -> int:
    """Rating of a throughput in frames per second.

    ``official`` is the documented formula: 1 up to 3.2, then ceil(fps / 3.2), 10 from 32 up. ``paper-table`` rounds to
    nearest instead, which is what the paper's own table shows for 19.53 FPS (6 where the formula gives 7).
    """
    if fps <= 3.2:
        return 1
    if rule not in ("official", "paper-table"):
        raise InputError(f"throughput rule {rule!r} is unknown: use official or paper-table")
    places = ceil(fps / 3.2) if rule == "official" else int(fps / 3.2 + 0.5)
    return min(10, max(1, places))


def total_with_throughput(total: float, throughput_rating: int) -> float:
    """The published long ``Total``: the weighted sum plus a tenth of the throughput rating (inferred from tables)."""
    return round(total + 0.1 * throughput_rating, 4)


# --- offline tier: our own thresholds, set on the benchmark's two reference clips (docs/heliosbench.md) ---------------

DRIFT_STEPS: dict[str, Steps] = {
    "lab_shift": _rising(0.03, 0.02),
    "hist_drift": _rising(0.10, 0.06),
    "drift_sharpness": _rising(0.15, 0.10),
    "drift_noise": _rising(0.002, 0.003),
    "drift_saturation": _rising(0.04, 0.04),
    "layout_drift": _rising(0.03, 0.015),
    "drift_smoothness_dis": _DRIFT,
}
OFFLINE_STEPS: dict[str, Steps] = {
    **DRIFT_STEPS,
    "smoothness_dis": _SHORT_STEPS["motion_smoothness"],
    "seam_max": Steps((1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0, 4.0, 6.0), lower_is_better=True),
    "flicker": Steps((0.004, 0.006, 0.008, 0.010, 0.015, 0.020, 0.025, 0.030, 0.040), lower_is_better=True),
    "freeze_frac": Steps((0.02, 0.05, 0.10, 0.15, 0.20, 0.30, 0.40, 0.50, 0.60), lower_is_better=True),
    "repeat_ratio": Steps((0.60, 0.55, 0.50, 0.45, 0.40, 0.35, 0.30, 0.20, 0.10)),
    "all_acc": Steps((0.99, 0.95, 0.90, 0.80, 0.70, 0.60, 0.50, 0.35, 0.20)),
}


def rate_offline(values: Mapping[str, float]) -> dict[str, int]:
    """Ratings of the offline values that have thresholds."""
    return {
        name: steps.rate(float(values[name])) for name, steps in OFFLINE_STEPS.items() if values.get(name) is not None
    }


def offline_drift(ratings: Mapping[str, int]) -> float | None:
    """Half the mean plus half the minimum of the seven drift ratings; None unless all seven are there.

    The minimum keeps one collapsed statistic from being averaged away.
    """
    if any(name not in ratings for name in DRIFT_STEPS):
        return None
    seven = [ratings[name] for name in DRIFT_STEPS]
    return round(0.5 * sum(seven) / len(seven) + 0.5 * min(seven), 4)


def offline_total(ratings: Mapping[str, int]) -> float | None:
    """A project number for toy-world models, with no published counterpart; None unless all parts are there.

    .40 caption accuracy + .30 offline drift + .15 smoothness + .15 worst seam, all as ratings.
    """
    drift = offline_drift(ratings)
    if drift is None or any(name not in ratings for name in ("all_acc", "smoothness_dis", "seam_max")):
        return None
    weighted = 0.40 * ratings["all_acc"] + 0.30 * drift + 0.15 * ratings["smoothness_dis"] + 0.15 * ratings["seam_max"]
    return round(weighted, 4)
