"""What ``generate`` and ``resume`` share: reading a recorded run, writing chunks as they come, reporting the result."""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from helios.cli.options import parse_accelerations, parse_approximations, parse_decoding
from helios.cli.progress import Quiet, reporter
from helios.cli.room import check_room
from helios.errors import InputError

if TYPE_CHECKING:
    from helios.checkpoints import CheckpointInfo
    from helios.engine.acceleration import Acceleration
    from helios.engine.approximation import Approximation
    from helios.engine.pace import Pace
    from helios.engine.pipeline import Helios
    from helios.engine.precision import Precision
    from helios.engine.prepare import Prepared
    from helios.engine.request import Request
    from helios.engine.session import Decoding, PixelFormat, Session
    from helios.engine.state import SessionState
    from helios.engine.video import Chunk

Opener = Callable[[Quiet, "PixelFormat"], "Session"]


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where the video goes; checked before anything is loaded."""

    path: str
    as_float: bool
    force: bool

    @staticmethod
    def checked(path: str, *, as_float: bool, force: bool) -> "Output":
        """Raises: InputError when the file exists, its ending is unknown, or floats are asked for outside .npy."""
        from helios.media import check_output

        if as_float and not path.endswith(".npy"):
            raise InputError(f"--float writes float32 frames, which {path} cannot hold: use a name ending in .npy")
        check_output(path, overwrite=force)
        return Output(path=path, as_float=as_float, force=force)


@dataclass(frozen=True, kw_only=True)
class Outlet:
    """What happens to the chunks of a run, and how it is reported."""

    output: Output
    session_file: Path | None
    quiet: bool
    as_json: bool

    @staticmethod
    def checked(output: Output, session_file: Path | None, *, quiet: bool, as_json: bool) -> "Outlet":
        """Raises: InputError when the state of the stream cannot be kept where it was asked for."""
        from helios.engine.state import check_session_file

        if session_file is not None:
            if Path(output.path).absolute() == session_file.absolute():
                raise InputError(f"the video and the session file are both {session_file}: give them different names")
            check_session_file(session_file, overwrite=output.force)
        return Outlet(output=output, session_file=session_file, quiet=quiet, as_json=as_json)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How the model is loaded and run; checked before anything is read."""

    device: str
    dtype: str
    vae_dtype: str | None
    accelerations: "tuple[Acceleration, ...]"
    approximations: "tuple[Approximation, ...] | None"
    decoding: "Decoding"
    pace: "Pace"
    anyway: bool

    @staticmethod
    def checked(
        *,
        device: str,
        dtype: str,
        vae_dtype: str | None,
        accelerate: str | None,
        approximate: str | None,
        decode: str,
        ahead: bool,
        anyway: bool,
    ) -> "Setup":
        """Raises: InputError for a device, precision, way of computing or way of decoding that is not here."""
        from helios.device import resolve_device
        from helios.engine.pace import DecodeAhead, InTurn
        from helios.engine.pipeline import parse_dtype

        target = resolve_device(device)
        for name in (dtype, vae_dtype or "auto"):
            parse_dtype(name, target)
        return Setup(
            device=device,
            dtype=dtype,
            vae_dtype=vae_dtype,
            accelerations=parse_accelerations(accelerate, target),
            approximations=parse_approximations(approximate),
            decoding=parse_decoding(decode),
            pace=DecodeAhead() if ahead else InTurn(),
            anyway=anyway,
        )

    @property
    def how(self) -> dict[str, Any]:
        """How chunks become frames, as ``Helios.open`` and ``Helios.resume`` take it."""
        return {"decoding": self.decoding, "pace": self.pace}

    def load(self, run: "Run", prepared: "Prepared", recorded: "Precision | None") -> "Helios":
        """Load a run's checkpoint, with the precision and the approximations recorded where the options say none.

        The prompts are encoded first, so that the text encoder is gone when the other weights come.

        Raises: InputError when the machine has no room for the run.
        """
        from helios.device import resolve_device
        from helios.engine.approximation import told
        from helios.engine.memory import Room
        from helios.engine.pipeline import Helios, lasting_name, parse_dtype
        from helios.engine.precision import Precision
        from helios.engine.session import EarlyFrames

        device, usual = resolve_device(self.device), recorded or Precision(dtype="auto")
        dtype = parse_dtype(self.dtype if self.dtype != "auto" else usual.dtype, device)
        vae_dtype = parse_dtype(self.vae_dtype or usual.vae_dtype, device)
        early = isinstance(self.decoding, EarlyFrames)
        how = {"dtype": dtype, "vae_dtype": vae_dtype}
        nearly = self._nearly(usual)
        asked = {"pace": self.pace, "early": early, "anyway": self.anyway, "approximations": [x.name for x in nearly]}
        weights = check_room(run.info, prepared, Room.of(device), **how, **asked)
        load = {"device": device, **how, "prompts": prepared.prompts, "weights": weights}
        helios = Helios.from_info(run.info, **load, source=lasting_name(run.source))
        left = [each for each in nearly if each.name not in helios.transformer.approximations]
        if left:
            cost = helios.approximate(prepared, *left, decoding=self.decoding)
            typer.echo(told([each.name for each in left], cost), err=True)
        helios.accelerate(*self.accelerations)
        if any(each.compiles for each in self.accelerations):
            self._compile(helios, prepared)
        return helios

    def _compile(self, helios: "Helios", prepared: "Prepared") -> None:
        """Before the run, which then tells its own speed and not the compiler's."""
        typer.echo("compiling for this size: half a minute or more, less once the compiler's cache knows it", err=True)
        began = time.perf_counter()
        helios.warm_up(prepared, decoding=self.decoding)
        typer.echo(f"compiled in {time.perf_counter() - began:.0f} s", err=True)

    def _nearly(self, recorded: "Precision") -> "tuple[Approximation, ...]":
        """The approximations that were asked for, or else recorded. Raises: InputError beside compiled packages."""
        from helios.engine.approximation import named
        from helios.engine.packages import PackagedBlocks

        nearly = named(recorded.approximations) if self.approximations is None else self.approximations
        if nearly and any(isinstance(each, PackagedBlocks) for each in self.accelerations):
            names = ", ".join(each.name for each in nearly)
            raise InputError(
                f"compiled packages hold the exact blocks and the run is approximate ({names}): leave --accelerate out, or "
                "say --approximate none"
            )
        return nearly


@dataclass(frozen=True, kw_only=True)
class Run:
    """A checkpoint that has been looked at and, when a run is repeated, what was recorded of it."""

    info: "CheckpointInfo"
    source: str | None
    request: "Request | None" = None
    precision: "Precision | None" = None

    @staticmethod
    def read(record_file: Path | None, model: str | None, *, revision: str | None, offline: bool) -> "Run":
        """Find the checkpoint of a new run, or of a recorded one (``model`` overrides what was recorded).

        Raises: InputError when there is none, or the record is not that of a whole run on this checkpoint.
        """
        from helios.checkpoints import inspect, resolve
        from helios.engine.precision import Precision
        from helios.engine.request import Request
        from helios.media import read_record

        if model is not None and not model.strip():
            raise InputError("--model is empty: name a checkpoint, or leave the option out for the small model")
        record = {} if record_file is None else read_record(record_file)
        checkpoint = record.get("checkpoint")
        if record_file is not None and not (isinstance(checkpoint, dict) and "identity" in checkpoint):
            raise InputError(f"{record_file} holds no record of a run: give a video that Helios made, or its .json")
        if record.get("first_frame"):
            raise InputError(
                f"{record_file} begins at frame {record['first_frame']} of a stream that was resumed, which its record "
                "cannot repeat by itself: resume the session file again"
            )
        source = model or record.get("source")
        info = inspect(resolve(source, revision=revision, offline=offline or None))
        if record_file is None:
            return Run(info=info, source=_absolute(source))
        if checkpoint["identity"] != info.identity:
            raise InputError(
                f"{record_file} was made with another checkpoint ({checkpoint.get('name')}): pass it with --model"
            )
        request = Request.from_record(record)
        return Run(info=info, source=_absolute(source), request=request, precision=Precision.recorded(record))

    @staticmethod
    def of_stream(
        stream: "SessionState", path: Path, model: str | None, *, revision: str | None, offline: bool
    ) -> "Run":
        """Find the checkpoint of a saved stream: ``model``, or else the one that the stream names.

        Raises: InputError when there is none.
        """
        if model is not None or stream.source is None:
            return Run.read(None, model, revision=revision, offline=offline)
        try:
            return Run.read(None, stream.source, revision=revision, offline=offline)
        except InputError as error:
            raise InputError(f"the model of {path} cannot be read, pass it with --model: {error}") from error

    def inputs_or(self, *, image: Path | None, video: Path | None) -> dict[str, Any]:
        """The image or video given now, or else the recorded one.

        Raises: InputError when the recorded file is gone or has changed.
        """
        if image is not None or video is not None or self.request is None:
            return {"image": image, "video": video}
        return {"image": None, "video": None} | {k: _recorded(k, e) for k, e in self.request.inputs.items()}

    def check_state(
        self, stream: "SessionState", path: Path, num_frames: int | None, prompt: str | None, blend: int
    ) -> "Prepared":
        """Check, before weights load, that a saved stream can go on like this with this checkpoint.

        Returns: the run with every prompt that it may encode.
        Raises: InputError.
        """
        from helios.conditioning.timeline import Cue, change_of
        from helios.engine.prepare import check

        change = change_of(blend)
        request = stream.extended(num_frames, identity=self.info.identity, path=path).request
        if prompt is not None:
            # The session says later whether the next chunk can still turn or only the one after it.
            cue = Cue(chunk=stream.rollout.chunk + 1, prompt=prompt, change=change)
            request = replace(request, timelines=tuple(timeline.with_cue(cue) for timeline in request.timelines))
        return check(self.info, request)


def _recorded(kind: str, entry: Mapping[str, str | None]) -> Path:
    from helios.engine.start import file_sha256

    path = Path(entry["path"] or "")
    if not entry["path"] or not path.is_file() or file_sha256(path) != entry["sha256"]:
        where = f"{kind} {path}, which is gone or has changed" if entry["path"] else f"{kind} that was not a file"
        raise InputError(f"the run began from the {where}: pass it with --{kind}")
    return path


def _absolute(source: str | None) -> str | None:
    """A checkpoint's name as a repeat finds it from anywhere; None stays the small model, whatever that is then."""
    from helios.engine.pipeline import lasting_name

    return source and lasting_name(source)


def read_state(path: Path) -> "SessionState":
    """A saved stream, read before anything else is looked for.

    Raises: InputError when the file is missing, damaged or no session.
    """
    from helios.engine.state import SessionState

    return SessionState.load(path)


def default_name(words: str | Path | None, seed: int) -> str:
    """A file name from the prompt (or the timeline's name) and the seed."""
    text = words.stem if isinstance(words, Path) else words or "video"
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:48] or "video"
    return f"{slug}-{seed}.mp4"


def make(helios: "Helios", opener: Opener, run: Run, outlet: Outlet) -> None:
    """Run a session to its end, write its chunks as they come, and report."""
    from helios.engine.session import FloatPixels, Uint8Pixels

    output = outlet.output
    with reporter(quiet=outlet.quiet or outlet.as_json) as report:
        session = opener(report, FloatPixels() if output.as_float else Uint8Pixels())
        record = {**helios.record(session.request), "source": run.source, "first_frame": session.frames_done}
        path = _write(session, outlet, record, report)
    _tell(helios, session, outlet, path, record, report)


def _write(session: "Session", outlet: Outlet, record: dict, report: Quiet) -> Path:
    """Write the chunks as they come; returns the path of the finished file."""
    from helios.media import open_writer

    request, output = session.request, outlet.output
    writer = open_writer(
        output.path,
        fps=request.fps,
        height=request.height,
        width=request.width,
        num_frames=request.num_frames - session.frames_done,
        record=record,
        overwrite=output.force,
        as_float=output.as_float,
    )
    try:
        with writer:
            writer.record["timelines"] = [timeline.to_json() for timeline in session.timelines]
            for chunk in _whole_chunks(session):
                writer.write(chunk.frames)
                report.chunk(chunk)
                if outlet.session_file is not None:
                    session.save(outlet.session_file)
    except KeyboardInterrupt:  # The writer has said what it kept.
        raise typer.Exit(130) from None
    return writer.path


def _whole_chunks(session: "Session") -> "Iterator[Chunk]":
    """The chunks of a session in one piece each, however early their frames came."""
    import numpy as np

    pieces: list[Chunk] = []
    for piece in session:
        pieces.append(piece)
        done, chunk_frames = session.frames_done, session.plan.geometry.chunk_frames
        if done % chunk_frames == 0 or done == session.request.num_frames:
            if len(pieces) > 1:
                frames_BFHWC = np.concatenate([each.frames_BFHWC for each in pieces], axis=1)
                piece = replace(piece, first_frame=pieces[0].first_frame, frames_BFHWC=frames_BFHWC)
            yield piece
            pieces = []


def _tell(helios: "Helios", session: "Session", outlet: Outlet, path: Path, record: dict, report: Quiet) -> None:
    from helios.device import device_memory

    seconds = report.seconds
    if not outlet.as_json:
        rate = f"{report.frames} frames in {seconds:.1f} s, {report.fps:.1f} fps, first frame after"
        typer.echo(f"{path}  ({rate} {report.first_frame_s:.2f} s, seed {session.request.seeds[0]})")
        return
    memory = device_memory(helios.device)
    timings = {
        "seconds": seconds,
        "fps": report.fps,
        "time_to_first_frame_s": report.first_frame_s,
        "chunk_seconds": report.chunk_seconds,
        "peak_allocated_bytes": memory.peak_allocated,
        "peak_reserved_bytes": memory.peak_reserved,
    }
    paths = {"video": str(path), "session": outlet.session_file and str(outlet.session_file)}
    typer.echo(json.dumps({"settings": record, "frames": report.frames, "timings": timings, "paths": paths}))
