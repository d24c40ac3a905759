"""Scoring one video: decode once, feed every metric, keep a record."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from helios.bench.frames.source import ClipError, ClipInfo, Frame, FrameSource
from helios.bench.metrics.base import Accumulator, Clip, Metric, Refused
from helios.bench.records import Measured, Record, load_record, save_record
from helios.bench.videos import Reading, Video
from helios.bench.vision import opencv

log = logging.getLogger(__name__)
_SHEET_ROW = 96


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to measure, the same for every video of a run; it travels to worker processes.

    Attributes:
        out: results folder; records and contact sheets go there.
        metrics: those that can run here.
        versions: by metric name, computed once for all workers.
        reading: how frames are read.
        sheet_frames: pictures on a contact sheet; 0 makes none.
        fresh: measure again what records hold already.
    """

    out: Path
    metrics: tuple[Metric, ...]
    versions: Mapping[str, str]
    reading: Reading = field(default_factory=Reading)
    sheet_frames: int = 8
    fresh: bool = False


def score_video(video: Video, order: Order) -> tuple[Record, bool]:
    """The record of a video, and whether nothing had to be measured because an earlier run had done so.

    A video that cannot be read has its reason under ``failures["clip"]``; a metric that refuses it, under its own name.
    """
    began = time.perf_counter()
    try:
        record = _earlier(video, order)
        waiting = [metric for metric in order.metrics if not _done(record, metric.name, order)]
        if not waiting:
            return record, True
        source = video.open(order.reading)
        record.info = asdict(source.info)
        _measure(video, source, waiting, order, record)
    except ClipError as error:
        record = Record(name=video.name, id=video.id, sha256="", reading="", failures={"clip": str(error)})
        log.warning("%s", error)
    record.seconds = round(time.perf_counter() - began, 3)
    save_record(order.out, record)
    return record, False


def _earlier(video: Video, order: Order) -> Record:
    """The stored record when it is of the same bytes, read the same way and for the same prompt; otherwise a new one."""
    key = f"{order.reading}|{video.prompt or ''}"
    fresh = Record(name=video.name, id=video.id, sha256=video.fingerprint(), reading=key)
    stored = None if order.fresh else load_record(order.out, video.name)
    if stored is None or (stored.sha256, stored.reading, stored.id) != (fresh.sha256, fresh.reading, fresh.id):
        return fresh
    stored.failures = {}
    stale = [name for name, found in stored.metrics.items() if order.versions.get(name, found.version) != found.version]
    for name in stale:
        del stored.metrics[name]
    return stored


def _done(record: Record, name: str, order: Order) -> bool:
    found = record.metrics.get(name)
    return found is not None and found.version == order.versions[name]


def _measure(video: Video, source: FrameSource, metrics: Sequence[Metric], order: Order, record: Record) -> None:
    clip = Clip(info=source.info, prompt=video.prompt, scene=video.scene)
    running = _begin(metrics, clip, record)
    sheet = ContactSheet(source.info, order.sheet_frames)
    for frame in source.frames():
        sheet.add(frame)
        for name in list(running):
            _guarded(name, lambda name=name, frame=frame: running[name].add(frame), running, record)
    for name, accumulator in list(running.items()):
        fields = _guarded(name, accumulator.finish, running, record)
        if fields is not None:
            record.metrics[name] = Measured(version=order.versions[name], fields=fields)
    sheet.write(order.out / "sheets" / f"{video.name}.jpg")


def _begin(metrics: Sequence[Metric], clip: Clip, record: Record) -> dict[str, Accumulator]:
    running: dict[str, Accumulator] = {}
    for metric in metrics:
        try:
            running[metric.name] = metric.begin(clip)
        except Refused as reason:
            _refuse(metric.name, reason, record)
    return running


def _guarded(name: str, act, running: dict[str, Accumulator], record: Record):
    """Run one step of a metric; a refusal ends that metric for this video and leaves the others alone."""
    try:
        return act()
    except Refused as reason:
        running.pop(name, None)
        _refuse(name, reason, record)
        return None


def _refuse(name: str, reason: Refused, record: Record) -> None:
    record.failures[name] = str(reason)
    log.warning("%s: %s: %s", record.name, name, reason)


class ContactSheet:
    """Evenly spaced small pictures of a clip side by side, as one JPEG."""

    def __init__(self, info: ClipInfo, count: int):
        places = np.linspace(0, info.num_frames - 1, max(0, min(count, info.num_frames)))
        self._wanted = set(places.astype(int).tolist())
        self._pictures: list[np.ndarray] = []

    def add(self, frame: Frame) -> None:
        if frame.index in self._wanted:
            height, width = frame.offline.shape[:2]
            size = (max(1, round(width * _SHEET_ROW / height)), _SHEET_ROW)
            self._pictures.append(opencv().resize(frame.offline, size, interpolation=opencv().INTER_AREA))

    def write(self, path: Path) -> None:
        if self._pictures:
            path.parent.mkdir(parents=True, exist_ok=True)
            strip = np.concatenate(self._pictures, 1)
            path.write_bytes(opencv().imencode(".jpg", opencv().cvtColor(strip, opencv().COLOR_RGB2BGR))[1].tobytes())
