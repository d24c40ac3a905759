"""What ``generate`` and ``resume`` share: reading a recorded run, writing chunks as they come, reporting the result."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from helios.cli.progress import Quiet, reporter
from helios.errors import InputError

if TYPE_CHECKING:
    from helios.checkpoints import CheckpointInfo
    from helios.engine.pipeline import Helios
    from helios.engine.request import Request
    from helios.engine.session import PixelFormat, Session

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
    inputs: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A checkpoint that has been looked at and, when a run is repeated, what was recorded of it."""

    info: "CheckpointInfo"
    source: str | None
    request: "Request | None" = None
    recorded_inputs: dict[str, Any]

    @staticmethod
    def read(record_file: Path | None, model: str | None, *, revision: str | None, offline: bool) -> "Run":
        """Find the checkpoint of a new run, or of a recorded one (``model`` overrides what was recorded).

        Raises: InputError when there is none, or a recorded input file has changed or is gone.
        """
        from helios.checkpoints import inspect, resolve
        from helios.engine.request import Request
        from helios.media import read_record

        record = {} if record_file is None else read_record(record_file)
        if record_file is not None and "timelines" not in record:
            raise InputError(f"{record_file} holds no record of a run: give a video that Helios made, or its .json")
        source = model or record.get("source")
        info = inspect(resolve(source, revision=revision, offline=offline or None))
        if record and record["checkpoint"]["identity"] != info.identity:
            raise InputError(
                f"{record_file} was made with another checkpoint ({record['checkpoint']['name']}): pass it with --model"
            )
        request = Request.from_record(record) if record else None
        return Run(info=info, source=source, request=request, recorded_inputs=_recorded_inputs(record))

    def inputs_or(self, *, image: Path | None, video: Path | None) -> dict[str, Any]:
        """The image or video given now, or else the recorded one."""
        if image is None and video is None:
            return dict(self.recorded_inputs)
        return {"image": image, "video": video}

    def load(self, *, device: str, dtype: str) -> "Helios":
        from helios.engine.pipeline import Helios

        return Helios.from_info(self.info, device=device, dtype=dtype)

    def check_state(self, path: Path, num_frames: int | None) -> None:
        """Refuse, before weights load, a saved stream that cannot go on with this checkpoint.

        Raises: InputError.
        """
        from helios.engine.state import SessionState

        SessionState.load(path).extended(num_frames, identity=self.info.identity, path=path)


def _recorded_inputs(record: dict) -> dict[str, Any]:
    inputs: dict[str, Any] = {"image": None, "video": None}
    for kind, entry in record.get("inputs", {}).items():
        path = Path(entry["path"])
        if not path.is_file() or _sha256(path) != entry["sha256"]:
            raise InputError(
                f"the run began from the {kind} {path}, which is gone or has changed: pass it with --{kind}"
            )
        inputs[kind] = path
    return inputs


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_target(device: str, dtype: str) -> None:
    """Refuse a device or dtype that is not here, before anything is read.

    Raises: InputError.
    """
    from helios.device import resolve_device
    from helios.engine.pipeline import parse_dtype

    parse_dtype(dtype, resolve_device(device))


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
        record = {**helios.record(session.request), "source": run.source, "inputs": _described(outlet.inputs)}
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
            for chunk in session:
                writer.write(chunk.frames)
                report.chunk(chunk)
                if outlet.session_file is not None:
                    session.save(outlet.session_file)
    except KeyboardInterrupt:  # The writer has said what it kept.
        raise typer.Exit(130) from None
    return writer.path


def _described(inputs: dict[str, Any]) -> dict[str, dict]:
    """Recorded image and video: path and hash, so that a repeat can tell whether they changed."""
    given = {kind: Path(path).resolve() for kind, path in inputs.items() if path is not None}
    return {kind: {"path": str(path), "sha256": _sha256(path)} for kind, path in given.items()}


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
