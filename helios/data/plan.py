"""What a preparation will make: which clips, of what size, in which file; every file of the data set follows from it.

H W height and width in pixels.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from helios.data.config import ITEM_BYTES, PrepareConfig
from helios.data.shards import readable_json
from helios.data.sources import Skipped, Source
from helios.shapes import Geometry

FORMAT = 1
CAPTIONS_PER_FILE = 64


@dataclass(frozen=True, kw_only=True)
class PlannedVideo:
    """A video that will be encoded.

    Attributes:
        source: the video, its captions cleaned.
        first, frames: the range that is used, at the planned rate.
        size: height and width that it is brought to.
    """

    source: Source
    first: int
    frames: int
    size: tuple[int, int]

    @staticmethod
    def from_dict(facts: Mapping[str, Any]) -> "PlannedVideo":
        """From what ``asdict`` and JSON make of it."""
        fields: Any = {name: tuple(v) if isinstance(v, list) else v for name, v in facts["source"].items()}
        return PlannedVideo(
            source=Source(**fields), first=facts["first"], frames=facts["frames"], size=tuple(facts["size"])
        )


@dataclass(frozen=True, kw_only=True)
class PlannedClip:
    """Consecutive windows of one video.

    Attributes:
        number: in the data set.
        video: where it comes from.
        first_window, chunks: which windows of the video, counted from its first used frame.
    """

    number: int
    video: PlannedVideo
    first_window: int
    chunks: int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the data set will hold and take on disk, in bytes."""

    clips: int
    chunks: int
    latents: int
    stills: int
    text: int

    @property
    def total(self) -> int:
        """Bytes of everything."""
        return self.latents + self.stills + self.text


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides the data set.

    Attributes:
        root: where the videos are; the only thing that may differ when a run goes on.
        config: the settings.
        geometry: of the checkpoint.
        request: what was asked for and found, in plain JSON: settings, identities, files.
        videos: what will be encoded.
        skipped: what will not, and why.
        text_tokens: of all captions, each counted once.
        text_width: of the text encoder.
    """

    root: Path
    config: PrepareConfig
    geometry: Geometry
    request: dict[str, Any]
    videos: tuple[PlannedVideo, ...]
    skipped: tuple[Skipped, ...]
    text_tokens: int
    text_width: int

    @cached_property
    def clips(self) -> tuple[PlannedClip, ...]:
        """All clips, video after video."""
        pieces = [(video, first, chunks) for video in self.videos for first, chunks in self._pieces(video)]
        return tuple(
            PlannedClip(number=number, video=video, first_window=first, chunks=chunks)
            for number, (video, first, chunks) in enumerate(pieces)
        )

    def _pieces(self, video: PlannedVideo) -> Iterator[tuple[int, int]]:
        """(first window, chunks); a rest that is too short is dropped."""
        windows = video.frames // self.geometry.chunk_frames
        for first in range(0, windows, self.config.max_chunks):
            chunks = min(self.config.max_chunks, windows - first)
            if chunks >= self.config.min_chunks:
                yield first, chunks

    @cached_property
    def shards(self) -> tuple[tuple[PlannedClip, ...], ...]:
        """The clips of each latent file."""
        shards: list[list[PlannedClip]] = []
        filled = self.config.shard_chunks
        for clip in self.clips:
            if filled + clip.chunks > self.config.shard_chunks:
                shards.append([])
                filled = 0
            shards[-1].append(clip)
            filled += clip.chunks
        return tuple(tuple(shard) for shard in shards)

    @cached_property
    def captions(self) -> tuple[str, ...]:
        """Every caption once."""
        return tuple(dict.fromkeys(caption for video in self.videos for caption in video.source.captions))

    @cached_property
    def text_shards(self) -> tuple[tuple[str, ...], ...]:
        """The captions of each text file, each caption once."""
        if not self.config.text:
            return ()
        starts = range(0, len(self.captions), CAPTIONS_PER_FILE)
        return tuple(self.captions[first : first + CAPTIONS_PER_FILE] for first in starts)

    @cached_property
    def estimate(self) -> Estimate:
        """Bytes that the tensors take; headers and the index add little."""
        latents, stills = (sum(sizes) for sizes in zip((0, 0), *map(self._clip_bytes, self.clips)))
        return Estimate(
            clips=len(self.clips),
            chunks=sum(clip.chunks for clip in self.clips),
            latents=latents,
            stills=stills,
            text=self.text_tokens * self.text_width * ITEM_BYTES[self.config.text_dtype] * self.config.text,
        )

    @cached_property
    def working_bytes(self) -> int:
        """Needed beside the data set while it is made: the clips of one file are written apart, then together."""
        return max(sum(sum(self._clip_bytes(clip)) for clip in shard) for shard in self.shards)

    def _clip_bytes(self, clip: PlannedClip) -> tuple[int, int]:
        """Of its latents and of its stills."""
        rows, columns = self.geometry.latent_size(*clip.video.size)
        frame = self.geometry.latent_channels * rows * columns * ITEM_BYTES[self.config.latent_dtype]
        stills = 2 * (clip.chunks - 1) if self.config.stills else 0
        return frame * clip.chunks * self.geometry.chunk_latent_frames, frame * stills

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that every file of the data set carries."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """The plan as text, without the place of the videos."""
        return readable_json(
            {
                "format": FORMAT,
                "request": self.request,
                "videos": [asdict(video) for video in self.videos],
                "skipped": [asdict(skip) for skip in self.skipped],
                "text_tokens": self.text_tokens,
            }
        )


def size_in_words(count: int) -> str:
    """Bytes in MB or GB."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
