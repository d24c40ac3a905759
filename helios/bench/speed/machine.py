"""What the machine is and what it can do at best: the matrix and copy rates, measured on the spot."""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch

import helios
from helios.device import synchronize

_MATRIX = {"cpu": (1536, 1024, 1024)}
_ACCELERATOR_MATRIX = (8192, 8192, 8192)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Hardware, versions and measured limits.

    Attributes:
        dtype: of the transformer.
        matrix_flops: floating-point operations per second of the best matrix product in the transformer's dtype.
        vae_matrix_flops: the same on the VAE's device in the VAE's dtype, as its convolutions multiply: float32 ones may
            be computed in TF32, and half ones in float32 where the processor has no units for half precision.
        copy_bytes: bytes read and written per second by a large copy.
    """

    device: str
    processor: str
    threads: int
    dtype: str
    versions: dict[str, str]
    matrix_flops: float
    vae_matrix_flops: float
    copy_bytes: float

    def to_json(self) -> dict:
        return asdict(self)


class OtherWork:
    """What others took of this host while something was measured: 0 is quiet, 1 is every core taken."""

    def __init__(self) -> None:
        self._began, self._host, self._own = time.perf_counter(), _host_times(), time.process_time()

    def shares(self) -> dict[str, float | None]:
        """Since this object was made: of other processes, and of other guests of a virtual host (None where the system
        does not count them).
        """
        cores_s = (time.perf_counter() - self._began) * (os.cpu_count() or 1)
        before, now = self._host, _host_times()
        busy = now.user + now.system - before.user - before.system
        counted = hasattr(now, "steal")  # what a hypervisor gave to others while a core here had work
        return {
            "busy_with_other_work": max(0.0, (busy - (time.process_time() - self._own)) / cores_s),
            "taken_by_other_guests": (now.steal - before.steal) / cores_s if counted else None,
        }


def _host_times() -> Any:
    """Seconds of all cores since the host began, by what they went into."""
    import psutil

    return psutil.cpu_times()


def measure_machine(
    device: torch.device, dtype: torch.dtype, *, vae_device: torch.device, vae_dtype: torch.dtype
) -> Machine:
    """Measure a machine; takes about a second.

    Args:
        device, dtype: of the transformer.
        vae_device, vae_dtype: of the VAE.
    """
    matrix_flops, convolved = _matrix_rate(device, dtype), _convolution_rate(vae_device, vae_dtype)
    alike = (device.type, dtype) == (vae_device.type, vae_dtype)  # an index may be left out
    return Machine(
        device=str(device),
        processor=processor_name(device),
        threads=torch.get_num_threads(),
        dtype=str(dtype).removeprefix("torch."),
        versions=_versions(),
        matrix_flops=matrix_flops,
        vae_matrix_flops=max(convolved, matrix_flops) if alike else convolved,
        copy_bytes=_copy_rate(device),
    )


def _versions() -> dict[str, str]:
    own = {"helios": helios.__version__, "python": platform.python_version()}
    return own | {name: _version(name) for name in ("torch", "diffusers", "triton")}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def cpu_line(threads: int) -> str:
    """Processor, threads and versions in one line, for results that are kept.

    Args:
        threads: that were used.
    """
    versions = f"helios {helios.__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    return f"{processor_name(torch.device('cpu'))}, {threads} thread(s), {versions}"


def processor_name(device: torch.device) -> str:
    """What the maker calls the processor or the accelerator."""
    if device.type != "cpu":
        return torch.get_device_module(device).get_device_name(device)
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


@torch.no_grad()
def _matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Best rate over the ways to multiply that Helios itself uses. Random data: zeros would flatter."""
    from helios.ops.linear import linear

    rows, inner, columns = _MATRIX.get(device.type, _ACCELERATOR_MATRIX)
    a = torch.randn(rows, inner, device=device).to(dtype)
    b = torch.randn(columns, inner, device=device).to(dtype)
    seconds = min(_seconds(lambda: linear(a, b, None), device), _seconds(lambda: a @ b.T, device))
    return 2.0 * rows * inner * columns / seconds


@torch.no_grad()
def _convolution_rate(device: torch.device, dtype: torch.dtype) -> float:
    """The same product as a convolution by 1 x 1, its rows the pixels of a frame, on the backend that the VAE takes."""
    from helios.ops.conv3d import frame_conv2d

    rows, inner, columns = _MATRIX.get(device.type, _ACCELERATOR_MATRIX)
    pixels = torch.randn(1, 1, rows // 64, 64, inner, device=device).to(dtype).permute(0, 4, 1, 2, 3)
    weight = torch.randn(columns, inner, 1, 1, device=device).to(dtype)
    return 2.0 * rows * inner * columns / _seconds(lambda: frame_conv2d(pixels, weight), device)


def _copy_rate(device: torch.device) -> float:
    source = torch.randn(1 << 24, device=device)
    target = torch.empty_like(source)
    return 2.0 * source.numel() * source.element_size() / _seconds(lambda: target.copy_(source), device)


def _seconds(call: Callable[[], object], device: torch.device, repeats: int = 9) -> float:
    call()
    times = []
    for _ in range(repeats):
        synchronize(device)
        began = time.perf_counter()
        call()
        synchronize(device)
        times.append(time.perf_counter() - began)
    return median(times)
