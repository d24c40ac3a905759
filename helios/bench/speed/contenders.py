"""Who runs: Helios, and Diffusers' released pipeline on the same weights."""

import time
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch

from helios.device import synchronize
from helios.engine.pipeline import Helios, Prepared
from helios.engine.session import FloatPixels
from helios.engine.video import Chunk
from helios.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Run:
    """One timed generation.

    Attributes:
        wall_s, cpu_s: elapsed time and processor time of the process.
        frames: handed out.
        first_frame_s: until the first frames were on the host.
        chunk_s: seconds of each chunk after the first one handed out; empty where chunks are not handed out.
        phases: seconds by phase, summed over the run.
    """

    wall_s: float
    cpu_s: float
    frames: int
    first_frame_s: float
    chunk_s: tuple[float, ...] = ()
    phases: dict[str, float] = field(default_factory=dict)

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

    def __init__(self, helios: Helios, prepared: Prepared) -> None:
        self._helios, self._prepared = helios, prepared

    def run(self) -> Run:
        self._helios.encoder.forget()  # Text encoding is part of a run, as it is in the other contenders.
        began, cpu = time.perf_counter(), time.process_time()
        session = self._helios.open(self._prepared)
        chunks, marks = [], []
        for chunk in session:
            marks.append(time.perf_counter())
            chunks.append((chunk.timings, chunk.frames.shape[0]))
        synchronize(self._helios.device)
        wall = time.perf_counter() - began
        return Run(
            wall_s=wall,
            cpu_s=time.process_time() - cpu,
            frames=sum(frames for _, frames in chunks),
            first_frame_s=marks[0] - began,
            chunk_s=tuple(after - before for before, after in pairwise(marks)),
            phases=_phases([timings for timings, _ in chunks], wall),
        )

    def pixels(self) -> np.ndarray:
        request = replace(self._prepared.request, noise="reference")
        prepared = replace(self._prepared, request=request)
        chunks: list[Chunk] = list(self._helios.open(prepared, pixels=FloatPixels()))
        return np.concatenate([chunk.frames for chunk in chunks])


def _phases(timings: list, wall: float) -> dict[str, float]:
    phases = {"history": sum(t.condition for t in timings)}
    for level in range(len(timings[0].levels)):
        phases[f"denoise level {level}"] = sum(t.levels[level] for t in timings)
    phases["decode"] = sum(t.decode for t in timings)
    phases["to host"] = sum(t.copy for t in timings)
    phases["text and rest"] = wall - sum(phases.values())
    return phases


class DiffusersContender:
    """The released pipeline, made from the same checkpoint; ``compiled`` compiles its repeated blocks."""

    def __init__(self, helios: Helios, prepared: Prepared, *, compiled: bool = False) -> None:
        from diffusers import HeliosPipeline, HeliosPyramidPipeline
        from diffusers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.name = "diffusers compiled" if compiled else "diffusers"
        request, base = prepared.request, prepared.plan.geometry.levels == 1
        if request.anchor != "first-frame" or len(request.seeds) > 1:
            raise InputError("the comparison runs one video with the first-frame anchor: leave anchor and batch out")
        pipeline_class = HeliosPipeline if base else HeliosPyramidPipeline
        self._pipe = pipeline_class.from_pretrained(helios.info.path, torch_dtype=helios.transformer.dtype)
        self._pipe.vae.to(helios.vae.dtype)
        self._pipe.to(helios.device)
        self._pipe.set_progress_bar_config(disable=True)
        if compiled:
            self._pipe.transformer.compile_repeated_blocks(fullgraph=True)
        self._request, self._device = request, helios.device

    def _arguments(self) -> dict[str, Any]:
        request = self._request
        common = {
            "prompt": request.timelines[0].prompts[0],
            "negative_prompt": request.negative,
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
        frames = self.pixels()
        synchronize(self._device)
        wall = time.perf_counter() - began
        return Run(wall_s=wall, cpu_s=time.process_time() - cpu, frames=len(frames), first_frame_s=wall)

    def pixels(self) -> np.ndarray:
        with torch.no_grad(), _positive_definite():
            return self._pipe(**self._arguments()).frames[0]


class _positive_definite:
    """The published block noise factors a matrix that is singular in float32 at gamma = 1/3, and fails on CPUs; its
    factor is computed in float64 meanwhile, so that the comparison can run at all.
    """

    def __enter__(self) -> None:
        from helios.schedulers.renoise import cholesky_rows

        self._original = torch.linalg.cholesky

        def factor(matrix, **options):
            if matrix.shape != (4, 4):
                return self._original(matrix, **options)
            gamma = -float(matrix[0, 1])
            gamma = 1 / 3 if abs(gamma - 1 / 3) < 1e-6 else gamma
            rows = [[*row, *(0.0 for _ in range(4 - len(row)))] for row in cholesky_rows(gamma)]
            return torch.tensor(rows, dtype=matrix.dtype, device=matrix.device)

        torch.linalg.cholesky = factor

    def __exit__(self, *error) -> None:
        torch.linalg.cholesky = self._original
