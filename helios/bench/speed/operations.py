"""Where the time of a run goes, by kind of operation, from PyTorch's profiler."""

import os
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from helios.device import synchronize

# The first kind whose word is in an operator's name takes it.
_KINDS = {
    "attention": ("attention", "flash", "softmax"),
    "convolution": ("conv",),
    "matrix product": ("linear", "addmm", "::mm", "scaled_mm", "bmm", "matmul", "baddbmm"),
    "norm": ("norm", "silu", "gelu", "rsqrt"),
    "copy and layout": ("copy", "cat", "clone", "contiguous", "::to", "pad", "fill", "zero", "empty", "stack"),
    "view": ("view", "slice", "select", "expand", "transpose", "permute", "split", "chunk", "unflatten", "as_strided"),
}


def time_by_kind(call: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Seconds of one call by kind of operation, largest first; ``host and waiting`` is what no operation took.

    On the CPU operators' own time; on an accelerator their kernels' time. The profiler itself slows small operations.

    Args:
        call: run twice; the first profile of a process also pays for the profiler's own start, and is thrown away.
        device: that ``call`` works on.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler's library says on stderr when it starts and stops
    _profiled(call, device)
    profiler, wall = _profiled(call, device)
    on_cpu = device.type == "cpu"
    kinds: dict[str, float] = {}
    for event in profiler.key_averages():
        seconds = (event.self_cpu_time_total if on_cpu else event.self_device_time_total) / 1e6
        if event.key.startswith("aten::") or event.key.startswith("mkldnn::") or "triton" in event.key:
            kinds[_kind(event.key)] = kinds.get(_kind(event.key), 0.0) + seconds
    kinds["host and waiting"] = max(0.0, wall - sum(kinds.values()))
    return dict(sorted(kinds.items(), key=lambda item: -item[1]))


def _profiled(call: Callable[[], object], device: torch.device) -> tuple[profile, float]:
    """A profile of one call and the call's seconds, which the profiler's start and stop are not part of."""
    cpu_alone = device.type == "cpu"
    activities = [ProfilerActivity.CPU] if cpu_alone else [ProfilerActivity.CPU, _accelerator_activity()]
    with profile(activities=activities) as profiler:
        synchronize(device)
        began = time.perf_counter()
        call()
        synchronize(device)
        wall = time.perf_counter() - began
    return profiler, wall


def _accelerator_activity() -> ProfilerActivity:
    others = torch.profiler.supported_activities() - {ProfilerActivity.CPU}
    return next(iter(others))


def _kind(name: str) -> str:
    for kind, words in _KINDS.items():
        if any(word in name for word in words):
            return kind
    return "element-wise and other"
