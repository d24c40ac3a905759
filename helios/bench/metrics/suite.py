"""Which metrics a run asks for, and which of them can run here."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from helios.bench.judge import JudgeConfig
from helios.bench.metrics.base import Metric, Unavailable
from helios.bench.networks.weights import NoWeights, WeightStore
from helios.errors import InputError

TierChoice = Literal["official", "offline", "all"]


def official_metrics(
    *,
    weights: WeightStore | None = None,
    judge: JudgeConfig | None = None,
    device: str = "auto",
    with_drift: bool = True,
    zero_when_too_short: bool = False,
    threads: int = 1,
) -> tuple[Metric, ...]:
    """The five official metrics; ``with_drift`` adds the four drifting forms to those that have one."""
    from helios.bench.metrics.aesthetic import Aesthetic
    from helios.bench.metrics.interpolation import MotionSmoothness
    from helios.bench.metrics.motion import MotionAmplitude
    from helios.bench.metrics.naturalness import Naturalness
    from helios.bench.metrics.semantic import Semantic

    common: dict[str, Any] = {"weights": weights or NoWeights(), "device": device, "with_drift": with_drift}
    return (
        Aesthetic(**common),
        MotionAmplitude(zero_when_too_short=zero_when_too_short, threads=threads),
        MotionSmoothness(**common),
        Semantic(**common),
        Naturalness(judge=judge, with_drift=with_drift),
    )


def offline_metrics(*, captions: bool = False) -> tuple[Metric, ...]:
    """The offline tier; ``captions`` adds the exact check of toy-world clips.

    Official motion amplitude needs no weights either, but it enlarges small clips to the benchmark's size, which costs
    ten times as much as all of this together: it belongs to the official tier and can be asked for by name.
    """
    from helios.bench.metrics.drift import Drift
    from helios.bench.metrics.repeats import Repeats
    from helios.bench.metrics.smoothness import SmoothnessDis
    from helios.bench.metrics.temporal import Temporal

    chosen = (SmoothnessDis(), Drift(), Temporal(), Repeats())
    if not captions:
        return chosen
    from helios.bench.metrics.captions import Captions

    return (*chosen, Captions())


def select(metrics: Iterable[Metric], names: Sequence[str] | None) -> tuple[Metric, ...]:
    """Metrics by name, each once; all when ``names`` is None. Raises: InputError for a name that is not there."""
    by_name = {metric.name: metric for metric in metrics}
    if names is None:
        return tuple(by_name.values())
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise InputError(f"metric {unknown[0]!r} is not in this tier: choose from {', '.join(by_name)}")
    return tuple(by_name[name] for name in dict.fromkeys(names))


def runnable(metrics: Iterable[Metric]) -> tuple[tuple[Metric, ...], dict[str, str]]:
    """Metrics that can run here, and the reason for each that cannot.

    Raises: InputError when a weight file is there and cannot be used: that is a mistake, not a missing metric.
    """
    able, missing = [], {}
    for metric in metrics:
        try:
            metric.check()
        except Unavailable as reason:
            missing[metric.name] = str(reason)
        else:
            able.append(metric)
    return tuple(able), missing
