"""Making the plan: every video is opened once, its length, size and captions are checked, and nothing is encoded."""

import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import av
import torch

from helios.checkpoints import CheckpointInfo, load_prompt_encoder
from helios.data.config import PrepareConfig
from helios.data.identity import identities
from helios.data.plan import FORMAT, Plan, PlannedVideo
from helios.data.sources import Found, Skipped, Source
from helios.errors import InputError
from helios.media.decode import open_video, timed_frames, unreadable
from helios.media.stream_info import probe
from helios.media.timing import frame_rate, nearest_in_time
from helios.models.text_encoder import clean_prompt
from helios.shapes import Geometry


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a preparation is.

    Attributes:
        stage: ``"look"`` (videos opened), ``"text"`` (captions encoded) or ``"clips"`` (chunks encoded).
        done, total: in the stage's own units.
    """

    stage: str
    done: int
    total: int


Show = Callable[[Progress], None]


def make_plan(
    found: Found,
    info: CheckpointInfo,
    config: PrepareConfig,
    *,
    earlier: str | None = None,
    workers: int = 2,
    show: Show = lambda progress: None,
) -> Plan:
    """Open every video once and decide what becomes of it.

    Args:
        found: videos and captions.
        info: the checkpoint whose VAE and text encoder will be used.
        earlier: the text of the plan that this data set was begun with; videos are then not opened again.
        workers: videos opened at the same time.
        show: called as it goes on.
    Raises: InputError when nothing can be used, a size does not suit the checkpoint, or the earlier plan was of other
        videos or settings.
    """
    config.buckets.check(info.geometry)
    request = _request(found, info, config)
    if earlier is None:
        facts = _facts(found, info, config, workers, show)
    else:
        facts = _earlier_facts(earlier, request)
    plan = Plan(
        root=found.root,
        config=config,
        geometry=info.geometry,
        request=request,
        videos=tuple(map(PlannedVideo.from_dict, facts["videos"])),
        skipped=tuple(Skipped(**skip) for skip in facts["skipped"]),
        text_tokens=facts["text_tokens"],
        text_width=info.text_encoder_config["d_model"],
    )
    if not plan.videos:
        reasons = "; ".join(f"{skip.name}: {skip.reason}" for skip in plan.skipped[:3])
        raise InputError(f"none of the {len(plan.skipped)} videos in {found.root} can be used ({reasons})")
    return plan


def _request(found: Found, info: CheckpointInfo, config: PrepareConfig) -> dict[str, Any]:
    """What was asked for and found: equal requests make equal data sets."""
    geometry, made_by = info.geometry, identities(info)
    files = [{**asdict(source), "bytes": (found.root / source.file).stat().st_size} for source in found.sources]
    request = {
        "settings": asdict(config),
        "vae": made_by.vae,
        "text_encoder": made_by.text_encoder if config.text else None,
        "geometry": {
            name: getattr(geometry, name) for name in ("spatial", "temporal", "latent_channels", "chunk_latent_frames")
        },
        "files": files,
        "left_out": [asdict(skip) for skip in found.skipped],
    }
    return json.loads(json.dumps(request))


def _earlier_facts(earlier: str, request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        plan = json.loads(earlier)
        begun = plan["request"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError("plan.json of the output folder is damaged: use another folder for the data set") from error
    if plan.get("format") != FORMAT:
        raise InputError(
            f"the output folder was begun in format {plan.get('format')}, this is {FORMAT}: use another folder"
        )
    changed = _difference(begun, request)
    if changed:
        raise InputError(f"the output folder was begun with {changed}: go on with the same, or use another folder")
    return plan


def _difference(begun: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """What differs first between two requests, in words; None for nothing."""
    for key, value in begun["settings"].items():
        if value != now["settings"].get(key):
            return f"{key}={_words(value)}, not {_words(now['settings'].get(key))}"
    for key, name in (("vae", "VAE"), ("text_encoder", "text encoder"), ("geometry", "geometry")):
        if begun[key] != now[key]:
            return f"another {name} ({_words(begun[key])}, not {_words(now[key])})"
    for key in ("files", "left_out"):
        if begun[key] != now[key]:
            count, other = len(begun[key]), next((f for f in now[key] if f not in begun[key]), None)
            named = "" if other is None else f", {other.get('file', other.get('name'))} is new or changed"
            return f"{count} other videos or captions ({len(now[key])} now{named})"
    return None


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _facts(found: Found, info: CheckpointInfo, config: PrepareConfig, workers: int, show: Show) -> dict[str, Any]:
    counted = _count_tokens(found.sources, info, config)
    usable, skipped = _with_usable_captions(found.sources, counted, config)
    videos, unsuitable = _look_at_all(found.root, usable, info.geometry, config, workers, show)
    used = {caption for video in videos for caption in video.source.captions}
    return {
        "videos": [asdict(video) for video in videos],
        "skipped": [asdict(skip) for skip in (*found.skipped, *skipped, *unsuitable)],
        "text_tokens": sum(count for caption, count in counted.items() if caption in used and isinstance(count, int)),
    }


def _count_tokens(
    sources: Iterable[Source], info: CheckpointInfo, config: PrepareConfig
) -> dict[str, int | InputError]:
    """Tokens of every cleaned caption, or why it cannot be encoded."""
    captions = {_clean(caption, config): None for source in sources for caption in source.captions}
    if not config.text:
        return dict.fromkeys(captions, 0)
    encoder = load_prompt_encoder(info, "cpu", torch.float32)
    counted: dict[str, int | InputError] = {}
    for caption in captions:
        try:
            counted[caption] = encoder.check(caption)
        except InputError as error:
            counted[caption] = error
    return counted


def _clean(caption: str, config: PrepareConfig) -> str:
    return clean_prompt(f"{config.prefix} {caption}")


def _with_usable_captions(
    sources: Iterable[Source], counted: Mapping[str, int | InputError], config: PrepareConfig
) -> tuple[list[Source], list[Skipped]]:
    """Sources with the captions that can be encoded, and those that have none of them."""
    usable, skipped = [], []
    for source in sources:
        cleaned = [_clean(caption, config) for caption in source.captions]
        kept = tuple(dict.fromkeys(caption for caption in cleaned if isinstance(counted[caption], int)))
        if kept:
            usable.append(replace(source, captions=kept))
        else:
            skipped.append(Skipped(name=source.name, reason=str(counted[cleaned[0]])))
    return usable, skipped


def _look_at_all(
    root: Path, sources: list[Source], geometry: Geometry, config: PrepareConfig, workers: int, show: Show
) -> tuple[list[PlannedVideo], list[Skipped]]:
    videos, skipped = [], []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        looks = pool.map(lambda source: _look(root, source, geometry, config), sources)
        for number, (source, look) in enumerate(zip(sources, looks), 1):
            if isinstance(look, PlannedVideo):
                videos.append(look)
            else:
                skipped.append(Skipped(name=source.name, reason=source.reason(root, look)))
            show(Progress(stage="look", done=number, total=len(sources)))
    return videos, skipped


def _look(root: Path, source: Source, geometry: Geometry, config: PrepareConfig) -> PlannedVideo | InputError:
    """One video's range and size, or why it cannot be used."""
    try:
        size = config.buckets.nearest(*_shown_size(root / source.file, source))
        first, end = _range(root / source.file, source, config.fps)
        if (end - first) // geometry.chunk_frames < config.min_chunks:
            rate = "" if config.fps is None else f" at {config.fps:g} fps"
            wanted = config.min_chunks * geometry.chunk_frames
            raise InputError(f"{max(0, end - first)} frames{rate} are too short: {wanted} are needed")
    except InputError as error:
        return error
    return PlannedVideo(source=source, first=first, frames=end - first, size=size)


def _shown_size(path: Path, source: Source) -> tuple[int, int]:
    """Height and width of the upright picture, or of its crop; needs the first frame, which says how it is turned."""
    height, width = next(timed_frames(path)).rgb().shape[:2]
    if source.crop is None:
        return height, width
    x0, x1, y0, y1 = source.crop
    if x1 > width or y1 > height:
        raise InputError(f"crop={list(source.crop)} leaves the {width} x {height} picture: give [x0, x1, y0, y1] in it")
    return y1 - y0, x1 - x0


def _range(path: Path, source: Source, fps: float | None) -> tuple[int, int]:
    """First frame and end of what is used, counted at ``fps``; None counts the file's own frames."""
    times = _packet_times(path)
    if fps is None:
        first, end = source.cut or (0, len(times))
        return first, min(end, len(times))
    total = sum(1 for _ in nearest_in_time(times, frame_rate(fps)))
    if source.cut is None:
        return 0, total
    ratio = frame_rate(fps) / frame_rate(source.fps or probe(path).fps)
    return ceil(source.cut[0] * ratio), min(total, ceil(source.cut[1] * ratio))


def _packet_times(path: Path) -> list[tuple[Fraction, Fraction, None]]:
    """(time, duration, nothing) of every frame in seconds, as decoding would give them."""
    with open_video(path) as (container, stream):
        usual = 1 / Fraction(stream.average_rate or stream.guessed_rate or 25)
        found: list[tuple[Fraction, Fraction]] = []
        try:
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard:
                    stamp = packet.dts if packet.pts is None else packet.pts
                    time = len(found) * usual if stamp is None else stamp * Fraction(packet.time_base)
                    found.append((time, packet.duration * Fraction(packet.time_base) if packet.duration else usual))
        except (av.FFmpegError, OSError) as error:
            raise unreadable(path, error) from error
    return [(time, duration, None) for time, duration in sorted(found)]
