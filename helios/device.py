"""The one place that knows about devices: choosing, synchronising, measuring memory.

Everything else is written against ``torch.device`` and works wherever PyTorch does (CPU, CUDA, ROCm, MPS, Ascend NPU).
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from helios.errors import HeliosError, InputError

_WITHOUT_FLOAT64 = {"mps", "npu"}
_WITHOUT_PINNED_MEMORY = {"mps"}
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True, kw_only=True)
class DeviceMemory:
    """Bytes on one device. On the CPU ``allocated`` and ``reserved`` are the resident size of the process.

    Attributes:
        allocated: held by live tensors.
        reserved: held by the caching allocator, which is what a system monitor shows.
        peak_allocated, peak_reserved: highest values since :func:`reset_peak`.
    """

    allocated: int
    reserved: int
    peak_allocated: int
    peak_reserved: int


@dataclass(frozen=True, kw_only=True)
class HostMemory:
    """Bytes of host memory: what the machine has, what the container allows, what is free under both limits."""

    total: int
    available: int
    cgroup_limit: int | None
    resident: int


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """The device for a name such as ``auto``, ``cpu``, ``cuda:1`` or ``mps``; ``auto`` takes the accelerator if any.

    Raises: InputError when there is no such device here.
    """
    if name == "auto":
        return accelerator() or torch.device("cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device={name!r} is not a device name: use auto, cpu{_found_suffix()}") from error
    if not (device.type == "meta" or _present(device)):
        raise InputError(f"device={str(name)!r} is not on this machine: use auto, cpu{_found_suffix()}")
    return device


def accelerator() -> torch.device | None:
    """The accelerator of this machine, or None."""
    return torch.accelerator.current_accelerator(check_available=True)


def _present(device: torch.device) -> bool:
    if device.type == "cpu":
        return not device.index
    found = accelerator()
    return found is not None and found.type == device.type and (device.index or 0) < torch.accelerator.device_count()


def _found_suffix() -> str:
    found = accelerator()
    return "" if found is None else f" or {found.type}"


def default_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on accelerators, float32 on the CPU (where it is exact and, without matrix units, no slower path)."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def supports_float64(device: torch.device) -> bool:
    return device.type not in _WITHOUT_FLOAT64


def synchronize(device: torch.device) -> None:
    """Wait for the queued work of a device; does nothing on the CPU."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


class HostCopy:
    """A tensor on its way to the host, behind what the current stream has queued so far.

    Waiting for it waits for nothing that was queued later.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._event: torch.Event | None = None
        if tensor.device.type == "cpu" or tensor.device.type in _WITHOUT_PINNED_MEMORY:
            self._host = tensor.cpu()
            return
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._host.copy_(tensor, non_blocking=True)
        self._event = torch.Event(device=tensor.device)
        self._event.record()

    def wait(self) -> Tensor:
        """The tensor on the host."""
        if self._event is not None:
            self._event.synchronize()
        return self._host


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator, of the host or of any device, had nothing left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The CPU's allocator, MPS and some drivers raise a plain RuntimeError.
    words = ("out of memory", "can't allocate memory")
    plain = isinstance(error, RuntimeError) and not isinstance(error, HeliosError)
    return plain and any(word in str(error) for word in words)


def device_memory(device: torch.device) -> DeviceMemory:
    """What a device holds now and held at most."""
    if device.type == "cpu":
        resident, peak = _resident(), _peak_resident()
        return DeviceMemory(allocated=resident, reserved=resident, peak_allocated=peak, peak_reserved=peak)
    return DeviceMemory(
        allocated=torch.accelerator.memory_allocated(device),
        reserved=torch.accelerator.memory_reserved(device),
        peak_allocated=torch.accelerator.max_memory_allocated(device),
        peak_reserved=torch.accelerator.max_memory_reserved(device),
    )


def reset_peak(device: torch.device) -> None:
    """Start counting the peak anew (the CPU's peak is the process's and cannot be reset)."""
    if device.type != "cpu":
        torch.accelerator.reset_peak_memory_stats(device)


def device_capacity(device: torch.device) -> tuple[int, int]:
    """(free, total) bytes of a device; for the CPU, host memory under the container's limit."""
    if device.type == "cpu":
        host = host_memory()
        return host.available, min(host.total, host.cgroup_limit or host.total)
    return torch.accelerator.get_memory_info(device)


def host_memory() -> HostMemory:
    """Host memory as this process may use it: a container's limit counts, not only what the machine has."""
    import psutil

    machine = psutil.virtual_memory()
    limit = cgroup_limit()
    resident = _resident()
    available = machine.available if limit is None else min(machine.available, max(0, limit - resident))
    return HostMemory(total=machine.total, available=available, cgroup_limit=limit, resident=resident)


def cgroup_limit(files: tuple[Path, ...] = _CGROUP_LIMITS) -> int | None:
    """The container's memory limit in bytes, or None when there is none."""
    for file in files:
        if file.is_file():
            text = file.read_text().strip()
            if text.isdigit() and int(text) < 1 << 60:
                return int(text)
    return None


def _resident() -> int:
    import psutil

    return psutil.Process(os.getpid()).memory_info().rss


def _peak_resident() -> int:
    try:
        import resource
    except ModuleNotFoundError:  # Windows has no such module
        return _resident()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
