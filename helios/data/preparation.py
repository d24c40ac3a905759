"""Encoding a plan into a data set. Killed at any moment, it goes on with the first file that is missing.

C channels, T latent frames, H W latent height and width.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helios.checkpoints import CheckpointInfo, load_prompt_encoder, load_vae
from helios.data.encode import WindowEncoder, text_states
from helios.data.look import Progress, Show
from helios.data.plan import CAPTIONS_PER_FILE, FORMAT, Plan, PlannedClip, size_in_words
from helios.data.shards import (
    INDEX,
    PLAN,
    caption_name,
    clip_path,
    latent_file,
    latents_name,
    read_meta,
    read_tensors,
    readable_json,
    remove_leftovers,
    stills_name,
    text_file,
    write_shard,
    write_whole,
)
from helios.data.sources import Skipped
from helios.data.windows import Window, clip_windows
from helios.device import default_dtype, resolve_device
from helios.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Part:
    """Which share of the files this run makes, when several machines with one file system make a data set together.

    Args:
        index: from 0.
        of: how many runs there are.
    Raises: InputError when the index is not among them.
    """

    index: int = 0
    of: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.of:
            raise InputError(f"part {self.index + 1} of {self.of} does not exist: count from 1 to {max(1, self.of)}")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run left on the disk.

    Attributes:
        complete: every file is there and the index is written; false while other parts are still at work.
        clips, chunks: in the finished files.
        skipped: videos, or the rest of videos, that are not among them.
    """

    complete: bool
    clips: int
    chunks: int
    skipped: tuple[Skipped, ...]


def earlier_plan(out: Path) -> str | None:
    """The plan that a folder was begun with; None for a new or empty folder.

    Raises: InputError when it holds other things.
    """
    if (out / PLAN).is_file():
        return (out / PLAN).read_text(encoding="utf-8")
    if out.exists() and not (out.is_dir() and all(entry.name.endswith(".part") for entry in out.iterdir())):
        raise InputError(f"{out} exists and is no data set: name a folder that is new or empty")
    return None


def prepare(
    plan: Plan,
    info: CheckpointInfo,
    out: str | Path,
    *,
    device: str | torch.device = "auto",
    workers: int = 2,
    part: Part = Part(),
    latents_per_part: int | None = None,
    show: Show = lambda progress: None,
) -> Result:
    """Encode what is not there yet.

    Two runs of one plan on one machine write the same bytes, however often they were killed in between. (Another
    device, or another ``latents_per_part``, rounds differently.)

    Args:
        plan: see :func:`helios.data.look.make_plan`.
        info: the checkpoint it was made for.
        out: folder of the data set.
        device: for the VAE and the text encoder.
        workers: videos decoded at the same time.
        part: which share of the files to make.
        latents_per_part: latent frames encoded at a time, for less memory; None for a whole window.
        show: called after every caption and chunk.
    Raises: InputError when there is not enough room, or nothing could be decoded; GenerationError when a file cannot
        be written.
    """
    out, device = Path(out), resolve_device(device)
    _begin(plan, out)
    run = _Run(plan=plan, info=info, out=out, device=device, part=part, show=show)
    run.text()
    run.clips(workers, latents_per_part)
    return _finish(plan, out)


def _begin(plan: Plan, out: Path) -> None:
    """Write the plan down, unless it is there, when what is missing fits on the disk.

    Raises: InputError when it does not.
    """
    earlier = earlier_plan(out)
    if earlier is not None and earlier != plan.to_json():
        raise InputError(f"{out} was begun with another plan: use another folder")
    if not (out / INDEX).is_file():
        _check_room(plan, out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {out} ({error.strerror}): choose another place") from error
    if earlier is None:
        write_whole(out / PLAN, plan.to_json().encode())


def _check_room(plan: Plan, out: Path) -> None:
    folder = next(place for place in (out.absolute(), *out.absolute().parents) if place.exists())
    there = sum(file.stat().st_size for file in out.rglob("*.safetensors"))
    free, needed = shutil.disk_usage(folder).free, plan.estimate.total + plan.working_bytes - there
    if needed > free:
        raise InputError(
            f"the data set needs {size_in_words(needed)} more and {folder} has {size_in_words(free)} free: make room, "
            "or store float16 latents"
        )


@dataclass(frozen=True, kw_only=True)
class _Run:
    plan: Plan
    info: CheckpointInfo
    out: Path
    device: torch.device
    part: Part
    show: Show

    def text(self) -> None:
        """Encode the captions of the files that are missing; the text encoder is in memory for that long."""
        missing = self._missing(len(self.plan.text_shards), text_file)
        if not missing:
            return
        encoder = load_prompt_encoder(self.info, self.device, default_dtype(self.device))
        dtype, done = getattr(torch, self.plan.config.text_dtype), 0
        total = sum(len(self.plan.text_shards[number]) for number in missing)
        for number in missing:
            tensors: dict[str, Tensor] = {}
            for caption in self.plan.text_shards[number]:
                tensors[caption_name(caption)] = text_states(encoder, caption, dtype)
                done += 1
                self.show(Progress(stage="text", done=done, total=total))
            write_shard(self.out / text_file(number), tensors, {"plan": self.plan.fingerprint})
            encoder.forget()

    def clips(self, workers: int, latents_per_part: int | None) -> None:
        """Encode the clips of the files that are missing; a clip that is done is kept while its file is not."""
        missing = self._missing(len(self.plan.shards), latent_file)
        if not missing:
            return
        todo = [clip for number in missing for clip in self.plan.shards[number] if self._meta(clip) is None]
        tell, encoder = self._tell(todo), self._encoder(latents_per_part)
        waiting = {clip.number for clip in todo}
        frames, fps = self.plan.geometry.chunk_frames, self.plan.config.fps
        windows = clip_windows(self.plan.root, todo, frames=frames, fps=fps, workers=workers)
        by_clip = groupby(windows, key=lambda window: window[0].number)
        try:
            for number in missing:
                for clip in self.plan.shards[number]:
                    if clip.number in waiting:
                        self._write_clip(clip, next(by_clip)[1], encoder, tell)
                self._join(number)
                for clip in self.plan.shards[number]:
                    clip_path(self.out, clip.number).unlink()
        finally:
            windows.close()

    def _encoder(self, latents_per_part: int | None) -> WindowEncoder:
        return WindowEncoder(
            vae=load_vae(self.info, self.device),
            geometry=self.plan.geometry,
            seed=self.plan.config.seed,
            latents_per_part=latents_per_part,
        )

    def _write_clip(self, clip: PlannedClip, windows: Iterator[Window], encoder: WindowEncoder, tell: "_Tell") -> None:
        tensors: dict[str, Tensor] = {}
        short: dict[int, tuple[int, str]] = {}
        latents, stills, failure = self._encode(clip, windows, encoder, tell)
        if failure is not None:
            kept = len(latents) if len(latents) >= self.plan.config.min_chunks else 0
            short[clip.number] = (kept, clip.video.source.reason(self.plan.root, failure))
            latents, stills = latents[:kept], stills[: max(0, kept - 1)]
        if latents:
            tensors[latents_name(clip.number)] = torch.cat(latents, dim=1)
        if stills:
            tensors[stills_name(clip.number)] = torch.cat(stills)
        write_shard(clip_path(self.out, clip.number), tensors, {"plan": self.plan.fingerprint, "short": short})

    def _join(self, number: int) -> None:
        """Make a file of its clips' own files."""
        tensors: dict[str, Tensor] = {}
        short: dict[str, tuple[int, str]] = {}
        for clip in self.plan.shards[number]:
            tensors |= read_tensors(clip_path(self.out, clip.number))
            short |= (self._meta(clip) or {})["short"]
        write_shard(self.out / latent_file(number), tensors, {"plan": self.plan.fingerprint, "short": short})

    def _meta(self, clip: PlannedClip) -> dict[str, Any] | None:
        """What is known of a clip's own file; None where there is none."""
        return read_meta(clip_path(self.out, clip.number), self.plan.fingerprint)

    def _encode(
        self, clip: PlannedClip, windows: Iterator[Window], encoder: WindowEncoder, tell: "_Tell"
    ) -> tuple[list[Tensor], list[Tensor], InputError | None]:
        """Latents and stills of a clip's windows, up to where its video cannot be decoded or encoded, and why."""
        latents: list[Tensor] = []
        stills: list[Tensor] = []
        source, dtype = clip.video.source, getattr(torch, self.plan.config.latent_dtype)
        for place, (_, window_FHWC) in enumerate(windows, clip.first_window):
            if isinstance(window_FHWC, InputError):
                return latents, stills, window_FHWC
            latents.append(encoder.latents(window_FHWC, source, place).to(dtype))
            if not latents[-1].isfinite().all():
                return latents[:-1], stills, InputError(f"its latents are not finite in {dtype}: use float32")
            if self.plan.config.stills and len(latents) < clip.chunks:
                stills.append(encoder.still(window_FHWC[-1], source, place).to(dtype))
            tell(clip, len(latents))
        return latents, stills, None

    def _tell(self, clips: list[PlannedClip]) -> "_Tell":
        before = dict(zip([clip.number for clip in clips], accumulate([clip.chunks for clip in clips], initial=0)))
        total = sum(clip.chunks for clip in clips)
        return lambda clip, done: self.show(Progress(stage="clips", done=before[clip.number] + done, total=total))

    def _missing(self, count: int, name: Callable[[int], str]) -> list[int]:
        """Numbers of this part's files that are not there yet."""
        own = range(self.part.index, count, self.part.of)
        return [number for number in own if read_meta(self.out / name(number), self.plan.fingerprint) is None]


_Tell = Callable[[PlannedClip, int], None]


def _finish(plan: Plan, out: Path) -> Result:
    """Write the index when all files are there.

    Raises: InputError when no clip could be decoded.
    """
    metas = [read_meta(out / latent_file(number), plan.fingerprint) for number in range(len(plan.shards))]
    texts = [read_meta(out / text_file(number), plan.fingerprint) for number in range(len(plan.text_shards))]
    complete = None not in metas and None not in texts
    short = {int(number): entry for meta in metas if meta for number, entry in meta["short"].items()}
    chunks = {clip.number: short.get(clip.number, (clip.chunks,))[0] for clip in plan.clips}
    made = [clip for shard, meta in zip(plan.shards, metas) if meta for clip in shard if chunks[clip.number]]
    skipped = (*plan.skipped, *(_rest(clip, *short[clip.number]) for clip in plan.clips if clip.number in short))
    if complete and not made:
        raise InputError(f"none of the {len(plan.clips)} clips could be decoded ({skipped[-1].reason})")
    if complete:
        write_whole(out / INDEX, readable_json(_index(plan, skipped, chunks)).encode())
        remove_leftovers(out)
    return Result(complete=complete, clips=len(made), chunks=sum(chunks[clip.number] for clip in made), skipped=skipped)


def _index(plan: Plan, skipped: tuple[Skipped, ...], chunks: Mapping[int, int]) -> dict[str, Any]:
    request, places = plan.request, {caption: place for place, caption in enumerate(plan.captions)}
    clips = [
        {
            "clip": clip.number,
            "latents": latent_file(number),
            "video": clip.video.source.file,
            "frames": _frames(clip, chunks[clip.number], plan.geometry.chunk_frames),
            "height": clip.video.size[0],
            "width": clip.video.size[1],
            "chunks": chunks[clip.number],
            "captions": [places[caption] for caption in clip.video.source.captions],
        }
        for number, shard in enumerate(plan.shards)
        for clip in shard
        if chunks[clip.number]
    ]
    return {
        "format": FORMAT,
        "plan": plan.fingerprint,
        **{key: request[key] for key in ("vae", "text_encoder", "geometry", "settings")},
        "captions": plan.captions,
        "captions_per_file": CAPTIONS_PER_FILE,
        "clips": clips,
        "skipped": [asdict(skip) for skip in skipped],
    }


def _frames(clip: PlannedClip, chunks: int, chunk_frames: int) -> list[int]:
    """First frame and end of a clip, counted at the planned rate from the start of the file."""
    first = clip.video.first + clip.first_window * chunk_frames
    return [first, first + chunks * chunk_frames]


def _rest(clip: PlannedClip, kept: int, reason: str) -> Skipped:
    """The chunks of a clip that could not be made."""
    first, last = clip.first_window + kept, clip.first_window + clip.chunks - 1
    return Skipped(name=f"{clip.video.source.name}, chunks {first} to {last}", reason=reason)
