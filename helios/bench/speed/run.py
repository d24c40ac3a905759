"""Measure the speed of a checkpoint: warm up, run in turns, take medians, set them beside the machine's limit."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from helios.bench.speed.contenders import Contender, DiffusersContender, HeliosContender, Run
from helios.bench.speed.machine import Machine, measure_machine
from helios.bench.speed.work import ChunkWork, count_chunk
from helios.checkpoints import CheckpointInfo
from helios.device import device_memory, host_memory, reset_peak
from helios.engine.pipeline import Helios, Prepared
from helios.errors import InputError

AGAINST = ("diffusers", "diffusers-compiled")
Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class SpeedConfig:
    """How to measure.

    Args:
        rounds: timed runs of each contender, taken in turns after one warm-up each.
        against: other implementations to run beside ours, on the same weights in the same process.
        fps: what counts as real time.
    """

    rounds: int = 7
    against: tuple[str, ...] = ()
    fps: float = 24.0

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise InputError(f"rounds={self.rounds} measures nothing: pass 1 or more")
        for name in self.against:
            if name not in AGAINST:
                raise InputError(f"against={name!r} is unknown: use {' or '.join(AGAINST)}")


def measure_speed(
    helios: Helios, prepared: Prepared, config: SpeedConfig, *, progress: Progress = lambda text: None
) -> dict:
    """Measure a prepared run and return the whole result as JSON data.

    Keys: ``settings``, ``machine``, ``helios`` (and one per other contender), ``ratios``, ``differences``, ``work``,
    ``memory``, ``command``. Times are seconds, sizes bytes, work floating-point operations.
    """
    machine = measure_machine(helios.device, helios.transformer.dtype)
    contenders = _contenders(helios, prepared, config.against)
    expected = contenders[0].pixels()
    differences = {c.name: _difference(expected, c.pixels()) for c in contenders[1:]}
    reset_peak(helios.device)
    runs = _in_turns(contenders, config.rounds, progress)
    info = helios.info
    work = count_chunk(info.transformer_config, info.vae_config, prepared.plan)
    result = {
        "settings": _settings(info, prepared),
        "machine": machine.to_json(),
        **{name: _figures(found, config.fps) for name, found in runs.items()},
        "ratios": {name: _ratio(runs["helios"], found) for name, found in runs.items() if name != "helios"},
        "differences": differences,
        "work": _roofline(work, machine, runs["helios"]),
        "memory": _memory(helios.device),
        "command": " ".join(["helios", *sys.argv[1:]]),
    }
    return result


def _contenders(helios: Helios, prepared: Prepared, against: Sequence[str]) -> list[Contender]:
    others = [DiffusersContender(helios, prepared, compiled=name.endswith("compiled")) for name in against]
    return [HeliosContender(helios, prepared), *others]


def _in_turns(contenders: Sequence[Contender], rounds: int, progress: Progress) -> dict[str, list[Run]]:
    """Timed runs, one of each contender after the other, so that a busy machine hits them alike."""
    runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    for turn in range(rounds):
        for contender in contenders:
            found = contender.run()
            runs[contender.name].append(found)
            progress(f"round {turn + 1}/{rounds}  {contender.name}: {found.fps:.1f} fps")
    return runs


def _settings(info: CheckpointInfo, prepared: Prepared) -> dict:
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
        "parameters": {name: info.parameters(name) for name in ("transformer", "vae", "text_encoder")},
    }


def _figures(runs: Sequence[Run], fps: float) -> dict:
    """Medians over runs; chunk times are pooled over all of them."""
    chunks = [seconds for run in runs for seconds in run.chunk_s]
    phases = {name: median(run.phases[name] for run in runs) for name in runs[0].phases}
    figures = {
        "runs": len(runs),
        "fps": median(run.fps for run in runs),
        "fps_min": min(run.fps for run in runs),
        "fps_max": max(run.fps for run in runs),
        "wall_s": median(run.wall_s for run in runs),
        "cpu_s": median(run.cpu_s for run in runs),
        "real_time_factor": median(run.fps for run in runs) / fps,
        "time_to_first_frame_s": median(run.first_frame_s for run in runs),
    }
    if chunks:
        figures |= {f"chunk_p{p}_s": float(np.percentile(chunks, p)) for p in (50, 95, 99)}
    return figures | ({"phases_s": phases} if phases else {})


def _ratio(ours: Sequence[Run], theirs: Sequence[Run]) -> dict:
    """How many times faster we are, from medians; and from processor time, which a busy machine disturbs less."""
    return {
        "wall": median(run.wall_s for run in theirs) / median(run.wall_s for run in ours),
        "cpu": median(run.cpu_s for run in theirs) / median(run.cpu_s for run in ours),
    }


def _difference(expected: np.ndarray, frames: np.ndarray) -> float:
    """Largest difference of two videos in [0, 1] over the frames that both have."""
    shared = min(len(expected), len(frames))
    return float(np.abs(expected[:shared] - frames[:shared]).max())


def _roofline(work: ChunkWork, machine: Machine, runs: Sequence[Run]) -> dict:
    chunks = [seconds for run in runs for seconds in run.chunk_s]
    floor = work.total / machine.matrix_flops
    steady = median(chunks) if chunks else median(run.wall_s for run in runs)
    return {
        "chunk_flops": work.total,
        "history_flops": work.history,
        "level_flops": list(work.levels),
        "decode_flops": work.decode,
        "text_flops_once": work.text,
        "floor_s": floor,
        "floor_reached": floor / steady,
    }


def _memory(device: torch.device) -> dict:
    memory = device_memory(device)
    return {
        "peak_allocated": memory.peak_allocated,
        "peak_reserved": memory.peak_reserved,
        "resident": host_memory().resident,
    }
