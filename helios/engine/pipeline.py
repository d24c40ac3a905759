"""``Helios``: a loaded checkpoint that generates, streams and resumes video."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from helios import __version__
from helios.checkpoints import CheckpointInfo, inspect, resolve
from helios.checkpoints.embedded import DEFAULT, SMALL
from helios.conditioning.picture import Motion
from helios.device import default_dtype, resolve_device
from helios.engine.acceleration import Acceleration
from helios.engine.approximation import Approximation, Fp8Linears, ReusedHistory, apply_all, measured_steps, psnr
from helios.engine.approximation import check as check_approximable
from helios.engine.pace import InTurn, Pace
from helios.engine.precision import Precision
from helios.engine.prepare import Prepared, loaders_of, plan_for, prepare
from helios.engine.request import Request
from helios.engine.session import Decoding, FloatPixels, Parts, PixelFormat, Session, Uint8Pixels, WholeChunks
from helios.engine.shortage import naming_shortage
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
        """The dtypes that were loaded, and the approximations made since."""
        return Precision.of(self.transformer.dtype, self.vae.dtype, self.transformer.approximations)

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
        weights: str = "exact",
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
            weights: ``exact``, or ``fp8``: the transformer's inner layers are rounded to 8-bit floats while they load,
                where the exact ones have no room (:class:`helios.engine.approximation.Fp8Linears`).
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
            weights=weights,
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
        weights: str = "exact",
        source: str | None = None,
    ) -> "Helios":
        """Load a checkpoint that has been inspected; arguments as for :meth:`from_pretrained`.

        Args:
            source: where the checkpoint is found again, for saved sessions; the folder of ``info`` if left out.
        """
        if weights not in _WEIGHTS:
            raise InputError(f"weights={weights!r} is unknown: use {' or '.join(_WEIGHTS)}")
        device = resolve_device(device)
        vae_device = device if vae_device is None else resolve_device(vae_device)
        dtype, vae_dtype = parse_dtype(dtype, device), parse_dtype(vae_dtype, device)
        loaders = loaders_of(info)
        with naming_shortage(partial(Precision.of, dtype, vae_dtype)):
            encoder = loaders.load_prompt_encoder(info, device=device, dtype=dtype)
            if prompts:
                _encode_and_release(encoder, prompts, guided=info.preset.guidance.needs_negative)
            return cls(
                info,
                transformer=_WEIGHTS[weights](loaders, info, device=device, dtype=dtype),
                vae=loaders.load_vae(info, device=vae_device, dtype=vae_dtype),
                encoder=encoder,
                device=device,
                source=source,
            )

    def accelerate(self, *accelerations: Acceleration) -> "Helios":
        """Apply exact accelerations, in order; see :mod:`helios.engine.acceleration`. Returns this object."""
        for acceleration in accelerations:
            acceleration.apply(self.transformer, self.vae)
        return self

    def approximate(
        self,
        prepared: Prepared,
        *approximations: Approximation,
        decoding: Decoding = WholeChunks(),
        layout: PassLayout = OneBatch(),
    ) -> float:
        """Apply approximations, in order, and measure them; see :mod:`helios.engine.approximation`.

        Args:
            prepared: the run that they are for. Its first chunk is made exactly and its second one, after that, exactly
                and approximately; with four steps a level at most, and none more for the first chunk.
            decoding, layout: of the run, as for :meth:`open`.
        Returns: peak signal-to-noise ratio of the approximate frames to the exact ones (to those of the model as it was),
            in decibels; infinite when equal.
        Raises: InputError when one of them does not suit the model.
        """
        check_approximable(self.transformer, approximations)
        chunk = self.info.geometry.chunk_frames
        steps = measured_steps(prepared.request.steps)
        how = {"num_frames": 2 * chunk, "steps": steps, "amplify_first_chunk": False, "noise": "default"}
        request = replace(prepared.request, **how)
        short = replace(prepared, request=request, plan=plan_for(self.info, request))
        shown = {"progress": None, "pixels": FloatPixels(), "decoding": decoding, "layout": layout, "pace": InTurn()}
        session = self.open(short, **shown)
        _frames_until(session, chunk)
        state = session.state()
        exact = _frames_until(session, 2 * chunk)
        apply_all(self.transformer, approximations)
        again = self._session(short.plan, state, request.noise_source(), **shown)
        return psnr(exact, _frames_until(again, 2 * chunk))

    def warm_up(self, prepared: Prepared, *, decoding: Decoding = WholeChunks()) -> None:
        """Run every level of a prepared run and the decoder once, so that compilers and libraries have chosen their
        code, and allocators their memory, before the first chunk. Changes nothing else.

        Args:
            decoding: that of the run; parts of a chunk are other sizes than whole ones.
        """
        kept = int(ReusedHistory.name in self.transformer.approximations)  # steps after the first leave its rows out
        steps = tuple(_first_run(prepared.plan, level) + kept for level in range(self.info.geometry.levels))
        request = replace(prepared.request, num_frames=1, steps=steps, amplify_first_chunk=False)
        for _ in self.open(replace(prepared, request=request, plan=plan_for(self.info, request)), decoding=decoding):
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
        with naming_shortage(lambda: self.precision, request):
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


def _exact_transformer(loaders, info: CheckpointInfo, **where) -> "HeliosTransformer3DModel":
    return loaders.load_transformer(info, **where)


def _rounded_transformer(loaders, info: CheckpointInfo, **where) -> "HeliosTransformer3DModel":
    transformer, error = loaders.load_rounded_transformer(info, **where)
    transformer.approximations = (Fp8Linears.name,)
    logger.warning("fp8: weights were rounded while they loaded, by %.1f %% (root mean square)", 100 * error)
    return transformer


_WEIGHTS = {"exact": _exact_transformer, "fp8": _rounded_transformer}


def _frames_until(session: Session, count: int) -> np.ndarray:
    """The next frames of a session [B, F, H, W, 3], up to ``count`` from its beginning."""
    pieces = []
    while session.frames_done < count:
        pieces.append(next(session).frames_BFHWC)
    return np.concatenate(pieces, axis=1)


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


def _first_run(plan: SamplingPlan, level: int) -> int:
    """Steps after which a level has run the network once: some guidance makes the first velocities zero unseen."""
    return next(step + 1 for step in range(1000) if not plan.guidance.zeroes(level, step))


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
