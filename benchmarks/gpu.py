"""Check and measure Helios on one device: kernels, parity in half precision, speed, flat memory. See gpu.sh.

Writes one JSON per measurement as soon as it has it, and prints a short table last. Exit code 1 when a check failed.
"""

import argparse
import copy
import json
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kernels import check_kernels

from helios.bench.speed import SpeedConfig, markdown, measure_speed, plot_chunk
from helios.bench.speed.contenders import DiffusersContender, HeliosContender
from helios.bench.speed.precision import decode_psnr
from helios.checkpoints import CheckpointInfo, inspect, synthetic_info, write_random_checkpoint
from helios.device import resolve_device
from helios.engine.acceleration import CompiledBlocks, CompiledNorms
from helios.engine.approximation import Fp8Linears, ReusedHistory, told
from helios.engine.pace import DecodeAhead
from helios.engine.pipeline import Helios
from helios.engine.prepare import Prepared, prepare
from helios.models.vae import HeliosVAE

Found = tuple[Any, str, bool]  # JSON, one line of the table, and whether it is as it must be
GRACE_S = 60
PROMPT = "a red circle moves right"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much to measure: the released model on an accelerator, or the same steps small on a CPU."""

    size: tuple[int, int]
    chunks: int
    rounds: int
    long_chunks: int
    beyond: bool  # measure also what only an accelerator can gain from

    @staticmethod
    def of(device: torch.device) -> "Scale":
        if device.type == "cpu":
            return Scale(size=(64, 128), chunks=2, rounds=1, long_chunks=5, beyond=False)
        return Scale(size=(384, 640), chunks=4, rounds=3, long_chunks=44, beyond=True)


@dataclass(kw_only=True)
class Report:
    """What was found so far: rows of the last table, and whether every check passed."""

    folder: Path
    limit_s: float
    began: float = field(default_factory=time.perf_counter)
    rows: list[tuple[str, str]] = field(default_factory=list)
    failed: bool = False

    def step(self, name: str, call: Callable[[], Found]) -> bool:
        """Run one step unless it is late, and no longer than the grace; keep its JSON and its line.

        Returns: whether it ran to its end. An error, out of memory say, is a failed check and costs no other step.
        """
        if time.perf_counter() - self.began > self.limit_s:
            self.rows.append((name, f"left out: {self.limit_s:.0f} s were over"))
            return False
        try:
            found, line, passed = call()
        except TimeoutError:
            self.rows.append((name, "stopped: out of time"))
            return False
        except Exception as error:  # noqa: BLE001 - whatever it is, the table must not be lost
            traceback.print_exc()
            first_line = str(error).partition("\n")[0]
            self.rows.append((name, f"FAILED with {type(error).__name__}: {first_line}"))
            self.failed = True
            return False
        (self.folder / f"{name.replace(' ', '-')}.json").write_text(json.dumps(found, indent=2) + "\n")
        self.rows.append((name, line))
        self.failed |= not passed
        print(f"[{time.perf_counter() - self.began:5.0f} s] {name}: {line}", file=sys.stderr)
        return True

    def table(self) -> str:
        lines = ["| step | result |", "|---|---|", *(f"| {name} | {line} |" for name, line in self.rows)]
        return "\n".join([*lines, "", "FAILED" if self.failed else "all checks passed"])


def kernels(device: torch.device) -> Found:
    rows = check_kernels(device, (torch.float32, torch.bfloat16))
    ran = [row for row in rows if row["error"] is not None]
    wrong = [f"{row['op']}/{row['backend']}/{row['dtype']}" for row in rows if not row["ok"]]
    worst = max(row["error"] for row in ran)
    line = f"{len(ran)} of {len(rows)} ran here, worst error {worst:.1e}"
    return rows, line + (f", WRONG: {', '.join(wrong)}" if wrong else ""), not wrong


def parity(device: torch.device) -> Found:
    """Frames against float32 on the CPU: ours in float32 and bfloat16, and Diffusers' in bfloat16."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for variant in ("distilled", "base"):
            info = inspect(write_random_checkpoint(Path(folder) / variant, variant))
            found[variant] = _parity_of(info, device)
    worst = max(entry["float32"] for entry in found.values())
    passed = all(e["float32"] < 2e-2 and e["bfloat16"] <= 1.5 * e["diffusers_bfloat16"] for e in found.values())
    halves = ", ".join(f"{e['bfloat16']:.1e} (Diffusers {e['diffusers_bfloat16']:.1e})" for e in found.values())
    return found, f"float32 off by {worst:.1e} at most, bfloat16 by {halves} on average", passed


def _parity_of(info: CheckpointInfo, device: torch.device) -> dict[str, float]:
    settings = {"height": 64, "width": 128, "num_frames": 66, "steps": (2,) * info.geometry.levels}
    prepared = prepare(info, "A red circle moves slowly from left to right.", seed=3, **settings)

    def frames(contender: type, where: torch.device | str, dtype: str) -> np.ndarray:
        return contender(Helios.from_info(info, device=where, dtype=dtype), prepared).pixels()

    exact = frames(HeliosContender, "cpu", "float32")
    half, theirs = frames(HeliosContender, device, "bfloat16"), frames(DiffusersContender, device, "bfloat16")
    return {
        "float32": float(np.abs(frames(HeliosContender, device, "float32") - exact).max()),
        "bfloat16": float(np.abs(half - exact).mean()),
        "diffusers_bfloat16": float(np.abs(theirs - exact[: len(theirs)]).mean()),
    }


def prepared_run(helios: Helios, scale: Scale, *, chunks: int, steps: int) -> Prepared:
    info, (height, width) = helios.info, scale.size
    return prepare(
        info,
        PROMPT,
        encoder=helios.encoder,
        num_frames=chunks * info.geometry.chunk_frames,
        height=height,
        width=width,
        steps=(steps,) * info.geometry.levels,
        amplify_first_chunk=False,
    )


def speed(helios: Helios, scale: Scale, folder: Path, name: str, *, steps: int, **config) -> Found:
    prepared = prepared_run(helios, scale, chunks=scale.chunks, steps=steps)
    result = measure_speed(helios, prepared, SpeedConfig(rounds=scale.rounds, **config))
    file = folder / name.replace(" ", "-")
    file.with_suffix(".md").write_text(markdown(result) + "\n")
    plot_chunk(result, file.with_suffix(".png"))
    ours, memory, reached = result["helios"], result["memory"], result["roofline"]["floor_reached"]
    line = f"{ours['fps']:.2f} fps, chunk {ours['chunk_p50_s']:.3f} s, first frame "
    line += f"{ours['time_to_first_frame_s']:.2f} s, {100 * reached:.0f} % of the floor, "
    line += f"peak {memory['peak_allocated'] / 2**30:.1f} GiB"
    if result["approximations"] is not None:
        line += f"; {told(**result['approximations'])}"
    for other, ratio in result["ratios"].items():
        line += f"; {other} {result[other]['fps']:.2f} fps, we are {ratio['wall']:.2f} times as fast"
    return result, line, True


def with_half_vae(helios: Helios) -> Helios:
    """The same model with a VAE in bfloat16."""
    vae = HeliosVAE(copy.deepcopy(helios.vae.module).to(torch.bfloat16))
    parts = {"transformer": helios.transformer, "encoder": helios.encoder, "device": helios.device}
    return Helios(helios.info, vae=vae, **parts)


def cost_of_half(exact: Helios, half: Helios, scale: Scale) -> Found:
    """What a VAE in bfloat16 costs the pixels of one chunk."""
    geometry, (height, width) = exact.info.geometry, scale.size
    shape = (1, geometry.latent_channels, geometry.chunk_latent_frames, *geometry.latent_size(height, width))
    latents_BCTHW = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(exact.device)
    psnr = decode_psnr(exact.vae, half.vae, latents_BCTHW)
    return {"psnr_db": psnr}, f"PSNR {psnr:.1f} dB to the float32 decode, on random weights", psnr > 40


def long_run(helios: Helios, scale: Scale) -> Found:
    """A minute of video on an accelerator: what it holds must not grow after the third chunk."""
    run = HeliosContender(helios, prepared_run(helios, scale, chunks=scale.long_chunks, steps=1)).run()
    growth, (p50, p99) = max(run.allocated[3:]) - run.allocated[2], np.percentile(run.chunk_s, (50, 99))
    # On the CPU this is the size of the process, which breathes.
    passed = growth <= (0 if helios.device.type != "cpu" else 64 << 20)
    found = {"frames": run.frames, "fps": run.fps, "allocated": run.allocated, "chunk_s": run.chunk_s}
    line = f"{run.frames / 24:.0f} s of video at {run.fps:.2f} fps, memory {growth / 2**20:+.1f} MiB after the third"
    return found, f"{line} chunk, chunk p99/p50 {p99 / p50:.2f}", passed


def load(device: torch.device, model: str, report: Report, name: str) -> list[Helios]:
    """The model with weights made on the device, and the same with a VAE in bfloat16; empty when that failed."""
    models: list[Helios] = []

    def made() -> Found:
        began = time.perf_counter()
        exact = Helios.from_info(synthetic_info(model), device=device)
        models.extend((exact, with_half_vae(exact)))
        seconds = time.perf_counter() - began
        return {"seconds": seconds}, f"weights made in {seconds:.0f} s", True

    report.step(name, made)
    return models


def measure(device: torch.device, model: str, scale: Scale, report: Report) -> None:
    """Speed of the released shape: exact, then what keeps its mathematics or nearly so."""
    models = load(device, model, report, "load")
    if not models:
        return
    exact, half = models

    def step(name: str, helios: Helios, **how) -> None:
        report.step(name, lambda: speed(helios, scale, report.folder, name, **how))

    step("exact 1+1+1", exact, steps=1, against=("diffusers",))
    report.step("bf16 decode", lambda: cost_of_half(exact, half, scale))
    step("bf16 VAE 1+1+1", half, steps=1)
    report.step("long run", lambda: long_run(half, scale))
    step("exact 2+2+2", exact, steps=2, against=("diffusers",))
    step("bf16 VAE 2+2+2", half, steps=2)
    if scale.beyond:
        step("bf16 VAE ahead 1+1+1", half, steps=1, pace=DecodeAhead())
        half.accelerate(CompiledBlocks(), CompiledNorms())
        step("bf16 VAE compiled 1+1+1", half, steps=1)


def measure_approximate(device: torch.device, model: str, scale: Scale, report: Report) -> None:
    """What changes the mathematics, each on a model of its own, since nothing takes it back."""
    for approximations in ((Fp8Linears(),), (ReusedHistory(), Fp8Linears())):
        names = " ".join(each.name for each in approximations)
        name = f"bf16 VAE {names} 1+1+1"
        for half in load(device, model, report, f"load for {names}")[1:]:
            report.step(name, partial(speed, half, scale, report.folder, name, steps=1, approximations=approximations))


def _out_of_time(*_) -> None:
    raise TimeoutError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", default="14b-random")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/gpu"))
    parser.add_argument("--limit-s", type=float, default=400.0)
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    arguments.results.mkdir(parents=True, exist_ok=True)
    report = Report(folder=arguments.results, limit_s=arguments.limit_s)
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.alarm(int(arguments.limit_s) + GRACE_S)
    report.step("kernels", lambda: kernels(device))
    report.step("parity", lambda: parity(device))
    for part in (measure, measure_approximate):
        part(device, arguments.model, Scale.of(device), report)
    table = report.table()
    (arguments.results / "table.md").write_text(table + "\n")
    print(table)
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())
