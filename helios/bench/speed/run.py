"""Measure the speed of a checkpoint: warm up, run in turns, take medians, set them beside the machine's limit."""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from statistics import median

import numpy as np
import torch

from helios.bench.speed.contenders import Contender, DiffusersContender, HeliosContender, Run
from helios.bench.speed.machine import Machine, OtherWork, measure_machine
from helios.bench.speed.operations import time_by_kind
from helios.bench.speed.precision import vae_psnr
from helios.bench.speed.work import ChunkWork, count_chunk
from helios.checkpoints import CheckpointInfo
from helios.device import device_memory, host_memory, reset_peak
from helios.engine.approximation import Approximation
from helios.engine.pace import InTurn, Pace
from helios.engine.pipeline import Helios
from helios.engine.prepare import Prepared
from helios.errors import InputError

AGAINST = ("diffusers", "diffusers-compiled")
Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class SpeedConfig:
    """How to measure.

    Args:
        rounds: timed runs of each contender, taken in turns after a warm-up of each.
        against: other implementations to run beside ours, on the same weights in the same process.
        fps: what counts as real time.
        pace: of our engine.
        approximations: made before measuring; their difference is part of the result. Not beside ``against``.
    """

    rounds: int = 7
    against: tuple[str, ...] = ()
    fps: float = 24.0
    pace: Pace = InTurn()
    approximations: tuple[Approximation, ...] = ()

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise InputError(f"rounds={self.rounds} measures nothing: pass 1 or more")
        for name in self.against:
            if name not in AGAINST:
                raise InputError(f"against={name!r} is unknown: use {' or '.join(AGAINST)}")
        if self.against and self.approximations:
            names = ", ".join(each.name for each in self.approximations)
            raise InputError(
                f"a comparison needs the same mathematics on both sides: measure {names} in a run of its own"
            )


def measure_speed(
    helios: Helios, prepared: Prepared, config: SpeedConfig, *, progress: Progress = lambda text: None
) -> dict:
    """Measure a prepared run and return the whole result as JSON data.

    Keys: ``settings``, ``machine``, ``helios`` (and one per other contender), ``ratios``, ``differences``,
    ``vae_psnr_db``, ``approximations``, ``roofline``, ``operations_s``, ``memory``, ``command``. Times are seconds, sizes
    bytes, work floating-point operations; ``*_s`` under ``phases_s`` are of one chunk, its text encoding excepted.
    """
    approximated = _approximated(helios, prepared, config.approximations)
    warm_up_s = _timed(lambda: helios.warm_up(prepared))
    ours = HeliosContender(helios, prepared, pace=config.pace)
    memory = _memory_of(ours, helios.device)  # first: the CPU's peak is the process's, and would hold the others' too
    vae = helios.vae
    machine = measure_machine(helios.device, helios.transformer.dtype, vae_device=vae.device, vae_dtype=vae.dtype)
    contenders = [ours, *_others(helios, prepared, config)]
    differences = _differences(contenders)
    others = OtherWork()
    runs = _in_turns(contenders, config.rounds, progress)
    taken = others.shares()
    work = _work_of(helios, prepared)
    figures = _figures(runs["helios"], config.fps)
    file_s = _file_seconds(runs["helios"][-1].last_frames_FHWC, prepared.request.fps)
    figures |= {"warm_up_s": warm_up_s, "file_s": file_s}
    return {
        "settings": _settings(helios.info, prepared, helios, config),
        "machine": machine.to_json() | taken,
        "helios": figures,
        **{name: _figures(found, config.fps) for name, found in runs.items() if name != "helios"},
        "ratios": {name: _ratio(runs["helios"], found) for name, found in runs.items() if name != "helios"},
        "differences": differences,
        "vae_psnr_db": vae_psnr(helios, prepared),
        "approximations": approximated,
        "roofline": _roofline(work, machine, figures),
        "operations_s": time_by_kind(_steady_chunks(helios, prepared), helios.device),
        "memory": memory | {"growth_after_third_chunk": _growth(runs["helios"][-1].allocated)},
        "command": " ".join(["helios", *sys.argv[1:]]),
    }


def _approximated(helios: Helios, prepared: Prepared, approximations: Sequence[Approximation]) -> dict | None:
    """Their names and what they cost, or None without any; equal frames have no ratio."""
    if not approximations:
        return None
    psnr_db = helios.approximate(prepared, *approximations)
    names = [each.name for each in approximations]
    return {"names": names, "psnr_db": psnr_db if isfinite(psnr_db) else None}


def _memory_of(contender: Contender, device: torch.device) -> dict[str, int]:
    """Bytes that a run by itself held: at its peak on the device, and of the host after it."""
    reset_peak(device)
    contender.run()
    held = device_memory(device)
    return {
        "peak_allocated": held.peak_allocated,
        "peak_reserved": held.peak_reserved,
        "resident": host_memory().resident,
    }


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _others(helios: Helios, prepared: Prepared, config: SpeedConfig) -> list[Contender]:
    return [DiffusersContender(helios, prepared, compiled=name.endswith("compiled")) for name in config.against]


def _work_of(helios: Helios, prepared: Prepared) -> ChunkWork:
    info, names = helios.info, helios.transformer.approximations
    configs, tokens = (info.transformer_config, info.vae_config), info.text_tokens
    return count_chunk(*configs, prepared.plan, text_tokens=tokens, approximations=names)


def _in_turns(contenders: Sequence[Contender], rounds: int, progress: Progress) -> dict[str, list[Run]]:
    """Timed runs, one of each contender after the other, so that a busy machine hits them alike."""
    runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    for turn in range(rounds):
        for contender in contenders:
            found = contender.run()
            runs[contender.name].append(found)
            progress(f"round {turn + 1}/{rounds}  {contender.name}: {found.fps:.1f} fps")
    return runs


def _steady_chunks(helios: Helios, prepared: Prepared) -> Callable[[], object]:
    """Makes the next chunk of a stream that is past its first one; twice at most."""
    request = replace(prepared.request, num_frames=3 * helios.info.geometry.chunk_frames)
    session = helios.open(replace(prepared, request=request))
    next(session)
    return lambda: next(session)


def _settings(info: CheckpointInfo, prepared: Prepared, helios: Helios, config: SpeedConfig) -> dict:
    request = prepared.request
    return {
        "checkpoint": info.path.name,
        "identity": info.identity,
        "variant": info.variant.value,
        "height": request.height,
        "width": request.width,
        "num_frames": request.num_frames,
        "chunks": request.chunks(info.geometry),
        "steps": list(request.steps),
        "amplify_first_chunk": request.amplify_first_chunk,
        "guidance": request.guidance_scale,
        "dtype": _name(helios.transformer.dtype),
        "vae_dtype": _name(helios.vae.dtype),
        "vae_device": str(helios.vae.device),
        "pace": type(config.pace).__name__,
        "parameters": {name: info.parameters(name) for name in ("transformer", "vae", "text_encoder")},
    }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _figures(runs: Sequence[Run], fps: float) -> dict:
    """Medians over runs; chunk times are pooled over all of them."""
    waits = [seconds for run in runs for seconds in run.chunk_s]
    figures = {
        "runs": len(runs),
        "fps": median(run.fps for run in runs),
        "fps_min": min(run.fps for run in runs),
        "fps_max": max(run.fps for run in runs),
        "wall_s": median(run.wall_s for run in runs),
        "cpu_s": median(run.cpu_s for run in runs),
        "real_time_factor": median(run.fps for run in runs) / fps,
        "time_to_first_frame_s": median(run.first_frame_s for run in runs),
        "text_s": median(run.text_s for run in runs),
    }
    if waits:
        figures |= {f"chunk_p{p}_s": float(np.percentile(waits, p)) for p in (50, 95, 99)}
    return figures | ({"phases_s": _phases(runs)} if runs[0].chunks else {})


def _phases(runs: Sequence[Run]) -> dict[str, float]:
    """Median seconds of one steady chunk by phase: without the first one where there are more."""
    chunks = [timings for run in runs for timings in run.chunks[min(1, len(run.chunks) - 1) :]]
    phases = {"history and noise": [t.condition for t in chunks]}
    for level in range(len(chunks[0].levels)):
        phases[f"denoise level {level}"] = [t.levels[level] for t in chunks]
    phases |= {"decode": [t.decode for t in chunks], "copy to host": [t.copy for t in chunks]}
    return {name: median(seconds) for name, seconds in phases.items()}


def _ratio(ours: Sequence[Run], theirs: Sequence[Run]) -> dict:
    """How many times faster we are: medians; processor time, which a busy machine disturbs less; the best of each; the
    network and the VAE by themselves.
    """
    return {
        "wall": median(run.wall_s for run in theirs) / median(run.wall_s for run in ours),
        "cpu": median(run.cpu_s for run in theirs) / median(run.cpu_s for run in ours),
        "wall_best": min(run.wall_s for run in theirs) / min(run.wall_s for run in ours),
        "denoise": median(run.denoise_s for run in theirs) / median(run.denoise_s for run in ours),
        "decode": median(run.decode_s for run in theirs) / median(run.decode_s for run in ours),
    }


def _differences(contenders: Sequence[Contender]) -> dict[str, float]:
    """Largest difference of each other contender's frames, in [0, 1], to ours; their first runs warm them up."""
    ours, *others = contenders
    if not others:
        return {}
    expected = ours.pixels()
    return {other.name: _difference(expected, other.pixels()) for other in others}


def _difference(expected: np.ndarray, frames: np.ndarray) -> float:
    """Over the frames that both have."""
    shared = min(len(expected), len(frames))
    return float(np.abs(expected[:shared] - frames[:shared]).max())


def _file_seconds(frames_FHWC: np.ndarray | None, fps: float) -> float:
    """Seconds to encode and write one chunk as MP4."""
    from helios.media import open_writer

    assert frames_FHWC is not None, "our engine keeps the frames of the last chunk"
    count, height, width, _ = frames_FHWC.shape
    shape = {"height": height, "width": width, "num_frames": count}
    with tempfile.TemporaryDirectory() as folder:
        writer = open_writer(Path(folder) / "chunk.mp4", fps=fps, record={}, **shape)
        with writer:
            return _timed(lambda: writer.write(frames_FHWC))


def _roofline(work: ChunkWork, machine: Machine, ours: dict) -> dict:
    """A steady chunk beside the least time that its arithmetic takes at the machine's matrix rates, phase by phase."""
    flops = {"history and noise": work.history, "decode": work.decode}
    flops |= {f"denoise level {level}": count for level, count in enumerate(work.levels)}
    rows = []
    for phase, seconds in ours["phases_s"].items():
        rate = machine.vae_matrix_flops if phase == "decode" else machine.matrix_flops
        count = flops.get(phase, 0.0)
        rows.append({"phase": phase, "seconds": seconds, "flops": count, "floor_s": count / rate})
    seconds = ours.get("chunk_p50_s", sum(row["seconds"] for row in rows))
    floor = sum(row["floor_s"] for row in rows)
    return {
        "chunk_flops": work.total,
        "denoise_flops": work.denoise,
        "text_flops_once": work.text,
        "chunk_s": seconds,
        "floor_s": floor,
        "floor_reached": floor / seconds,
        "phases": rows,
    }


def _growth(allocated: Sequence[int]) -> int | None:
    """Bytes that the memory of a run grew by after its third chunk; None for shorter runs."""
    return max(allocated[3:]) - allocated[2] if len(allocated) > 3 else None
