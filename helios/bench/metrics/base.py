"""What a metric is: something that starts an accumulator for a clip, or says why it cannot."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from helios.bench.frames.source import ClipInfo, Frame
from helios.errors import HeliosError

Tier = Literal["official", "offline"]
Fields = dict[str, Any]


class Refused(HeliosError):
    """This clip cannot be measured by this metric; the message says why. Counted as failed, never as a zero."""


class Unavailable(HeliosError):
    """The metric cannot run here at all (weights, endpoint or package missing): it is *missing*, not failed."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip as metrics see it: what its source says, and what it should show.

    Attributes:
        info: frames, size, rate.
        prompt: text the clip was made from, or None.
        scene: toy-world scene behind the prompt, or None; what :mod:`helios.data.toy` made or parsed.
    """

    info: ClipInfo
    prompt: str | None = None
    scene: Any = None


class Accumulator(Protocol):
    """Takes the frames of one clip in order; keeps nothing that grows with the clip beyond a few numbers per frame."""

    def add(self, frame: Frame) -> None: ...

    def finish(self) -> Fields:
        """Named values of the clip: floats, or lists of floats for curves."""
        ...


class Metric(Protocol):
    """A metric, cheap to make and to pickle: networks load when the first clip begins.

    Attributes:
        name: key in records and summaries.
        tier: ``official`` numbers are comparable with published ones, ``offline`` ones are ours.
        version: changes whenever values could change (code, weights, judge): part of the resume key.
    """

    @property
    def name(self) -> str: ...
    @property
    def tier(self) -> Tier: ...
    @property
    def version(self) -> str: ...

    def check(self) -> None:
        """Raises: Unavailable when the metric cannot run here."""
        ...

    def begin(self, clip: Clip) -> Accumulator:
        """Raises: Refused when this clip cannot be measured."""
        ...


def require_frames(clip: Clip, least: int, metric: str) -> None:
    """Refuse a clip that is too short for a metric."""
    if clip.info.num_frames < least:
        raise Refused(f"{metric} needs {least} frames and {clip.info.name} has {clip.info.num_frames}")


def require_prompt(clip: Clip, metric: str) -> str:
    """The clip's prompt, or Refused when there is none."""
    if not clip.prompt:
        raise Refused(f"{metric} needs a prompt and {clip.info.name} has none")
    return clip.prompt
