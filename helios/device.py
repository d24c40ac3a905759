"""The one place that knows about devices: choosing, synchronising, measuring memory.

Everything else is written against ``torch.device`` and works wherever PyTorch does (CPU, CUDA, ROCm, MPS, Ascend NPU).
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from helios.errors import HeliosError, InputError

if TYPE_CHECKING:
    import psutil

_WITHOUT_FLOAT64 = {"mps", "npu"}
_WITHOUT_PINNED_MEMORY = {"mps"}
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_NO_LIMIT = 1 << 60  # version 1 writes a huge number where nothing is limited


@dataclass(frozen=True, kw_only=True)
class DeviceMemory:
    """Bytes on one device. On the CPU, and on an accelerator whose allocator keeps no count (MPS in torch 2.11),
    ``allocated`` and ``reserved`` are the resident size of the process.

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
    """Bytes of host memory.

    Attributes:
        total: what the machine has.
        available: what is free on the machine and under every limit of the container.
        cgroup_limit: what the container allows; None where it sets no limit.
        resident: what this process holds.
    """

    total: int
    available: int
    cgroup_limit: int | None
    resident: int


@dataclass(frozen=True, kw_only=True)
class ContainerMemory:
    """What the control groups of this process allow, in bytes.

    Attributes:
        limit: the smallest limit of its group and the groups above.
        available: what is left of it; files that the kernel can drop from its cache count as free.
    """

    limit: int
    available: int


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


@cache
def has_fp8_units(device: torch.device) -> bool:
    """Whether a device multiplies 8-bit floats fast: NVIDIA's from Ada (8.9) and Hopper (9.0) on."""
    if device.type != "cuda" or torch.version.cuda is None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 9)


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
        return _process_memory()
    try:
        return DeviceMemory(
            allocated=torch.accelerator.memory_allocated(device),
            reserved=torch.accelerator.memory_reserved(device),
            peak_allocated=torch.accelerator.max_memory_allocated(device),
            peak_reserved=torch.accelerator.max_memory_reserved(device),
        )
    except RuntimeError as error:
        _require_uncounted(error)
        return _process_memory()


def reset_peak(device: torch.device) -> None:
    """Start counting the peak anew (a process's peak, which stands for the CPU's, cannot be reset)."""
    if device.type == "cpu":
        return
    try:
        torch.accelerator.reset_peak_memory_stats(device)
    except RuntimeError as error:
        _require_uncounted(error)


def device_capacity(device: torch.device) -> tuple[int, int]:
    """(free, total) bytes of a device; for the CPU, host memory under the container's limit.

    An accelerator whose allocator keeps no count (MPS in torch 2.11) shares host memory, which is given for it.
    """
    if device.type != "cpu":
        try:
            return torch.accelerator.get_memory_info(device)
        except RuntimeError as error:
            _require_uncounted(error)
    host = host_memory()
    return host.available, min(host.total, host.cgroup_limit or host.total)


def _require_uncounted(error: RuntimeError) -> None:
    """Raise anew what is not PyTorch's way of saying that an accelerator's allocator keeps no count."""
    if "INTERNAL ASSERT" not in str(error):
        raise error


def host_memory() -> HostMemory:
    """Host memory as this process may use it: a container's limit counts, not only what the machine has."""
    import psutil

    machine, container = psutil.virtual_memory(), container_memory()
    return HostMemory(
        total=machine.total,
        available=machine.available if container is None else min(machine.available, container.available),
        cgroup_limit=None if container is None else container.limit,
        resident=_resident(),
    )


def container_memory(membership: Path = _OWN_CGROUP, mount: Path = _CGROUPS) -> ContainerMemory | None:
    """The limits on this process's memory and what is left under them, or None where there is no limit.

    Args:
        membership: names the process's group, in version 2 and version 1 of control groups.
        mount: where groups are folders. A group that cannot be seen from here (its name may be the host's) is passed
            over, those above it count.
    """
    found = [left for group in _groups(membership, mount) if (left := group.left()) is not None]
    if not found:
        return None
    return ContainerMemory(limit=min(left.limit for left in found), available=min(left.available for left in found))


@dataclass(frozen=True, kw_only=True)
class _Group:
    """One control group: its folder, and how its version names what is limited, used and droppable."""

    folder: Path
    limit: str
    used: str
    droppable: str

    def left(self) -> ContainerMemory | None:
        """Limit and rest of this group alone; None where it has no limit."""
        limit = _count(self.folder / self.limit)
        if limit is None or limit >= _NO_LIMIT:
            return None
        used = (_count(self.folder / self.used) or 0) - self._dropped()
        return ContainerMemory(limit=limit, available=max(0, limit - max(0, used)))

    def _dropped(self) -> int:
        lines = (line.split() for line in _text(self.folder / "memory.stat").splitlines())
        return next((int(words[1]) for words in lines if words[:1] == [self.droppable]), 0)


_VERSION_2 = {"limit": "memory.max", "used": "memory.current", "droppable": "inactive_file"}
_VERSION_1 = {
    "limit": "memory.limit_in_bytes",
    "used": "memory.usage_in_bytes",
    "droppable": "total_inactive_file",  # like the others of its kind, with the groups below
}


def _groups(membership: Path, mount: Path) -> Iterator[_Group]:
    """The process's group and those above it, under every controller that limits memory."""
    for line in _text(membership).splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, files = (mount / "memory", _VERSION_1) if controllers else (mount, _VERSION_2)
        parts = [part for part in name.split("/") if part not in ("", "..")]
        for length in range(len(parts), -1, -1):
            yield _Group(folder=root.joinpath(*parts[:length]), **files)


def _count(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.isdigit() else None


def _text(file: Path) -> str:
    """What a file of the kernel says; nothing where there is none."""
    try:
        return file.read_text()
    except OSError:
        return ""


def _process_memory() -> DeviceMemory:
    resident, peak = _resident(), _peak_resident()
    return DeviceMemory(allocated=resident, reserved=resident, peak_allocated=peak, peak_reserved=peak)


def _resident() -> int:
    return _process(os.getpid()).memory_info().rss


@cache
def _process(pid: int) -> "psutil.Process":
    """Opening a process costs more than asking it."""
    import psutil

    return psutil.Process(pid)


def _peak_resident() -> int:
    try:
        import resource
    except ModuleNotFoundError:  # Windows has no such module
        return _resident()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
