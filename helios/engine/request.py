"""What a run was asked for: checked once, saved with the video, enough to repeat it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

from helios.conditioning.guidance import ClassifierFree, ClassifierFreeZeroStar, Guidance, NoGuidance
from helios.conditioning.history import AnchorPolicy, FirstFrameAnchor, NoAnchor, SecondChunkAnchor
from helios.conditioning.picture import Motion
from helios.conditioning.timeline import Timeline
from helios.errors import InputError
from helios.noise import AddressedNoise, NoiseSource, ReferenceNoise
from helios.shapes import Geometry

NoiseKind = Literal["default", "reference"]
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

    def __post_init__(self) -> None:
        if len(self.timelines) != len(self.seeds) or not self.seeds:
            raise InputError(f"{len(self.timelines)} prompt(s) came with {len(self.seeds)} seed(s): give one seed each")
        if self.num_frames <= 0:
            raise InputError(f"num_frames={self.num_frames} asks for no video: pass 1 or more")
        if not self.fps > 0:
            raise InputError(f"fps={self.fps:g} cannot be played: pass more than 0, for example 24")
        if self.anchor not in _ANCHORS:
            raise InputError(f"anchor={self.anchor!r} is unknown: use {', '.join(_ANCHORS)}")
        if self.noise not in ("default", "reference"):
            raise InputError(f"noise={self.noise!r} is unknown: use default or reference")
        Motion(amount=self.motion)
        AddressedNoise(self.seeds)

    @property
    def anchor_policy(self) -> AnchorPolicy:
        return _ANCHORS[self.anchor]

    def noise_source(self) -> NoiseSource:
        """A source for this run; the reference kind starts its generator from the first seed."""
        if self.noise == "default":
            return AddressedNoise(self.seeds)
        import torch

        return ReferenceNoise(torch.Generator().manual_seed(self.seeds[0]))

    def chunks(self, geometry: Geometry) -> int:
        return geometry.chunks_for(self.num_frames)

    def with_frames(self, num_frames: int) -> "Request":
        return replace(self, num_frames=num_frames)

    def to_json(self) -> dict:
        return {**asdict(self), "timelines": [timeline.to_json() for timeline in self.timelines]}

    @staticmethod
    def from_json(data: dict) -> "Request":
        lists = {name: tuple(data[name]) for name in ("seeds", "steps")}
        timelines = tuple(Timeline.from_json(cues) for cues in data["timelines"])
        return Request(**{**data, **lists, "timelines": timelines})

    @staticmethod
    def from_record(record: Mapping) -> "Request":
        """The request inside a larger record, such as the one a video file carries."""
        return Request.from_json({name: record[name] for name in Request.__dataclass_fields__})


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
