"""What a run was asked for: checked once, saved with the video, enough to repeat it."""

import math
import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from helios.conditioning.guidance import ClassifierFree, ClassifierFreeZeroStar, Guidance, NoGuidance
from helios.conditioning.history import AnchorPolicy, FirstFrameAnchor, NoAnchor, SecondChunkAnchor
from helios.conditioning.picture import Motion
from helios.conditioning.timeline import Timeline
from helios.errors import InputError
from helios.noise import AddressedNoise, NoiseSource, ReferenceNoise
from helios.shapes import Geometry

NoiseKind = Literal["default", "reference"]
FITS = ("crop", "pad")
_MOST_FPS = 1000
_MOST_PIXELS = 8192 * 8192
_ANCHORS = {"first-frame": FirstFrameAnchor(), "second-chunk": SecondChunkAnchor(), "none": NoAnchor()}


@dataclass(frozen=True, kw_only=True)
class Request:
    """One run: a batch of independent videos that share everything but prompt and seed.

    Attributes:
        timelines: one per video.
        seeds: one per video.
        negative: prompt of the unconditional pass; may be empty; unused without guidance.
        num_frames, height, width, fps: of the video, in pixels.
        steps: per level, coarsest first.
        guidance_scale: 1 is no guidance.
        motion: see :class:`helios.conditioning.picture.Motion`.
        anchor: ``first-frame``, ``second-chunk`` or ``none``.
        amplify_first_chunk: twice the steps in the first chunk.
        noise: ``default`` is addressed noise; ``reference`` draws in the published order, for parity.
        fit: how a given image or video of another shape fits the frame, ``crop`` or ``pad``.
        inputs: path and SHA-256 of a given image or video, by kind; a path of None was an array.
    """

    timelines: tuple[Timeline, ...]
    seeds: tuple[int, ...]
    num_frames: int
    height: int
    width: int
    steps: tuple[int, ...]
    negative: str = ""
    fps: float = 24.0
    guidance_scale: float = 1.0
    motion: float = 1.0
    anchor: str = "first-frame"
    amplify_first_chunk: bool = False
    noise: NoiseKind = "default"
    fit: str = "crop"
    inputs: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._make_plain()
        if len(self.timelines) != len(self.seeds) or not self.seeds:
            raise InputError(f"{len(self.timelines)} prompt(s) came with {len(self.seeds)} seed(s): give one seed each")
        if self.num_frames <= 0:
            raise InputError(f"num_frames={self.num_frames} asks for no video: pass 1 or more")
        if not 0 < self.fps <= _MOST_FPS:
            raise InputError(f"fps={self.fps:g} cannot be played: pass more than 0 and at most {_MOST_FPS}, like 24")
        if not math.isfinite(self.guidance_scale):
            raise InputError(f"guidance={self.guidance_scale} is no scale: pass a number, 1 for none")
        if self.height * self.width > _MOST_PIXELS:
            raise InputError(f"{self.height}x{self.width} is beyond what a video frame can be: use at most 8192x8192")
        if self.fit not in FITS:
            raise InputError(f"fit={self.fit!r} is unknown: use {' or '.join(FITS)} (the aspect ratio is always kept)")
        if self.anchor not in _ANCHORS:
            raise InputError(f"anchor={self.anchor!r} is unknown: use {', '.join(_ANCHORS)}")
        if self.noise not in ("default", "reference"):
            raise InputError(f"noise={self.noise!r} is unknown: use default or reference")
        Motion(amount=self.motion)
        AddressedNoise(self.seeds)
        if self.noise == "reference" and len(self.seeds) > 1:
            raise InputError(f"noise=reference draws for one video: ask for {len(self.seeds)} videos one by one")

    def _make_plain(self) -> None:
        """Numbers of any kind (NumPy's, say) as plain ones, so that they compare, hash and write alike.

        Raises: InputError for what is no number, or no whole one where a whole one is wanted.
        """
        plain = {name: _whole(name, getattr(self, name)) for name in ("num_frames", "height", "width")}
        plain |= {name: _number(name, getattr(self, name)) for name in ("fps", "guidance_scale", "motion")}
        plain |= {name: tuple(_whole(name, n) for n in getattr(self, name)) for name in ("seeds", "steps")}
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    @property
    def anchor_policy(self) -> AnchorPolicy:
        """What ``anchor`` names."""
        return _ANCHORS[self.anchor]

    def noise_source(self) -> NoiseSource:
        """A source for this run; the reference kind starts its generator from the first seed."""
        if self.noise == "default":
            return AddressedNoise(self.seeds)
        import torch

        return ReferenceNoise(torch.Generator().manual_seed(self.seeds[0]))

    def chunks(self, geometry: Geometry) -> int:
        """Chunks that the whole video takes; the last may be cut."""
        return geometry.chunks_for(self.num_frames)

    def of(self, video: int) -> "Request":
        """The request of one video of the batch."""
        return replace(self, timelines=(self.timelines[video],), seeds=(self.seeds[video],))

    def with_frames(self, num_frames: int) -> "Request":
        """The same run with another number of frames. Raises: InputError when that is none."""
        return replace(self, num_frames=num_frames)

    def to_json(self) -> dict:
        """Everything as JSON data; :meth:`from_json` reads it back."""
        return {**asdict(self), "timelines": [timeline.to_json() for timeline in self.timelines]}

    @staticmethod
    def from_json(data: dict) -> "Request":
        """The request that :meth:`to_json` wrote. Raises: InputError when the data is not that of a request."""
        try:
            lists = {name: tuple(data[name]) for name in ("seeds", "steps")}
            timelines = tuple(Timeline.from_json(cues) for cues in data["timelines"])
            inputs = {kind: {"path": e["path"], "sha256": e["sha256"]} for kind, e in data["inputs"].items()}
            return Request(**{**data, **lists, "timelines": timelines, "inputs": inputs})
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"the recorded run is damaged or of another version ({error!r}): make it anew") from error

    @staticmethod
    def from_record(record: Mapping) -> "Request":
        """The request inside a larger record, such as the one a video file carries.

        Raises: InputError when there is none in it.
        """
        known = Request.__dataclass_fields__
        return Request.from_json({name: value for name, value in record.items() if name in known})


def guidance_for(scale: float, preset: Guidance) -> Guidance:
    """The checkpoint's kind of guidance at another scale; a scale of 1 is none.

    Raises: InputError when a distilled checkpoint, which has no guidance, is asked for one.
    """
    if scale == 1.0:
        return NoGuidance()
    match preset:
        case NoGuidance():
            raise InputError(f"guidance={scale:g} cannot be used: this checkpoint is distilled, leave guidance at 1")
        case ClassifierFreeZeroStar():
            return replace(preset, scale=scale)
    return ClassifierFree(scale=scale)


def _whole(name: str, value) -> int:
    try:
        return operator.index(value)
    except TypeError as error:
        raise InputError(f"{name}={value!r} is not a whole number: pass one") from error


def _number(name: str, value) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}={value!r} is not a number: pass one") from error
