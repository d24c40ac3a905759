"""From the result files of one model to ratings and totals: ``merged_results.json``.

The ``summary`` block has the published layout and rules. Beside it stand the corrected rules, the offline tier, and
whether the total may be called official.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from helios.bench.prompts import OFFICIAL_COUNT
from helios.bench.prompts import OFFICIAL_SHA256 as OFFICIAL_PROMPTS
from helios.bench.ratings import (
    BASIC,
    CORRECTED,
    OFFICIAL,
    Mode,
    RuleSet,
    ThroughputRule,
    normalised,
    rate_throughput,
    total_with_throughput,
)
from helios.bench.records import write_json
from helios.bench.results import OFFLINE_FILE
from helios.errors import InputError

log = logging.getLogger(__name__)
MERGED_FILE = "merged_results.json"
RATING_SCALE = 10
_SUFFIX = "_results.json"


@dataclass(frozen=True, kw_only=True)
class MetricMean:
    """A metric's mean over the videos of a model, read from a result file.

    Attributes:
        value: the mean; None when the file has none.
        facts: the file's other top-level entries.
    """

    name: str
    value: float | None
    num_videos: int
    num_failed: int
    facts: Mapping[str, Any]

    def counts(self, rules: RuleSet) -> bool:
        """Whether the rules see a score here; the published ones read a basic mean of exactly 0 as missing."""
        zero = self.value == 0 and self.name in BASIC
        return self.value is not None and not (zero and rules.zero_is_missing)


def read_means(folder: str | Path) -> dict[str, MetricMean]:
    """Every ``*_results.json`` of a folder by metric name; files that are no result files are logged and left out.

    Raises: InputError when the folder is not there or a result file cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"results folder {str(folder)!r} is not a folder: pass one that holds *{_SUFFIX}")
    found = {}
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        name = path.name.removesuffix(_SUFFIX)
        if path.name in (MERGED_FILE, OFFLINE_FILE):
            continue
        if name not in OFFICIAL.metrics("long"):
            log.warning("%s: not a metric of the benchmark, left out", path.name)
            continue
        found[name] = _mean(name, _read(path))
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a result file ({error}); score the videos again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a result file; score the videos again")
    return content


def _mean(name: str, content: dict[str, Any]) -> MetricMean:
    value = content.get("average_score", content.get("average_drift_score"))
    rows = content.get("per_video_results", [])
    lengths = [row["flow_mag"] for row in rows if "flow_mag" in row]
    if lengths:
        content = {**content, "flow_mag": fmean(lengths)}
    return MetricMean(
        name=name,
        value=float(value) if isinstance(value, (int, float)) else None,
        num_videos=int(content.get("num_videos", len(rows))),
        num_failed=int(content.get("num_failed", 0)),
        facts={key: item for key, item in content.items() if key != "per_video_results"},
    )


def merge_folder(
    folder: str | Path,
    *,
    mode: Mode = "long",
    allow_partial: bool = False,
    throughput_fps: float | None = None,
    throughput_rule: ThroughputRule = "official",
) -> dict[str, Any]:
    """Rate, weigh and write ``merged_results.json``.

    Args:
        mode: which thresholds and weights.
        allow_partial: print totals although metrics are missing or videos failed; a missing metric adds nothing.
        throughput_fps: frames per second at 384x640; adds the long ``Total`` with its throughput term.
    Returns: the content of the file.
    Raises: InputError for a folder without results or an unreadable file.
    """
    folder = Path(folder)
    means = read_means(folder)
    offline = _read(folder / OFFLINE_FILE) if (folder / OFFLINE_FILE).is_file() else None
    if not means and offline is None:
        raise InputError(f"{folder}: holds no *{_SUFFIX}; run the benchmark into it first")
    merged = merge(means, mode=mode, allow_partial=allow_partial)
    if throughput_fps is not None:
        merged["throughput"] = _throughput(merged["summary"]["total_weighted_rating"], throughput_fps, throughput_rule)
    if offline is not None:
        merged["offline"] = _offline(offline, allow_partial)
    write_json(folder / MERGED_FILE, merged)
    return merged


def merge(means: Mapping[str, MetricMean], *, mode: Mode, allow_partial: bool = False) -> dict[str, Any]:
    """The merged content of some means; see :func:`merge_folder`."""
    blocking = _blocking(means, mode)
    official, corrected = (_summary(means, mode, rules) for rules in (OFFICIAL, CORRECTED))
    reasons = blocking + _unofficial(means, mode)
    if blocking and not allow_partial:
        official["total_weighted_rating"] = corrected["total_weighted_rating"] = None
    if reasons:
        log.info("the total is partial: %s", "; ".join(reasons))
    amplitude = means.get("motion_amplitude")
    return {
        "rating_scale": RATING_SCALE,
        "mode": mode,
        "summary": official,
        "per_video": {},
        "total_status": "partial" if reasons else "official",
        "partial_because": reasons,
        "corrected": corrected,
        "motion": _true_motion(amplitude) if amplitude else None,
    }


def _summary(means: Mapping[str, MetricMean], mode: Mode, rules: RuleSet) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = {}
    for name in rules.metrics(mode):
        mean = means.get(name)
        if mean is not None and mean.value is not None and mean.counts(rules):
            rows[name] = {
                "name": name.replace("_", " ").title(),
                "raw_score": mean.value,
                "normalized_score": normalised(mean.value),
                "rating": rules.rate(name, mean.value, mode),
                "num_videos": mean.num_videos,
            }
    return {
        "non_drifting": {name: row for name, row in sorted(rows.items()) if name in BASIC},
        "drifting": {name: row for name, row in sorted(rows.items()) if name not in BASIC},
        "total_weighted_rating": rules.total({name: row["rating"] for name, row in rows.items()}, mode),
    }


def _blocking(means: Mapping[str, MetricMean], mode: Mode) -> list[str]:
    """Reasons that forbid a total unless it is asked for."""
    missing = [name for name in OFFICIAL.metrics(mode) if name not in means or means[name].value is None]
    zero = [name for name, mean in means.items() if mean.value == 0 and not mean.counts(OFFICIAL)]
    failed = {name: mean.num_failed for name, mean in means.items() if mean.num_failed}
    reasons = [f"{name} is missing" for name in missing]
    reasons += [f"{name} is exactly 0, which the published merge reads as missing" for name in zero]
    return reasons + [f"{count} videos failed in {name}" for name, count in failed.items()]


def _unofficial(means: Mapping[str, MetricMean], mode: Mode) -> list[str]:
    """Reasons why a complete total is still not comparable with published ones."""
    reasons = []
    counted = [means[name] for name in OFFICIAL.metrics(mode) if name in means]
    fewest = min((mean.num_videos for mean in counted), default=0)
    if fewest != OFFICIAL_COUNT:
        reasons.append(f"{fewest} of {OFFICIAL_COUNT} videos are scored")
    if any(mean.facts.get("prompts_sha256") != OFFICIAL_PROMPTS for mean in counted):
        reasons.append("the prompts are not the published CSV")
    backends = {str(mean.facts.get("frames_backend", "official")) for mean in counted}
    if backends - {"official"}:
        reasons.append(f"frames were read with {', '.join(sorted(backends - {'official'}))}")
    judged = means.get("naturalness")
    if judged and not judged.facts.get("official_judge", judged.facts.get("tool_version") is None):
        reasons.append("judge or instruction is not the published one")
    return reasons


def _throughput(total: float | None, fps: float, rule: ThroughputRule) -> dict[str, Any]:
    rating = rate_throughput(fps, rule)
    with_term = None if total is None else total_with_throughput(total, rating)
    return {"fps": fps, "rule": rule, "rating": rating, "total_with_throughput": with_term}


def _true_motion(amplitude: MetricMean) -> dict[str, Any]:
    """The signed official mean, in which opposite motions cancel, beside the true mean length of the flow."""
    return {"signed_mean": amplitude.value, "flow_mag": amplitude.facts.get("flow_mag"), "unit": "px/frame at 640 wide"}


def _offline(content: dict[str, Any], allow_partial: bool) -> dict[str, Any]:
    reasons = []
    if content.get("num_failed"):
        reasons.append(f"{content['num_failed']} videos failed")
    if len(content.get("frame_sizes", {})) > 1:
        reasons.append(f"frame sizes are mixed: {', '.join(content['frame_sizes'])}")
    keys = ("num_videos", "averages", "ratings", "offline_drift", "offline_total")
    kept = {key: content.get(key) for key in keys}
    if reasons and not allow_partial:
        kept["offline_total"] = kept["offline_drift"] = None
    return {**kept, "partial_because": reasons}
