"""Reading a prepared data set: any clip by its number, through memory maps.

What order clips come in, which rank gets which and where a run goes on is the trainer's business: the loader has no
state. C channels, T latent frames (9 per chunk), H W latent height and width, S text tokens, E width of the text
encoder.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from helios.checkpoints import CheckpointInfo
from helios.data.buckets import size_text
from helios.data.identity import identities
from helios.data.plan import FORMAT
from helios.data.shards import INDEX, PLAN, caption_name, latents_name, stills_name, text_file
from helios.errors import InputError
from helios.shapes import Geometry

_OPEN_FILES = 64


@dataclass(frozen=True, kw_only=True)
class PreparedClip:
    """One clip of a data set; its tensors are views of the mapped files, not to be changed in place.

    Attributes:
        latents_CTHW: normalised latents of whole chunks, each encoded on its own, in the stored dtype.
        captions: its wordings.
        texts_SE: states of each wording, without padding; None without stored text.
        stills_TCHW: for every chunk after the first, the frame before it as [anchor, newest] latents of an
            image-to-video request, [2 * (chunks - 1), C, H, W]; None without.
    """

    latents_CTHW: Tensor
    captions: tuple[str, ...]
    texts_SE: tuple[Tensor, ...] | None
    stills_TCHW: Tensor | None

    @property
    def text_SE(self) -> Tensor | None:
        """States of the first wording, the only one that the published training uses."""
        return None if self.texts_SE is None else self.texts_SE[0]

    def chunks(self, geometry: Geometry) -> int:
        """How many chunks it has (the data set was checked against the checkpoint's geometry when it was opened)."""
        return self.latents_CTHW.shape[1] // geometry.chunk_latent_frames


@dataclass(frozen=True)
class _Piece:
    record: Mapping[str, Any]
    first: int
    chunks: int


class PreparedClips:
    """The clips of a data set, by number.

    Args:
        folder: what ``helios data prepare`` wrote.
        info: the checkpoint that is trained; its VAE, and its text encoder where ``text``, must have made the data.
        chunks: cut clips into pieces of exactly this many chunks (a rest is left out), so that videos of different
            lengths fill the same batches; None leaves them as they are.
        text: hand out stored text states. False for a run that encodes captions itself.
    Raises: InputError when there is no finished data set, a file is missing, it is of another VAE or text encoder, a
        size does not suit the checkpoint, or no clip is long enough.
    """

    def __init__(self, folder: str | Path, info: CheckpointInfo, *, chunks: int | None = None, text: bool = True):
        self.folder = Path(folder)
        self.index = read_index(self.folder)
        self._text = text
        self._files = _MappedFiles(self.folder)
        _check_identity(self.folder, self.index, info, text)
        _check_geometry(self.folder, self.index, info.geometry)
        self._pieces = _pieces(self.index["clips"], chunks)
        if not self._pieces:
            raise InputError(f"no clip in {self.folder} has {chunks} chunks: ask for fewer, or prepare longer videos")
        self._require_files()

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, index: int) -> PreparedClip:
        """A clip.

        Raises: IndexError beyond the end; InputError when its file is damaged.
        """
        piece = self._pieces[index]
        number, file = piece.record["clip"], piece.record["latents"]
        per_chunk = self.index["geometry"]["chunk_latent_frames"]
        latents = self._files.tensor(file, latents_name(number))
        stills = None
        if self.index["settings"]["stills"] and piece.chunks > 1:
            stills = self._files.tensor(file, stills_name(number))
            stills = stills[2 * piece.first : 2 * (piece.first + piece.chunks - 1)]
        captions = tuple(self.index["captions"][place] for place in piece.record["captions"])
        return PreparedClip(
            latents_CTHW=latents[:, per_chunk * piece.first : per_chunk * (piece.first + piece.chunks)],
            captions=captions,
            texts_SE=tuple(map(self._states, piece.record["captions"])) if self._text else None,
            stills_TCHW=stills,
        )

    def buckets(self) -> list[tuple[int, int, int]]:
        """(chunks, height, width in pixels) of every clip; equal buckets have equal shapes. Opens no file."""
        return [(piece.chunks, piece.record["height"], piece.record["width"]) for piece in self._pieces]

    def videos(self) -> list[str]:
        """The video of every clip; clips of one video follow one another. Opens no file."""
        return [piece.record["video"] for piece in self._pieces]

    def captions(self) -> tuple[str, ...]:
        """Every wording of every clip. Opens no file."""
        return tuple(self.index["captions"])

    def _states(self, place: int) -> Tensor:
        return self._files.tensor(self._text_file(place), caption_name(self.index["captions"][place]))

    def _text_file(self, place: int) -> str:
        return text_file(place // self.index["captions_per_file"])

    def _require_files(self) -> None:
        """Raises: InputError when a file that the index names is not there."""
        records = [piece.record for piece in self._pieces]
        wanted = {record["latents"] for record in records}
        if self._text:
            wanted |= {self._text_file(place) for record in records for place in record["captions"]}
        missing = sorted(name for name in wanted if not (self.folder / name).is_file())
        if missing:
            raise InputError(
                f"{self.folder} lacks {missing[0]} ({len(missing)} of {len(wanted)} files are missing): copy it again, "
                "or run `helios data prepare` again, which makes what is missing"
            )


def read_index(folder: str | Path) -> dict[str, Any]:
    """The index of a finished data set.

    Raises: InputError when there is none, or it is damaged or of another format.
    """
    folder = Path(folder)
    if not (folder / INDEX).is_file():
        if (folder / PLAN).is_file():
            raise InputError(f"{folder} is not finished: run the same `helios data prepare` again to go on")
        raise InputError(f"{folder} is no data set: make one with `helios data prepare`")
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        found = index["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / INDEX} is damaged: run `helios data prepare` again, which writes it anew"
        ) from error
    if found != FORMAT:
        raise InputError(f"{folder} has format {found}, this version reads {FORMAT}: prepare the data again")
    return index


def _check_identity(folder: Path, index: Mapping[str, Any], info: CheckpointInfo, text: bool) -> None:
    now = identities(info)
    if text and index["text_encoder"] is None:
        raise InputError(f"{folder} holds no text states: prepare it without --no-text, or train the text encoder too")
    for name, made_by, wanted in (
        ("VAE", index["vae"], now.vae),
        ("text encoder", index["text_encoder"], now.text_encoder),
    ):
        if made_by != wanted and (text or name == "VAE"):
            raise InputError(
                f"{folder} was made with another {name} ({made_by}, {info.path} has {wanted}): prepare the videos again "
                "with this checkpoint"
            )


def _check_geometry(folder: Path, index: Mapping[str, Any], geometry: Geometry) -> None:
    for name, value in index["geometry"].items():
        if value != getattr(geometry, name):
            raise InputError(
                f"{folder} was made with {name}={value}, this checkpoint has {getattr(geometry, name)}: prepare it again"
            )
    for size in sorted({(clip["height"], clip["width"]) for clip in index["clips"]}):
        try:
            geometry.check_size(*size)
        except InputError as error:
            raise InputError(
                f"{folder} holds clips of {size_text(size)}, which this checkpoint cannot take: {error}"
            ) from error


def _pieces(clips: list[Mapping[str, Any]], chunks: int | None) -> list[_Piece]:
    if chunks is None:
        return [_Piece(clip, 0, clip["chunks"]) for clip in clips]
    if chunks < 1:
        raise InputError(f"chunks={chunks} leaves nothing of a clip: use 1 or more")
    return [_Piece(clip, first, chunks) for clip in clips for first in range(0, clip["chunks"] - chunks + 1, chunks)]


class _MappedFiles:
    """The files read last stay mapped: a map costs no memory until it is read, but a system has only so many."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._open: OrderedDict[str, Any] = OrderedDict()

    def tensor(self, file: str, name: str) -> Tensor:
        """A view of a file. Raises: InputError when the file is damaged."""
        try:
            return self._mapped(file).get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{self._folder / file} is damaged or lacks {name}: delete it and run `helios data prepare` again, which "
                "makes it anew"
            ) from error

    def _mapped(self, file: str) -> Any:
        if file not in self._open:
            self._open[file] = safe_open(self._folder / file, framework="pt")
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)
        self._open.move_to_end(file)
        return self._open[file]
