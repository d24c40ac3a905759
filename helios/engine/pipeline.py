"""``Helios``: a loaded checkpoint that generates, streams and resumes video."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from helios import __version__
from helios.checkpoints import CheckpointInfo, inspect, load, resolve, synthetic
from helios.checkpoints.embedded import DEFAULT, SMALL
from helios.conditioning.picture import Motion
from helios.conditioning.timeline import Timeline, change_of, read_timeline, timeline_of
from helios.device import default_dtype, resolve_device
from helios.engine.acceleration import Acceleration
from helios.engine.pace import InTurn, Pace
from helios.engine.precision import Precision
from helios.engine.request import Request, guidance_for
from helios.engine.session import Decoding, Parts, PixelFormat, Session, Uint8Pixels, WholeChunks
from helios.engine.shortage import naming_shortage
from helios.engine.start import Start, describe_inputs, read_start
from helios.engine.state import SessionState
from helios.engine.text import StreamText
from helios.engine.video import Chunk, Video
from helios.engine.watch import ProgressCallback
from helios.errors import InputError
from helios.models.text_encoder import PromptEncoder
from helios.models.vae import HeliosVAE
from helios.sampling.plan import SamplingPlan
from helios.sampling.rollout import OneBatch, PassLayout

if TYPE_CHECKING:
    from helios.models.transformer.model import HeliosTransformer3DModel

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
    encoder = encoder or _loaders(info).load_prompt_encoder(info, device="cpu", dtype=torch.float32)
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


@cache
def _warn_unknown_words(words: tuple[str, ...]) -> None:
    """Once for the same words in this process."""
    if words:
        listed = ", ".join(map(repr, dict.fromkeys(words)))
        logger.warning("the model has not learnt the words %s: it reads them letter by letter", listed)


@cache
def _warn_outside_training(name: str, size: tuple[int, int], trained: tuple[int, int]) -> None:
    """Once for each model and size of this process."""
    asked, known = ("{}x{}".format(*sides) for sides in (size, trained))
    logger.warning("%s is outside training: %s was trained at %s (height x width) only", asked, name, known)


def _loaders(info: CheckpointInfo):
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


def _first_run(plan: SamplingPlan, level: int) -> int:
    """Steps after which a level has run the network once: some guidance makes the first velocities zero unseen."""
    return next(step + 1 for step in range(1000) if not plan.guidance.zeroes(level, step))


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


class Helios:
    """A loaded checkpoint.

    >>> from helios import Helios
    >>> video = Helios.from_pretrained().generate("a red circle moves right", num_frames=99)  # doctest: +SKIP
    >>> video.save("out.mp4")  # doctest: +SKIP
    """

    def __init__(
        self,
        info: CheckpointInfo,
        *,
        transformer: "HeliosTransformer3DModel",
        vae: HeliosVAE,
        encoder: PromptEncoder,
        device: torch.device,
        source: str | None = None,
    ) -> None:
        """Put loaded parts together; :meth:`from_pretrained` and :meth:`from_info` load them.

        Args:
            info: what the parts were loaded from.
            transformer: on ``device``, in evaluation mode.
            vae: on ``device``, or on a second one that decodes beside it.
            encoder: of prompts; its weights may have been released, another prompt loads them anew.
            device: where chunks are denoised.
            source: where the checkpoint is found again, for saved sessions; the folder of ``info`` if left out.
        """
        self.info = info
        self.transformer, self.vae, self.encoder, self.device = transformer, vae, encoder, device
        self.source = source or lasting_name(info.path)

    @property
    def precision(self) -> Precision:
        """The dtypes that were loaded."""
        return Precision.of(self.transformer.dtype, self.vae.dtype)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path | None = None,
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        vae_dtype: str | torch.dtype = torch.float32,
        vae_device: str | torch.device | None = None,
        prompts: str | Sequence[str] = (),
        revision: str | None = None,
        offline: bool | None = None,
    ) -> "Helios":
        """Load a checkpoint.

        Args:
            source: a folder, a Hugging Face id, ``modelscope:ORG/NAME``, a short name such as ``helios-distilled``, or
                None for the small model.
            device: ``auto`` takes the accelerator if there is one.
            dtype: of transformer and text encoder; ``auto`` is bfloat16 on accelerators and float32 on the CPU.
            vae_dtype: of the VAE; float32 is the published setting.
            vae_device: another device for the VAE; with :class:`helios.engine.pace.DecodeAhead` it decodes a chunk
                while the next one is denoised.
            prompts: one or more, encoded before the other weights load, and the text encoder freed again; its 11 GB in
                the released models and the transformer are then never in memory together. The empty negative prompt is
                encoded with them where the checkpoint is guided; another one belongs into the list. Prompts that are
                not in it load the text encoder anew.
            revision: commit, tag or branch on the hub.
            offline: True uses only what is on this machine.
        Raises: InputError when the checkpoint cannot be found, is damaged or contradicts itself; GenerationError when
            there is not enough memory.
        """
        return cls.from_info(
            inspect(resolve(source, revision=revision, offline=offline)),
            device=device,
            dtype=dtype,
            vae_dtype=vae_dtype,
            vae_device=vae_device,
            prompts=prompts,
            source=lasting_name(source),
        )

    @classmethod
    def from_info(
        cls,
        info: CheckpointInfo,
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        vae_dtype: str | torch.dtype = torch.float32,
        vae_device: str | torch.device | None = None,
        prompts: str | Sequence[str] = (),
        source: str | None = None,
    ) -> "Helios":
        """Load a checkpoint that has been inspected; arguments as for :meth:`from_pretrained`.

        Args:
            source: where the checkpoint is found again, for saved sessions; the folder of ``info`` if left out.
        """
        device = resolve_device(device)
        vae_device = device if vae_device is None else resolve_device(vae_device)
        dtype, vae_dtype = parse_dtype(dtype, device), parse_dtype(vae_dtype, device)
        loaders = _loaders(info)
        with naming_shortage(Precision.of(dtype, vae_dtype)):
            encoder = loaders.load_prompt_encoder(info, device=device, dtype=dtype)
            if prompts:
                _encode_and_release(encoder, prompts, guided=info.preset.guidance.needs_negative)
            return cls(
                info,
                transformer=loaders.load_transformer(info, device=device, dtype=dtype),
                vae=loaders.load_vae(info, device=vae_device, dtype=vae_dtype),
                encoder=encoder,
                device=device,
                source=source,
            )

    def accelerate(self, *accelerations: Acceleration) -> "Helios":
        """Apply exact accelerations, in order; see :mod:`helios.engine.acceleration`. Returns this object."""
        for acceleration in accelerations:
            acceleration.apply(self.transformer)
        return self

    def warm_up(self, prepared: Prepared) -> None:
        """Run every level of a prepared run and the decoder once, so that compilers and libraries have chosen their
        code, and allocators their memory, before the first chunk. Changes nothing else.
        """
        steps = tuple(_first_run(prepared.plan, level) for level in range(self.info.geometry.levels))
        request = replace(prepared.request, num_frames=1, steps=steps, amplify_first_chunk=False)
        for _ in self.open(replace(prepared, request=request, plan=plan_for(self.info, request))):
            pass

    def prepare(self, prompts: str | Sequence[str] | None = None, **settings) -> Prepared:
        """Check a run without starting it; the arguments are those of :meth:`generate`."""
        return prepare(self.info, prompts, encoder=self.encoder, **settings)

    def generate(
        self,
        prompt: str | None = None,
        *,
        progress: ProgressCallback | None = None,
        pixels: PixelFormat = Uint8Pixels(),
        **settings,
    ) -> Video:
        """Make one video.

        Args:
            prompt: what it shows; or pass ``timeline``.
            timeline: a file, (seconds, prompt) pairs or a Timeline; ``blend`` chunks fade from one to the next.
            negative_prompt: for the unconditional pass; unused without guidance.
            image: path, PIL image or [H, W, 3] uint8 to begin from. ``video``: path or [F, H, W, 3] to go on from.
            num_frames, height, width, fps: of the video; exactly as many frames come back.
            seed: same seed, same video.
            steps: per level, coarsest first.
            guidance: scale; 1 is none.
            motion: how far the video may move away from a given image or video; 1 as released.
            anchor: ``first-frame``, ``second-chunk`` or ``none``.
            noise: ``default`` or ``reference`` (the published order of draws, for parity).
            progress: called after every denoising step.
            pixels: uint8 frames, or :class:`helios.engine.session.FloatPixels`.
        Raises: InputError before anything runs; GenerationError when numbers break or memory runs out.
        """
        return self._collect(self.session(prompt, progress=progress, pixels=pixels, **settings))[0]

    def generate_batch(
        self, prompts: Sequence[str], *, progress: ProgressCallback | None = None, **settings
    ) -> list[Video]:
        """Make one video per prompt, together; each equals the video made alone with its seed."""
        return self._collect(self.session(list(prompts), progress=progress, **settings))

    def stream(self, prompt: str | None = None, **settings) -> Iterator[Chunk]:
        """Yield chunks as they are made; memory does not grow. Arguments as for :meth:`generate`."""
        return iter(self.session(prompt, **settings))

    def session(
        self,
        prompts: str | Sequence[str] | None = None,
        *,
        progress: ProgressCallback | None = None,
        pixels: PixelFormat = Uint8Pixels(),
        decoding: Decoding = WholeChunks(),
        layout: PassLayout = OneBatch(),
        pace: Pace = InTurn(),
        **settings,
    ) -> Session:
        """A stream whose prompt can be changed and whose state can be saved. Arguments as for :meth:`generate`."""
        prepared = self.prepare(prompts, **settings)
        return self.open(prepared, progress=progress, pixels=pixels, decoding=decoding, layout=layout, pace=pace)

    @torch.no_grad()
    def open(
        self,
        prepared: Prepared,
        *,
        progress: ProgressCallback | None = None,
        pixels: PixelFormat = Uint8Pixels(),
        decoding: Decoding = WholeChunks(),
        layout: PassLayout = OneBatch(),
        pace: Pace = InTurn(),
    ) -> Session:
        """Start a prepared run.

        Args:
            pixels: what leaves the device, uint8 or floats.
            decoding: whole chunks, or frames as early as they are decoded.
            layout: under guidance, both passes as one batch or one after the other.
            pace: decode each chunk before the next is begun, or beside it on an accelerator.
        """
        request, noise = prepared.request, prepared.request.noise_source()
        motion = Motion(amount=request.motion)
        batch = len(request.seeds)
        with naming_shortage(self.precision, request):
            rollout = prepared.start.state(self.vae, prepared.plan, noise, motion, batch, self.device)
        state = SessionState(
            rollout=rollout,
            frames_done=0,
            request=request,
            identity=self.info.identity,
            precision=self.precision,
            source=self.source,
        )
        how = {"progress": progress, "pixels": pixels, "decoding": decoding, "layout": layout, "pace": pace}
        return self._session(prepared.plan, state.to(self.device), noise, **how)

    def resume(
        self,
        path: str | Path,
        *,
        num_frames: int | None = None,
        progress: ProgressCallback | None = None,
        pixels: PixelFormat = Uint8Pixels(),
        decoding: Decoding = WholeChunks(),
        layout: PassLayout = OneBatch(),
        pace: Pace = InTurn(),
    ) -> Session:
        """Take a saved stream up again; only frames that were not handed out yet come out.

        In the precision it was saved in they are those of one uninterrupted run; another one is taken with a warning.

        Args:
            num_frames: length of the whole video from its beginning; the saved length if left out. To branch, change
                the prompt of the session before iterating.
            progress, pixels, decoding, layout, pace: as for :meth:`open`; a file does not keep them.
        Raises: InputError when the file belongs to another checkpoint, or the video is already that long.
        """
        state = SessionState.load(path).extended(num_frames, identity=self.info.identity, path=path).to(self.device)
        if state.precision not in (None, self.precision):
            change = f"was made in {state.precision} and goes on in {self.precision}"
            logger.warning("%s %s: the frames will not be those of one run", path, change)
        state = replace(state, source=self.source)
        plan, noise = plan_for(self.info, state.request), state.request.noise_source()
        how = {"progress": progress, "pixels": pixels, "decoding": decoding, "layout": layout, "pace": pace}
        return self._session(plan, state, noise, **how)

    def release_text_encoder(self) -> None:
        """Free the text encoder's weights; prompts encoded so far keep working."""
        self.encoder.release()

    def record(self, request: Request) -> dict:
        """Everything needed to repeat a run, as JSON data: settings, checkpoint, version."""
        return {
            "helios": __version__,
            "checkpoint": {
                "name": self.info.path.name,
                "identity": self.info.identity,
                "variant": self.info.variant.value,
            },
            **asdict(self.precision),
            "device": self.device.type,
            **request.to_json(),
        }

    def _session(self, plan: SamplingPlan, state: SessionState, noise, **how) -> Session:
        request = state.request
        text = StreamText(self.transformer, self.encoder, request.timelines, request.negative)
        parts = Parts(transformer=self.transformer, vae=self.vae, device=self.device, identity=self.info.identity)
        return Session(parts, plan, request, text, state, noise, **how)

    def _collect(self, session: Session) -> list[Video]:
        request, frames_BFHWC = session.request, None
        for chunk in session:
            if frames_BFHWC is None:
                shape = (len(request.seeds), request.num_frames, *chunk.frames_BFHWC.shape[2:])
                frames_BFHWC = np.empty(shape, chunk.frames_BFHWC.dtype)
            end = chunk.first_frame + chunk.frames_BFHWC.shape[1]
            frames_BFHWC[:, chunk.first_frame : end] = chunk.frames_BFHWC
        return [
            Video(frames_FHWC=frames, fps=request.fps, record=self.record(request.of(i)))
            for i, frames in enumerate(frames_BFHWC)
        ]


def _encode_and_release(encoder: PromptEncoder, prompts: str | Sequence[str], *, guided: bool) -> None:
    """Encode prompts, with the empty negative one that a guided run asks for, and free the text encoder."""
    told = [prompts] if isinstance(prompts, str) else list(prompts)
    encoder.encode([*told, ""] if guided else told)
    encoder.release()


def lasting_name(source: str | Path | None) -> str:
    """What finds a checkpoint again from anywhere: a folder's whole path, a name as it was given, the small model's."""
    if source is None:
        return DEFAULT
    folder = Path(source).expanduser()
    return str(folder.resolve()) if source not in SMALL and folder.is_dir() else str(source)


_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def parse_dtype(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """A dtype from its name; ``auto`` suits the device.

    Raises: InputError for a name that Helios does not run in.
    """
    if name == "auto":
        return default_dtype(device)
    if name in _DTYPES.values():
        return name
    if name not in _DTYPES:
        raise InputError(f"dtype={name!r} is unknown: use auto, {', '.join(_DTYPES)}")
    return _DTYPES[name]
