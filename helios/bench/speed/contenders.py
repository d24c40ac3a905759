"""Who runs: Helios, and Diffusers' released pipeline on the same weights.

B batch, S text tokens, E text width, F pixel frames, H W pixel height and width.
"""

import time
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch

from helios.checkpoints import CheckpointInfo
from helios.checkpoints.layout import published_scheduler
from helios.checkpoints.load import weightless
from helios.checkpoints.synthetic import SyntheticInfo
from helios.device import synchronize
from helios.engine.acceleration import allow_recompiling
from helios.engine.pace import InTurn, Pace
from helios.engine.pipeline import Helios
from helios.engine.prepare import Prepared
from helios.engine.session import FloatPixels
from helios.engine.video import ChunkTimings
from helios.engine.watch import Stopwatch
from helios.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Run:
    """One timed generation.

    Attributes:
        wall_s, cpu_s: elapsed time and processor time of the process.
        frames: handed out.
        first_frame_s: until the first frames were on the host.
        text_s: the text encoder, or 0 where it cannot be told apart.
        chunk_s: seconds of each chunk after the first one handed out; empty where chunks are not handed out.
        chunks: what each chunk spent its time on; empty likewise.
        allocated: bytes on the device (on the CPU: of the process) after each chunk.
        denoise_s, decode_s: the network's evaluations and the VAE, over the whole run.
        last_frames_FHWC: of the last chunk, uint8.
    """

    wall_s: float
    cpu_s: float
    frames: int
    first_frame_s: float
    text_s: float = 0.0
    chunk_s: tuple[float, ...] = ()
    chunks: tuple[ChunkTimings, ...] = ()
    allocated: tuple[int, ...] = ()
    denoise_s: float
    decode_s: float
    last_frames_FHWC: np.ndarray | None = field(default=None, repr=False)

    @property
    def fps(self) -> float:
        return self.frames / self.wall_s


class Contender(Protocol):
    """Something that generates the prepared run."""

    name: str

    def run(self) -> Run: ...

    def pixels(self) -> np.ndarray:
        """Frames [F, H, W, 3] float32 in [0, 1] of the same run with the published order of draws."""
        ...


class HeliosContender:
    """Our engine: text is encoded in the run, frames leave as uint8."""

    name = "helios"

    def __init__(self, helios: Helios, prepared: Prepared, *, pace: Pace = InTurn()) -> None:
        self._helios, self._prepared, self._pace = helios, prepared, pace

    def run(self) -> Run:
        self._helios.encoder.forget()  # Text encoding is part of a run, as it is in the other contenders.
        began, cpu = time.perf_counter(), time.process_time()
        self._helios.encoder.encode(list(self._prepared.request.timelines[0].prompts))
        synchronize(self._helios.device)
        text_s = time.perf_counter() - began
        timings, marks, allocated, frames = [], [], [], 0
        for chunk in self._helios.open(self._prepared, pace=self._pace):
            marks.append(time.perf_counter())
            timings.append(chunk.timings)
            allocated.append(chunk.memory.allocated)
            frames += len(chunk.frames)
        synchronize(self._helios.device)
        return Run(
            wall_s=time.perf_counter() - began,
            cpu_s=time.process_time() - cpu,
            frames=frames,
            first_frame_s=marks[0] - began,
            text_s=text_s,
            chunk_s=tuple(after - before for before, after in pairwise(marks)),
            chunks=tuple(timings),
            allocated=tuple(allocated),
            denoise_s=sum(t.condition + sum(t.levels) for t in timings),
            decode_s=sum(t.decode for t in timings),
            last_frames_FHWC=chunk.frames,
        )

    def pixels(self) -> np.ndarray:
        prepared = replace(self._prepared, request=replace(self._prepared.request, noise="reference"))
        session = self._helios.open(prepared, pixels=FloatPixels(), pace=self._pace)
        return np.concatenate([chunk.frames for chunk in session])


class DiffusersContender:
    """The released pipeline on the tensors of a loaded Helios; ``compiled`` compiles its repeated blocks."""

    def __init__(self, helios: Helios, prepared: Prepared, *, compiled: bool = False) -> None:
        from diffusers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.name = "diffusers compiled" if compiled else "diffusers"
        request = prepared.request
        if request.anchor != "first-frame" or len(request.seeds) > 1:
            raise InputError("the comparison runs one video with the first-frame anchor: leave anchor and batch out")
        self._pipe = _published_pipeline(helios)
        self._pipe.set_progress_bar_config(disable=True)
        if compiled:
            allow_recompiling()
            self._pipe.transformer.compile_repeated_blocks(fullgraph=True, dynamic=False)
        self._request, self._device = request, helios.device
        self._denoise = _CallTimer(self._pipe.transformer, "forward", helios.device)
        self._decode = _CallTimer(self._pipe.vae, "decode", helios.device)
        self._text = _text_arguments(helios, prepared)

    def _arguments(self) -> dict[str, Any]:
        request = self._request
        common = {
            **self._text,
            "num_frames": request.num_frames,
            "height": request.height,
            "width": request.width,
            "guidance_scale": request.guidance_scale,
            "output_type": "np",
            "generator": torch.Generator().manual_seed(request.seeds[0]),
        }
        if len(request.steps) == 1:
            return common | {"num_inference_steps": request.steps[0]}
        return common | {
            "pyramid_num_inference_steps_list": list(request.steps),
            "is_amplify_first_chunk": request.amplify_first_chunk,
        }

    def run(self) -> Run:
        began, cpu = time.perf_counter(), time.process_time()
        with self._denoise, self._decode:
            self.pixels()
            synchronize(self._device)
        wall = time.perf_counter() - began
        return Run(
            wall_s=wall,
            cpu_s=time.process_time() - cpu,
            frames=self._request.num_frames,  # it makes all of them, though it hands out a few less (4 m + 1)
            first_frame_s=wall,
            denoise_s=self._denoise.seconds(),
            decode_s=self._decode.seconds(),
        )

    def pixels(self) -> np.ndarray:
        with torch.no_grad(), _positive_definite():
            return self._pipe(**self._arguments()).frames[0]


class _CallTimer:
    """Adds up the time of a method's calls, without waiting for the device."""

    def __init__(self, owner: Any, method: str, device: torch.device) -> None:
        self._owner, self._method, self._device = owner, method, device
        self._plain = getattr(owner, method)
        self._calls: list[Stopwatch] = []

    def __enter__(self) -> None:
        self._calls.clear()
        setattr(self._owner, self._method, self._timed)

    def __exit__(self, *error) -> None:
        setattr(self._owner, self._method, self._plain)

    def _timed(self, *inputs, **named) -> Any:
        stopwatch = Stopwatch(self._device)
        result = self._plain(*inputs, **named)
        stopwatch.mark()
        self._calls.append(stopwatch)
        return result

    def seconds(self) -> float:
        return sum(stopwatch.laps()[0] for stopwatch in self._calls)


def _published_pipeline(helios: Helios):
    """Diffusers' pipeline around our tensors: nothing is in memory twice but the text encoder."""
    from diffusers import HeliosPipeline, HeliosPyramidPipeline

    info = helios.info
    pipeline_class = HeliosPipeline if info.geometry.levels == 1 else HeliosPyramidPipeline
    models = {"transformer": _published_transformer(helios), "vae": helios.vae.module}
    if not isinstance(info, SyntheticInfo):
        pipe = pipeline_class.from_pretrained(info.path, **models, torch_dtype=helios.transformer.dtype)
        pipe.text_encoder.to(helios.device)
        return pipe
    marks = {} if info.geometry.levels == 1 else {"is_distilled": info.variant.value == "distilled"}
    marks |= {"is_cfg_zero_star": True} if info.variant.value == "mid" else {}
    return pipeline_class(tokenizer=None, text_encoder=None, scheduler=_published_scheduler(info), **models, **marks)


def _published_transformer(helios: Helios):
    from diffusers import HeliosTransformer3DModel

    with weightless():
        model = HeliosTransformer3DModel.from_config(helios.info.transformer_config)
    model.load_state_dict(helios.transformer.state_dict(), assign=True)
    return model.eval().requires_grad_(False).to(helios.device)


def _published_scheduler(info: CheckpointInfo):
    import diffusers

    config = published_scheduler(info.variant)
    return getattr(diffusers, config["_class_name"]).from_config(config)


def _text_arguments(helios: Helios, prepared: Prepared) -> dict[str, Any]:
    """The prompts, or their states where there is no text encoder to run."""
    prompts = {"prompt": prepared.request.timelines[0].prompts[0], "negative_prompt": prepared.request.negative}
    if not isinstance(helios.info, SyntheticInfo):
        return prompts | {"max_sequence_length": helios.info.text_tokens}  # padding is attended to
    return {f"{name}_embeds": helios.encoder.encode([text]) for name, text in prompts.items()}


class _positive_definite:
    """The published block noise factors a matrix that is singular in float32 at gamma = 1/3, and fails on CPUs; its
    factor is computed in float64 meanwhile, so that the comparison can run at all.
    """

    def __enter__(self) -> None:
        self._original = torch.linalg.cholesky
        torch.linalg.cholesky = self._factor

    def __exit__(self, *error) -> None:
        torch.linalg.cholesky = self._original

    def _factor(self, matrix: torch.Tensor, **options) -> torch.Tensor:
        from helios.schedulers.renoise import cholesky_rows

        if matrix.shape != (4, 4):
            return self._original(matrix, **options)
        gamma = -float(matrix[0, 1])
        rows = cholesky_rows(1 / 3 if abs(gamma - 1 / 3) < 1e-6 else gamma)
        padded = [[*row, *[0.0] * (4 - len(row))] for row in rows]
        return torch.tensor(padded, dtype=matrix.dtype, device=matrix.device)
