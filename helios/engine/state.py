"""A stream on disk: a few megabytes that resume, extend or branch a video from a chunk.

One safetensors file: the history window and the anchor as tensors; counters, request, and the checkpoint's identity and
where it was found as JSON in its header.
"""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from helios.conditioning.history import History
from helios.engine.precision import Precision
from helios.engine.request import Request
from helios.errors import GenerationError, InputError
from helios.sampling.rollout import RolloutState

_FORMAT = "helios-session-1"


@dataclass(frozen=True, kw_only=True)
class SessionState:
    """A stream between two chunks.

    Attributes:
        rollout: history window, anchor and number of the next chunk.
        frames_done: frames handed out so far; when the last chunk was cut, fewer than the chunks hold, and the cut
            chunk is the next one.
        request: what was asked for, with the timelines as they are now.
        identity: of the checkpoint the stream belongs to.
        precision: that it was made in; None when the file is of a version that did not say.
        source: where the checkpoint was found: a folder, a hub id or a short name; None as for ``precision``.
    """

    rollout: RolloutState
    frames_done: int
    request: Request
    identity: str
    precision: Precision | None
    source: str | None = None

    def save(self, path: str | Path) -> Path:
        """Write the stream; the name appears when the file is whole.

        Raises: GenerationError when it cannot be written.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        path = Path(path)
        history = self.rollout.history
        tensors = {"window": history.window_BCTHW.cpu().contiguous(), "anchor": history.anchor_BCTHW.cpu().contiguous()}
        header = {
            "format": _FORMAT,
            "identity": self.identity,
            **({} if self.source is None else {"source": self.source}),
            **({} if self.precision is None else asdict(self.precision)),
            "chunk": self.rollout.chunk,
            "frames_done": self.frames_done,
            "anchored": history.anchored,
            "request": self.request.to_json(),
        }
        part = path.with_name(path.name + ".session-part")
        try:
            save_file(tensors, part, metadata={"helios": json.dumps(header)})
            os.replace(part, path)
        except (OSError, SafetensorError) as error:
            part.unlink(missing_ok=True)
            raise GenerationError(f"cannot write the session file {path}: {error}") from error
        return path

    def extended(self, num_frames: int | None, *, identity: str, path: str | Path) -> "SessionState":
        """This stream with another length for the whole video (None keeps it).

        Raises: InputError when it belongs to another checkpoint, or already has that many frames.
        """
        if self.identity != identity:
            made_with = f"identity {self.identity}" + (f", found at {self.source} then" if self.source else "")
            raise InputError(
                f"{path} belongs to another checkpoint ({made_with}): pass that one with --model, or load it with "
                "Helios.from_pretrained"
            )
        request = self.request.with_frames(self.request.num_frames if num_frames is None else num_frames)
        if request.num_frames <= self.frames_done:
            raise InputError(
                f"{path} already has {self.frames_done} frames: ask for more than that to make the video longer"
            )
        return replace(self, request=request)

    def to(self, device: torch.device) -> "SessionState":
        """The same stream on a device."""
        history = self.rollout.history
        moved = replace(
            history, window_BCTHW=history.window_BCTHW.to(device), anchor_BCTHW=history.anchor_BCTHW.to(device)
        )
        return replace(self, rollout=replace(self.rollout, history=moved))

    @staticmethod
    def load(path: str | Path) -> "SessionState":
        """Read a stream.

        Raises: InputError when the file is missing, damaged or not a session.
        """
        tensors, header = _read(Path(path))
        try:
            window, anchor = tensors["window"], tensors["anchor"]
            history = History(window_BCTHW=window, anchor_BCTHW=anchor, anchored=bool(header["anchored"]))
            return SessionState(
                rollout=RolloutState(history=history, chunk=int(header["chunk"])),
                frames_done=int(header["frames_done"]),
                request=Request.from_json(header["request"]),
                identity=header["identity"],
                precision=Precision.recorded(header),
                source=str(header["source"]) if "source" in header else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the session file {path} is damaged ({error}): save the stream again") from error


def check_session_file(path: Path, *, overwrite: bool = False) -> None:
    """Refuse, before a run, a place where its state cannot be kept. Another session file may be written over.

    Raises: InputError.
    """
    if not path.absolute().parent.is_dir():
        raise InputError(f"the folder of the session file {path} does not exist: make it, or choose another place")
    if path.is_dir():
        raise InputError(f"the session file {path} is a folder: give the name of a file")
    if not os.access(path.absolute().parent, os.W_OK):
        raise InputError(f"the folder of the session file {path} cannot be written to: choose another place")
    if path.exists() and not overwrite:
        try:
            _read(path)
        except InputError as error:
            raise InputError(f"{path} exists and is no session file: choose another name, or pass --force") from error


def _read(path: Path) -> tuple[dict, dict]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("helios", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise InputError(
            f"cannot read the session file {path} ({error}): give a file that --session or Session.save wrote"
        ) from error
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise InputError(f"{path} is not a session file of this version: write one with Session.save or --session")
    return tensors, header
