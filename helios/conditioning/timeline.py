"""Which prompt governs which chunk: one prompt, or a timeline of prompts with hard cuts or blends.

A prompt takes effect at a chunk boundary, because a chunk is denoised as a whole. The blend over ``n`` chunks uses the
weights ``1/n, 2/n, ... 1``, so the first chunk after the change already shows the new prompt (the published code's
weights begin at 0 and lose that chunk), and the timeline never changes the length of the video.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from helios.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The new prompt alone from its first chunk on."""

    chunks = 1


@dataclass(frozen=True, kw_only=True)
class Blend:
    """The embeddings of the old prompt fade into those of the new one over some chunks.

    Args:
        chunks: 2 or more; after that many chunks the new prompt stands alone.
    """

    chunks: int = 3

    def __post_init__(self) -> None:
        if self.chunks < 2:
            raise InputError(f"blend={self.chunks} chunks is no blend: pass 2 or more, or 0 for a hard cut")


Change = Cut | Blend


def change_of(blend: int) -> Change:
    """A change from the number that people type: 0 or 1 is a cut, more is a blend over that many chunks."""
    if blend < 0:
        raise InputError(f"blend={blend} is negative: pass the number of chunks, or 0 for a hard cut")
    return Cut() if blend < 2 else Blend(chunks=blend)


@dataclass(frozen=True, kw_only=True)
class Cue:
    """From chunk ``chunk`` on, ``prompt``; reached by ``change``."""

    chunk: int
    prompt: str
    change: Change = Cut()


@dataclass(frozen=True, kw_only=True)
class Mix:
    """What one chunk is conditioned on, in embedding space.

    Attributes:
        steps: (prompt, weight) pairs. Begin with the first prompt's embedding; each further step moves that far (0 to 1)
            towards its prompt. A blend that begins inside another one therefore goes on from where that one stands.
    """

    steps: tuple[tuple[str, float], ...]

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts of the steps, in order."""
        return tuple(prompt for prompt, _ in self.steps)

    @property
    def after(self) -> str:
        """The prompt that is being turned to."""
        return self.steps[-1][0]

    @property
    def weight(self) -> float:
        """How far the last turn has come; 1 when its prompt stands alone."""
        return self.steps[-1][1]


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Prompts in order of the chunk at which each takes effect. The last prompt holds to the end.

    Raises: InputError when there is no cue, the first is not at chunk 0, or they are out of order.
    """

    cues: tuple[Cue, ...]

    def __post_init__(self) -> None:
        if not self.cues:
            raise InputError("the timeline is empty: give it at least one prompt at time 0")
        if self.cues[0].chunk != 0:
            raise InputError(f"the timeline begins at chunk {self.cues[0].chunk}: its first prompt must be at time 0")
        for before, after in zip(self.cues, self.cues[1:]):
            if after.chunk < before.chunk:
                raise InputError(f"the timeline is out of order: {after.prompt!r} comes before {before.prompt!r}")

    @staticmethod
    def single(prompt: str) -> "Timeline":
        """One prompt from the first chunk to the end."""
        return Timeline(cues=(Cue(chunk=0, prompt=prompt),))

    @property
    def prompts(self) -> tuple[str, ...]:
        """Every prompt once, in order of appearance."""
        return tuple(dict.fromkeys(cue.prompt for cue in self.cues))

    def at(self, chunk: int) -> Mix:
        """The mix of prompts that governs chunk number ``chunk``; past the last cue, its prompt alone."""
        steps: list[tuple[str, float]] = [(self.cues[0].prompt, 1.0)]
        for cue in self.cues[1:]:
            if cue.chunk <= chunk:
                weight = min(1.0, (chunk - cue.chunk + 1) / cue.change.chunks)
                steps = [(cue.prompt, 1.0)] if weight == 1.0 else [*steps, (cue.prompt, weight)]
        return Mix(steps=tuple(steps))

    def with_cue(self, cue: Cue) -> "Timeline":
        """A timeline that turns to another prompt at ``cue.chunk``; cues at or after that chunk are dropped."""
        kept = tuple(c for c in self.cues if c.chunk < cue.chunk)
        return Timeline(cues=(*kept, cue) if kept else (Cue(chunk=0, prompt=cue.prompt),))

    def to_json(self) -> list[dict]:
        """The cues as JSON data: chunk, prompt, and over how many chunks it is faded in (1 for a cut)."""
        return [{"chunk": c.chunk, "prompt": c.prompt, "blend": c.change.chunks} for c in self.cues]

    @staticmethod
    def from_json(cues: list[dict]) -> "Timeline":
        """The timeline that :meth:`to_json` wrote. Raises: KeyError or TypeError for anything else."""
        return Timeline(
            cues=tuple(Cue(chunk=c["chunk"], prompt=c["prompt"], change=change_of(c["blend"])) for c in cues)
        )


def timeline_of(entries: list[tuple[float, str]], *, fps: float, chunk_frames: int, blend: int = 0) -> Timeline:
    """A timeline from (seconds, prompt) pairs; each prompt takes effect at the chunk boundary nearest to its time.

    Two prompts that fall on the same boundary keep the later one.

    Args:
        entries: times in seconds from the beginning of the video; the first must be 0.
        fps: frames per second of the video.
        chunk_frames: pixel frames of a chunk.
        blend: chunks over which each prompt fades into the next; 0 is a hard cut.
    Raises: InputError for no entries, times that do not rise, a negative time or an empty prompt.
    """
    change, by_chunk, previous = change_of(blend), {}, -1.0
    for seconds, prompt in entries:
        if not previous < seconds < math.inf or seconds < 0:
            raise InputError(f"timeline time {seconds:g} s is out of order: times must rise, and begin at 0")
        if not prompt.strip():
            raise InputError(f"the timeline's prompt at {seconds:g} s is empty: write what the video should show")
        chunk = round(seconds * fps / chunk_frames) if by_chunk else _first_chunk(seconds)
        by_chunk[chunk] = Cue(chunk=chunk, prompt=prompt.strip(), change=change)
        previous = seconds
    return Timeline(cues=tuple(by_chunk.values()))


def _first_chunk(seconds: float) -> int:
    if seconds != 0:
        raise InputError(f"the timeline begins at {seconds:g} s: its first prompt must be at time 0")
    return 0


_LINE = re.compile(r"^\s*(?:(\d+):)?(\d+(?:\.\d+)?)s?(?:[:|,]?\s+|\s*\|\s*)(\S.*?)\s*$")


def read_timeline(path: str | Path) -> list[tuple[float, str]]:
    """Entries of a timeline file: one ``TIME PROMPT`` a line, time as ``12``, ``12.5s`` or ``1:02``; ``#`` comments.

    Raises: InputError naming the file and the line that cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the timeline {path}: {error}") from error
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.match(line)
        if not found:
            raise InputError(
                f"{path}, line {number}: {line.strip()!r} is not TIME PROMPT, for example '4.5 a red ball'"
            )
        entries.append((60.0 * float(found[1] or 0) + float(found[2]), found[3]))
    if not entries:
        raise InputError(f"the timeline {path} holds no prompts: write one 'TIME PROMPT' a line, the first at time 0")
    return entries
