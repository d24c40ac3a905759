"""``helios doctor``: what this machine offers, what is missing and how to get it."""

import json
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import typer

from helios.cli.options import JsonOption
from helios.errors import InputError

_EXTRAS = {
    "train": ("peft", "tensorboard", "matplotlib"),
    "bench": ("cv2", "matplotlib"),
    "modelscope": ("modelscope_hub",),
}
_UNPROVEN = (
    "all of it on CUDA, ROCm, MPS and Ascend NPU: no accelerator has run it; most of the code is what the CPU runs",
    "what only accelerators take: their convolutions, pinned copies, a second stream (--ahead), cudnn, flash3 and flash4",
    "what is compiled, while running (--accelerate compiled) or ahead (helios compile): run on the CPU, nowhere else",
    "the released 14B weights: the layout and the mathematics are tested, the weights were out of reach",
    "8-bit products (--approximate fp8): tested on the CPU, which has no units for them; no GPU has run them",
    "hand-written Triton kernels and captured CUDA graphs do not exist here",
)


def doctor(as_json: JsonOption = False) -> None:
    """Check device, memory, container limit, disk, codecs and optional packages."""
    report = _report()
    if as_json:
        typer.echo(json.dumps(report))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, title="helios doctor", title_justify="left")
    for name, value in report.items():
        table.add_row(name.replace("_", " "), "\n".join(value) if isinstance(value, list) else str(value))
    Console().print(table)


def _report() -> dict:
    import torch

    from helios import __version__
    from helios.device import default_dtype, device_capacity, host_memory, resolve_device

    device, host = resolve_device("auto"), host_memory()
    free, total = device_capacity(device)
    limit = "none" if host.cgroup_limit is None else _gib(host.cgroup_limit)
    return {
        "helios": __version__,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "device": f"{device} ({default_dtype(device)}), {_gib(free)} free of {_gib(total)}",
        "cpu_threads": str(torch.get_num_threads()),
        "onednn": "yes" if torch.backends.mkldnn.is_available() else "no: convolutions on the CPU will be slow",
        "host_memory": f"{_gib(host.available)} free of {_gib(host.total)}",
        "container_limit": limit,
        "disk_here": f"{_gib(shutil.disk_usage(Path.cwd()).free)} free",
        "h264_encoder": _h264(),
        "compiler": _compiler(),
        "packages": [f"{name} {_version(name)}" for name in ("diffusers", "transformers", "av", "safetensors")],
        "extras": [_extra(name, modules) for name, modules in _EXTRAS.items()],
        "unproven": list(_UNPROVEN),
    }


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing: pip install helios"


def _h264() -> str:
    import av

    return "libx264" if "libx264" in av.codecs_available else "missing: reinstall PyAV from its wheel (pip install av)"


def _compiler() -> str:
    from helios.engine.acceleration import require_compiler

    try:
        require_compiler()
    except InputError:
        return "missing: install g++ or name one in CXX, for --accelerate compiled and helios compile"
    return "ready"


def _extra(name: str, modules: tuple[str, ...]) -> str:
    missing = [module for module in modules if find_spec(module) is None]
    if not missing:
        return f"{name}: ready"
    return f'{name}: {", ".join(missing)} missing, get it with  pip install "helios[{name}]"'
