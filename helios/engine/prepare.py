"""What a run is checked against before any weights load: prompts, sizes, lengths, seeds, image and video."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from numbers import Integral
from pathlib import Path
from typing import Any

import torch

from helios.checkpoints import CheckpointInfo, load, synthetic
from helios.conditioning.timeline import Timeline, change_of, read_timeline, timeline_of
from helios.engine.request import Request, guidance_for
from helios.engine.start import Start, describe_inputs, read_start
from helios.errors import InputError
from helios.models.text_encoder import PromptEncoder
from helios.sampling.plan import SamplingPlan

logger = logging.getLogger(__name__)

TimelineLike = Timeline | str | Path | Sequence[tuple[float, str]]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A run that has been checked against a checkpoint, before any weights are loaded.

    Attributes:
        request: what was asked for, with what the checkpoint decides filled in.
        plan: sizes, schedules and guidance that follow from it.
        start: what the video starts from, already read and fitted.
    """

    request: Request
    plan: SamplingPlan
    start: Start

    @property
    def prompts(self) -> tuple[str, ...]:
        """Every prompt that the run encodes, once; under guidance the negative one too."""
        told = [prompt for timeline in self.request.timelines for prompt in timeline.prompts]
        negative = [self.request.negative] if self.plan.guidance.needs_negative else []
        return tuple(dict.fromkeys([*told, *negative]))


def prepare(
    info: CheckpointInfo,
    prompts: str | Sequence[str] | None = None,
    *,
    timeline: TimelineLike | None = None,
    blend: int = 0,
    negative_prompt: str = "",
    image: Any | None = None,
    video: Any | None = None,
    fit: str = "crop",
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    seed: int | Sequence[int] = 0,
    steps: Sequence[int] | None = None,
    guidance: float | None = None,
    fps: float = 24.0,
    motion: float = 1.0,
    anchor: str = "first-frame",
    amplify_first_chunk: bool | None = None,
    noise: str = "default",
    encoder: PromptEncoder | None = None,
) -> Prepared:
    """Check a run against a checkpoint and fill in what the checkpoint decides.

    The arguments are those of :meth:`Helios.generate`; ``None`` means the checkpoint's own preset.

    Raises: InputError, one sentence, for anything that cannot work.
    """
    change_of(blend)
    timelines = _timelines(prompts, timeline, blend, fps, info.geometry.chunk_frames)
    preset = info.preset
    request = Request(
        timelines=timelines,
        seeds=_seeds(seed, len(timelines)),
        negative=negative_prompt or "",
        num_frames=preset.num_frames if num_frames is None else num_frames,
        height=preset.height if height is None else height,
        width=preset.width if width is None else width,
        fps=fps,
        steps=preset.steps if steps is None else _listed("steps", steps),
        guidance_scale=getattr(preset.guidance, "scale", 1.0) if guidance is None else guidance,
        motion=motion,
        anchor=anchor,
        amplify_first_chunk=preset.amplify_first_chunk if amplify_first_chunk is None else amplify_first_chunk,
        noise=noise,
        fit=fit,
    )
    _check_ends(request, info.geometry.chunk_frames)
    return check(info, request, image=image, video=video, encoder=encoder)


def check(
    info: CheckpointInfo,
    request: Request,
    *,
    image: Any | None = None,
    video: Any | None = None,
    encoder: PromptEncoder | None = None,
) -> Prepared:
    """Check a whole request against a checkpoint and read its image or video. Loads no weights.

    A frame size that the checkpoint was not trained at, and words that its tokenizer does not know, are taken with a
    warning.

    Args:
        encoder: counts the tokens of the prompts; the checkpoint's own if left out (its tokenizer is read).
    Raises: InputError, one sentence, for anything that cannot work.
    """
    encoder = encoder or loaders_of(info).load_prompt_encoder(info, device="cpu", dtype=torch.float32)
    _check_prompts(request, encoder)
    if not info.random_weights:
        told = [prompt for timeline in request.timelines for prompt in timeline.prompts]
        _warn_unknown_words(tuple(word for prompt in told for word in encoder.spelled(prompt)))
    plan = plan_for(info, request)
    trained = info.preset.height, info.preset.width
    if (request.height, request.width) != trained and not info.random_weights:
        _warn_outside_training(info.path.name, (request.height, request.width), trained)
    start = read_start(
        image=image,
        video=video,
        height=request.height,
        width=request.width,
        fps=request.fps,
        geometry=info.geometry,
        anchor=plan.anchor,
        fit=request.fit,
    )
    request = replace(request, inputs=describe_inputs(image=image, video=video))
    return Prepared(request=request, plan=plan, start=start)


@lru_cache(maxsize=256)  # a service that runs for months sees ever new prompts
def _warn_unknown_words(words: tuple[str, ...]) -> None:
    """Once for the same words, unless many others came between."""
    if words:
        listed = ", ".join(map(repr, dict.fromkeys(words)))
        logger.warning("the model has not learnt the words %s: it reads them letter by letter", listed)


@cache
def _warn_outside_training(name: str, size: tuple[int, int], trained: tuple[int, int]) -> None:
    """Once for each model and size of this process."""
    asked, known = ("{}x{}".format(*sides) for sides in (size, trained))
    logger.warning("%s is outside training: %s was trained at %s (height x width) only", asked, name, known)


def loaders_of(info: CheckpointInfo):
    """The module that loads the parts of a checkpoint: from its files, or made up where it has none."""
    return synthetic if isinstance(info, synthetic.SyntheticInfo) else load


def _check_prompts(request: Request, encoder: PromptEncoder) -> None:
    for timeline in request.timelines:
        for prompt in timeline.prompts:
            encoder.check(prompt)
    encoder.check(request.negative, allow_empty=True)


def plan_for(info: CheckpointInfo, request: Request) -> SamplingPlan:
    """The sampling plan of a request on a checkpoint."""
    return SamplingPlan(
        geometry=info.geometry,
        scheduler=info.scheduler,
        height=request.height,
        width=request.width,
        steps=request.steps,
        guidance=guidance_for(request.guidance_scale, info.preset.guidance),
        anchor=request.anchor_policy,
        amplify_first_chunk=request.amplify_first_chunk,
    )


def _timelines(
    prompts: str | Sequence[str] | None, timeline: TimelineLike | None, blend: int, fps: float, chunk_frames: int
) -> tuple[Timeline, ...]:
    if timeline is not None:
        if prompts:
            raise InputError("a prompt and a timeline were both given: put the prompt into the timeline at time 0")
        if isinstance(timeline, Timeline):
            return (timeline,)
        entries = read_timeline(timeline) if isinstance(timeline, str | Path) else list(timeline)
        return (timeline_of(entries, fps=fps, chunk_frames=chunk_frames, blend=blend),)
    if prompts is None:
        raise InputError("no prompt was given: say what the video should show")
    return tuple(Timeline.single(prompt) for prompt in ([prompts] if isinstance(prompts, str) else prompts))


def _check_ends(request: Request, chunk_frames: int) -> None:
    """Refuse a timeline that goes on after the video has ended. (A saved stream may keep one: it can be made longer.)"""
    for cue in (cue for timeline in request.timelines for cue in timeline.cues):
        frame = cue.chunk * chunk_frames
        if frame >= request.num_frames:
            seconds = [f"{count} ({count / request.fps:.1f} s)" for count in (frame, request.num_frames)]
            raise InputError(
                f"the timeline turns to {cue.prompt!r} at frame {seconds[0]}, and the video ends at {seconds[1]}: "
                "ask for more frames, or leave that prompt out"
            )


def _seeds(seed: int | Sequence[int], count: int) -> tuple[int, ...]:
    """One seed per video; a single number counts up over a batch."""
    if isinstance(seed, Iterable):
        return tuple(seed)
    if not isinstance(seed, Integral):
        raise InputError(f"seed={seed!r} is not a whole number: pass one, or one per video")
    return tuple(int(seed) + i for i in range(count))


def _listed(name: str, values: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(values, Iterable):
        raise InputError(f"{name}={values!r} is not a list: pass one number per level, for example (2, 2, 2)")
    return tuple(values)
