"""One running stream.

B videos, C channels, T latent frames, F pixel frames, H W height and width.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from helios.conditioning.timeline import Timeline
from helios.device import device_memory
from helios.engine.pace import InTurn, Pace, Piece
from helios.engine.precision import Precision
from helios.engine.request import Request
from helios.engine.shortage import naming_shortage
from helios.engine.state import SessionState
from helios.engine.text import StreamText
from helios.engine.video import Chunk, ChunkTimings
from helios.engine.watch import ChunkWatch, ProgressCallback
from helios.errors import Cancelled, InputError
from helios.models.vae import HeliosVAE
from helios.noise import NoiseSource
from helios.sampling.plan import SamplingPlan
from helios.sampling.rollout import OneBatch, PassLayout, RolloutState, rollout

if TYPE_CHECKING:
    from helios.models.transformer.model import HeliosTransformer3DModel


class PixelFormat(Protocol):
    """Turns decoded pixels in [-1, 1] into what leaves the device."""

    def convert(self, vae: HeliosVAE, pixels_BCFHW: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Uint8Pixels:
    """[B, F, H, W, 3] uint8, converted on the device so that a quarter of the bytes are copied."""

    def convert(self, vae: HeliosVAE, pixels_BCFHW: Tensor) -> Tensor:
        return vae.to_uint8(pixels_BCFHW)


@dataclass(frozen=True)
class FloatPixels:
    """[B, F, H, W, 3] float32 in [0, 1], without rounding."""

    def convert(self, vae: HeliosVAE, pixels_BCFHW: Tensor) -> Tensor:
        return (pixels_BCFHW.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 4, 1)


class Decoding(Protocol):
    """How the latents of a chunk become pixels."""

    def pieces(self, vae: HeliosVAE, latents_BCTHW: Tensor) -> Iterator[Tensor]:
        """Pixels [B, 3, F, H, W] in [-1, 1], in one or more pieces along time."""
        ...


@dataclass(frozen=True, kw_only=True)
class WholeChunks:
    """All frames of a chunk at once: the fastest.

    Args:
        latents_per_part: decode this many latent frames at a time, with the same result and less memory; None is all.
    """

    latents_per_part: int | None = None

    def pieces(self, vae: HeliosVAE, latents_BCTHW: Tensor) -> Iterator[Tensor]:
        yield vae.decode(latents_BCTHW, latents_per_part=self.latents_per_part)


@dataclass(frozen=True)
class EarlyFrames:
    """Each latent frame's pixels as soon as they are decoded: the first frame leaves before the last is begun."""

    def pieces(self, vae: HeliosVAE, latents_BCTHW: Tensor) -> Iterator[Tensor]:
        yield from vae.decode_progressive(latents_BCTHW)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The loaded pieces of a checkpoint that a session runs on.

    Attributes:
        transformer, vae: in evaluation mode; the VAE may be on a second device.
        device: where chunks are denoised.
        identity: of the checkpoint.
    """

    transformer: "HeliosTransformer3DModel"
    vae: HeliosVAE
    device: torch.device
    identity: str

    @property
    def precision(self) -> Precision:
        """The dtypes that were loaded, and the approximations made since."""
        return Precision.of(self.transformer.dtype, self.vae.dtype, self.transformer.approximations)


class Session:
    """One stream of chunks; iterate over it. Its memory does not depend on the length of the video.

    The state between two chunks is a few megabytes: :meth:`save` writes it, ``Helios.resume`` takes it up again, and a
    second session from the same file branches the video. Another thread may call :meth:`set_prompt` and :meth:`cancel`.
    """

    def __init__(
        self,
        parts: Parts,
        plan: SamplingPlan,
        request: Request,
        text: StreamText,
        state: SessionState,
        noise: NoiseSource,
        *,
        progress: ProgressCallback | None = None,
        pixels: PixelFormat = Uint8Pixels(),
        decoding: Decoding = WholeChunks(),
        layout: PassLayout = OneBatch(),
        pace: Pace = InTurn(),
    ) -> None:
        """Made by ``Helios.open`` and ``Helios.resume``.

        Args:
            parts: the loaded models.
            plan: sizes, schedules and guidance; fixed while the stream runs.
            request: what was asked for: length, seeds, frame rate, and the timelines at the start.
            text: where each chunk's prompts come from.
            state: the stream before its first chunk, on the device of ``parts``.
            noise: random numbers by chunk.
            progress: called after every denoising step, from the thread that iterates.
            pixels: what leaves the device, uint8 or floats.
            decoding: whole chunks, or frames as early as they are decoded.
            layout: under guidance, both passes as one batch or one after the other.
            pace: decode each chunk before the next is begun, or beside it.
        """
        self.plan, self.request = plan, request
        self._parts, self._text, self._state, self._noise = parts, text, state, noise
        self._progress, self._pixels, self._decoding = progress, pixels, decoding
        self._layout, self._pace = layout, pace
        self._stop = threading.Event()
        self._first_chunk = state.rollout.chunk
        # A chunk that was handed out in part is made again as it was: a new prompt waits for the one after it.
        begun = state.frames_done > self._first_chunk * plan.geometry.chunk_frames
        text.stand_at(self._first_chunk + begun)
        self._stream = self._run()

    @property
    def num_chunks(self) -> int:
        """Number of the chunk after the last one of this session."""
        return self.request.chunks(self.plan.geometry)

    @property
    def timelines(self) -> tuple[Timeline, ...]:
        """The prompts of each video, with every change so far."""
        return self._text.timelines

    @property
    def frames_done(self) -> int:
        """Frames of the video that have been handed out, those of resumed sessions included."""
        return self._state.frames_done

    @property
    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._stop.is_set()

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        """The next chunk, or piece of one.

        Raises: GenerationError when numbers break or memory runs out; what was handed out before can be saved.
        """
        with naming_shortage(lambda: self._parts.precision, self.request):
            return next(self._stream)

    def set_prompt(self, prompt: str, *, blend: int = 0) -> int:
        """Turn to another prompt at the next chunk that has not begun.

        Args:
            blend: chunks over which the old prompt fades into it; 0 is a hard cut.
        Returns: the number of the first frame that shows it.
        Raises: InputError when the prompt is empty or too long, or the video ends before it could show; GenerationError
            when the text encoder had been freed and there is no room to load it again. The stream then goes on as before.
        """
        first_frame = self._text.next_chunk * self.plan.geometry.chunk_frames
        if first_frame >= self.request.num_frames:
            end = self.request.num_frames
            raise InputError(
                f"a new prompt could show from frame {first_frame}, the video ends at {end}: make it longer"
            )
        with naming_shortage(lambda: self._parts.precision, self.request):
            return self._text.change(prompt, blend=blend) * self.plan.geometry.chunk_frames

    def cancel(self) -> None:
        """Stop after the step that is running; finished chunks stay, the one in the making is dropped."""
        self._stop.set()

    def state(self) -> SessionState:
        """The stream as it stands after the last chunk that was handed out.

        Raises: InputError with the reference noise source, whose draws have no addresses.
        """
        if self.request.noise != "default":
            raise InputError("a run with noise=reference cannot be saved: its random numbers depend on all before them")
        request = replace(self.request, timelines=self._text.timelines)
        return replace(self._state, request=request, precision=self._parts.precision)

    def save(self, path: str | Path) -> Path:
        """Write the stream to a file of a few megabytes; see :meth:`state`."""
        return self.state().save(path)

    def _run(self) -> Iterator[Chunk]:
        coming: _Made | None = None
        failure: Exception | None = None
        while failure is None and self._state.frames_done < self.request.num_frames and not self.cancelled:
            made = coming or self._make(self._state.rollout)
            if made is None:
                return
            ahead = self._pace.looks_ahead and made.after.chunk < self.num_chunks
            try:
                coming = self._make(made.after) if ahead else None
            except (RuntimeError, MemoryError) as error:  # must not cost the chunk before it, which is finished
                failure = error
            yield from self._hand_out(made)
        if failure is not None:
            raise failure

    def _make(self, before: RolloutState) -> "_Made | None":
        """Denoise one chunk and begin its delivery; None when it was cancelled."""
        watch = ChunkWatch(
            self.plan,
            self._parts.device,
            stop=self._stop,
            progress=self._progress,
            chunks=self.num_chunks,
            first_chunk=self._first_chunk,
        )
        try:
            latents_BCTHW, after = self._denoise(before, watch)
        except Cancelled:
            return None
        watch.finite.send()
        pieces = self._pace.deliver(self._decode, latents_BCTHW, self._parts.vae.device)
        return _Made(before=before, after=after, watch=watch, pieces=pieces)

    @torch.no_grad()
    def _denoise(self, before: RolloutState, watch: ChunkWatch) -> tuple[Tensor, RolloutState]:
        steps = rollout(
            self._parts.transformer,
            self.plan,
            self._text,
            before,
            self._noise,
            chunks=1,
            layout=self._layout,
            observer=watch,
        )
        return next(steps)

    def _decode(self, latents_BCTHW: Tensor) -> Iterator[Tensor]:
        vae = self._parts.vae
        for pixels_BCFHW in self._decoding.pieces(vae, latents_BCTHW):
            yield self._pixels.convert(vae, pixels_BCFHW)

    def _hand_out(self, made: "_Made") -> Iterator[Chunk]:
        first_frame = made.before.chunk * self.plan.geometry.chunk_frames
        for piece in made.pieces:
            if self.cancelled and first_frame > made.before.chunk * self.plan.geometry.chunk_frames:
                return
            frames_BFHWC = piece.copy.wait()
            made.watch.finite.check(made.before.chunk)
            kept = self._cut(frames_BFHWC, first_frame)
            first_frame += frames_BFHWC.shape[1]
            if kept is None:
                continue
            begin, kept_BFHWC = kept
            self._advance(made.before, made.after, begin + kept_BFHWC.shape[1])
            yield self._chunk(made, piece, begin, kept_BFHWC)

    def _cut(self, frames_BFHWC: Tensor, first_frame: int) -> tuple[int, Tensor] | None:
        """The part of a piece that is new and was asked for: its first frame number and its frames."""
        begin = max(first_frame, self._state.frames_done)
        end = min(first_frame + frames_BFHWC.shape[1], self.request.num_frames)
        if begin >= end:
            return None
        return begin, frames_BFHWC[:, begin - first_frame : end - first_frame]

    def _advance(self, before: RolloutState, after: RolloutState, frames_done: int) -> None:
        # A chunk that is not handed out whole stays the next one: taking the stream up again makes it anew, and the
        # frames that were cut are not lost.
        whole = frames_done == after.chunk * self.plan.geometry.chunk_frames
        self._state = replace(self._state, rollout=after if whole else before, frames_done=frames_done)

    def _chunk(self, made: "_Made", piece: Piece, first_frame: int, frames_BFHWC: Tensor) -> Chunk:
        index, (condition, *levels) = made.before.chunk, made.watch.stopwatch.laps()
        decode, copy = piece.stopwatch.laps()
        timings = ChunkTimings(
            condition=condition,
            levels=tuple(levels),
            decode=decode,
            copy=copy,
            total=made.watch.stopwatch.total(),
        )
        return Chunk(
            index=index,
            first_frame=first_frame,
            frames_BFHWC=frames_BFHWC.numpy(),
            timings=timings,
            memory=device_memory(self._parts.device),
            prompts=tuple(timeline.at(index).after for timeline in self._text.timelines),
        )


@dataclass(frozen=True, kw_only=True)
class _Made:
    """A chunk that has been denoised and is being delivered; the states before and after it."""

    before: RolloutState
    after: RolloutState
    watch: ChunkWatch
    pieces: Iterator[Piece]
