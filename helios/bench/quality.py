"""The quality run: videos or a model in, records, result files and a merged summary out.

    outcome = run(from_folder("videos/my-model", prompts), QualityConfig(out=Path("scores/my-model"), prompts=prompts))

A second run with the same settings measures only what is new: a record is kept per video under its fingerprint, reading
and metric versions. Files are scored by one process per core, each with one thread; a model is driven in this process.
"""

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from helios.bench.frames.opening import source_class
from helios.bench.judge import JudgeConfig
from helios.bench.merge import merge_folder
from helios.bench.metrics.base import Metric
from helios.bench.metrics.motion import MotionAmplitude
from helios.bench.metrics.suite import TierChoice, official_metrics, offline_metrics, runnable, select
from helios.bench.networks import weights as weight_files
from helios.bench.networks.weights import NoWeights, WeightStore
from helios.bench.prompts import PromptSet
from helios.bench.ratings import Mode
from helios.bench.records import Record
from helios.bench.results import RunFacts, write_results
from helios.bench.scoring import Order, score_video
from helios.bench.videos import FileVideo, Listing, Reading, VideoMaker
from helios.bench.vision import one_thread, use_one_thread
from helios.errors import GenerationError, InputError

log = logging.getLogger(__name__)

State = Literal["scored", "kept", "failed"]

__all__ = ["Outcome", "Progress", "QualityConfig", "VideoMaker", "run"]


@dataclass(frozen=True, kw_only=True)
class QualityConfig:
    """Settings of a quality run.

    Args:
        out: results folder, one per model.
        mode: ``long`` measures the drifting forms too and rates with the long tables; ``short`` does not.
        tier: ``official``, ``offline`` or ``all``. Official motion amplitude needs no weights; by name it can be added to
            the offline tier.
        metrics: names to restrict the tier to; None takes all.
        prompts: texts by id; without them *semantic* is missing.
        weights: where the official networks' weights are.
        judge: the vision-language judge; None leaves *naturalness* missing.
        device: for the networks.
        reading: decoder, size rule, chunk length.
        workers: processes for files; 0 takes one per core. Every process loads its own networks: use 1 with an
            accelerator.
        allow_partial: print totals although metrics are missing or videos failed.
        rules: ``official`` keeps the published behaviour for clips that are too short (amplitude 0); ``corrected``
            refuses them by name. Both rating rules are always computed.
        sheet_frames: pictures on a video's contact sheet, 0 for none.
        fresh: measure again what earlier runs measured.
    """

    out: Path
    mode: Mode = "long"
    tier: TierChoice = "all"
    metrics: tuple[str, ...] | None = None
    prompts: PromptSet | None = None
    weights: WeightStore = field(default_factory=NoWeights)
    judge: JudgeConfig | None = None
    device: str = "auto"
    reading: Reading = field(default_factory=Reading)
    workers: int = 0
    allow_partial: bool = False
    rules: Literal["official", "corrected"] = "corrected"
    sheet_frames: int = 8
    fresh: bool = False

    def __post_init__(self):
        choices = {
            "mode": ("short", "long"),
            "tier": ("official", "offline", "all"),
            "rules": ("official", "corrected"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"{name}={getattr(self, name)!r} is unknown: use {' or '.join(allowed)}")
        if self.workers < 0 or self.sheet_frames < 0:
            raise InputError(f"workers={self.workers}, sheet_frames={self.sheet_frames}: pass 0 or more")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Sent after every video.

    Attributes:
        done, total: videos so far and altogether.
        name: the video.
        state: ``scored``, ``kept`` (an earlier run's record) or ``failed``.
        message: the reasons, when it failed.
    """

    done: int
    total: int
    name: str
    state: State
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run did.

    Attributes:
        scored, kept: videos measured now, and taken from records.
        failed: reason by video; skipped: reason by file that was left out; missing: reason by metric that could not run.
        merged: the content of ``merged_results.json``.
    """

    out: Path
    scored: int
    kept: int
    failed: dict[str, str]
    skipped: dict[str, str]
    missing: dict[str, str]
    merged: dict[str, Any]

    @property
    def exit_code(self) -> int:
        """0 when every video was scored by every metric that could run; 1 when something failed or was left out."""
        return 1 if self.failed or self.skipped else 0


def run(listing: Listing, config: QualityConfig, progress: Callable[[Progress], None] | None = None) -> Outcome:
    """Score videos and write ``records/``, ``sheets/``, ``*_results.json`` and ``merged_results.json`` into ``config.out``.

    Raises: InputError when no metric can run or a weight file cannot be used.
    """
    for name, reason in listing.skipped:
        log.warning("%s: left out: %s", name, reason)
    source_class(config.reading.backend)
    able, missing = _suite(listing, config)
    config.out.mkdir(parents=True, exist_ok=True)
    order = Order(
        out=config.out,
        metrics=able,
        versions={metric.name: metric.version for metric in able},
        reading=config.reading,
        sheet_frames=config.sheet_frames,
        fresh=config.fresh,
    )
    records, kept = _score_all(listing, order, config.workers, progress)
    facts = _facts(able, missing, records, listing, config)
    write_results(config.out, records, facts)
    return Outcome(
        out=config.out,
        scored=sum(not record.failures for record in records) - kept,
        kept=kept,
        failed={record.name: "; ".join(record.failures.values()) for record in records if record.failures},
        skipped=dict(listing.skipped),
        missing=missing,
        merged=merge_folder(config.out, mode=config.mode, allow_partial=config.allow_partial),
    )


def _suite(listing: Listing, config: QualityConfig) -> tuple[tuple[Metric, ...], dict[str, str]]:
    asked: tuple[Metric, ...] = ()
    threads = max(1, _cores() // _processes(listing, config.workers))
    if config.tier != "offline":
        asked += official_metrics(
            weights=config.weights,
            judge=config.judge,
            device=config.device,
            with_drift=config.mode == "long",
            zero_when_too_short=config.rules == "official",
            threads=threads,
        )
    if config.tier != "official":
        known = {metric.name for metric in asked}
        captions = any(video.scene is not None for video in listing.videos)
        asked += tuple(metric for metric in offline_metrics(captions=captions) if metric.name not in known)
        if not known and "motion_amplitude" in (config.metrics or ()):
            asked += (MotionAmplitude(threads=threads),)
    able, missing = runnable(select(asked, config.metrics))
    if "semantic" not in missing and all(video.prompt is None for video in listing.videos):
        missing |= {metric.name: "needs prompts: pass a prompt table" for metric in able if metric.name == "semantic"}
        able = tuple(metric for metric in able if metric.name not in missing)
    if not able:
        raise InputError(f"none of the metrics can run: {'; '.join(f'{k} {v}' for k, v in missing.items())}")
    return able, missing


def _score_all(
    listing: Listing, order: Order, workers: int, progress: Callable[[Progress], None] | None
) -> tuple[list[Record], int]:
    found: dict[str, Record] = {}
    kept = 0
    for record, was_kept in _scored(listing, order, workers):
        found[record.name] = record
        kept += was_kept
        if progress is not None:
            state: State = "failed" if record.failures else "kept" if was_kept else "scored"
            reasons = "; ".join(record.failures.values())
            total = len(listing.videos)
            progress(Progress(done=len(found), total=total, name=record.name, state=state, message=reasons))
    return [found[video.name] for video in listing.videos], kept


def _scored(listing: Listing, order: Order, workers: int) -> Iterator[tuple[Record, bool]]:
    """Records in the order they get ready."""
    processes = _processes(listing, workers)
    if processes == 1:
        with one_thread():
            for video in listing.videos:
                yield score_video(video, order)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=use_one_thread) as pool:
        futures = [pool.submit(score_video, video, order) for video in listing.videos]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise GenerationError("a worker process died, most likely for want of memory: use fewer workers") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _cores() -> int:
    return os.cpu_count() or 1


def _processes(listing: Listing, workers: int) -> int:
    """Files go to one process per core unless told otherwise; a model lives in this process."""
    if not all(isinstance(video, FileVideo) for video in listing.videos):
        return 1
    return max(1, min(workers or _cores(), len(listing.videos)))


def _facts(
    able: tuple[Metric, ...], missing: dict[str, str], records: list[Record], listing: Listing, config: QualityConfig
) -> RunFacts:
    sizes: dict[str, int] = {}
    for record in records:
        if record.info:
            size = f"{record.info['height']}x{record.info['width']}"
            sizes[size] = sizes.get(size, 0) + 1
    backends = sorted({record.info["backend"] for record in records if record.info})
    return RunFacts(
        asked=tuple(metric.name for metric in able),
        missing=missing,
        facts={
            "model": listing.model,
            "mode": config.mode,
            "frames_backend": "+".join(backends),
            "frame_sizes": sizes,
            "prompts": config.prompts.name if config.prompts else "",
            "prompts_sha256": config.prompts.sha256 if config.prompts else "",
            "num_skipped": len(listing.skipped),
            "skipped": dict(listing.skipped),
        },
        per_metric=_per_metric(able, config),
    )


def _per_metric(able: tuple[Metric, ...], config: QualityConfig) -> dict[str, dict[str, Any]]:
    """Weights' hashes, device and judge, for the files of the metrics that used them."""
    from helios.bench.metrics.networked import dtype_for
    from helios.device import resolve_device

    device = resolve_device(config.device)
    facts: dict[str, dict[str, Any]] = {}
    for metric in able:
        used = [file for file in weight_files.ALL_FILES if metric.name in file.needs]
        if used:
            dtype = dtype_for(device) if metric.name == "aesthetic" else "torch.float32"
            facts[metric.name] = {
                "weights_sha256": {file.paths[0]: weight_files.sha256(config.weights.find(file)) for file in used},
                "device": str(device),
                "dtype": str(dtype).removeprefix("torch."),
            }
        if metric.name == "naturalness" and config.judge:
            facts[metric.name] = {
                "model_name": config.judge.model,
                "num_frames_per_video": 16,
                "instruction": "official" if config.judge.official_instruction else "helios",
                "official_judge": config.judge.official,
            }
    return facts
