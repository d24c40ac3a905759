import re
from pathlib import Path

import pytest
import torch

import helios
from helios.device import (
    ContainerMemory,
    container_memory,
    device_capacity,
    device_memory,
    host_memory,
    is_out_of_memory,
    reset_peak,
    resolve_device,
)
from helios.errors import GenerationError, InputError


@pytest.mark.parametrize(
    "error,is_one",
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (GenerationError("out of memory at 64x64"), False),
    ],
)
def test_allocators_that_had_nothing_left_are_recognised(error, is_one):
    assert is_out_of_memory(error) is is_one


def test_auto_is_an_accelerator_or_the_cpu():
    expected = torch.accelerator.current_accelerator(check_available=True)
    assert resolve_device("auto").type == ("cpu" if expected is None else expected.type)


@pytest.mark.parametrize("name", ["cuda:99", "toaster", "mps:7"])
def test_devices_that_are_not_here_are_refused(name):
    with pytest.raises(InputError, match=f"device='{name}'"):
        resolve_device(name)


def group(folder: Path, **files: str) -> None:
    """A control group as the kernel shows it; double underscores stand for the dots in names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_the_smallest_limit_upwards_counts(tmp_path):
    own, mount = tmp_path / "cgroup", tmp_path / "fs"
    own.write_text("0::/job/step\n")
    group(mount, memory__max="9000")
    group(mount / "job", memory__max="1000", memory__current="700", memory__stat="anon 350\ninactive_file 300")
    group(mount / "job" / "step", memory__max="max", memory__current="500", memory__stat="anon 400")
    assert container_memory(own, mount) == ContainerMemory(limit=1000, available=600)
    group(mount, memory__max="9000", memory__current="8500", memory__stat="inactive_file 100")
    assert container_memory(own, mount) == ContainerMemory(limit=1000, available=600)
    group(mount, memory__max="9000", memory__current="8900", memory__stat="inactive_file 100")
    assert container_memory(own, mount) == ContainerMemory(limit=1000, available=200)


def test_version_one_is_read_in_its_own_words(tmp_path):
    own, mount = tmp_path / "cgroup", tmp_path / "fs"
    own.write_text("5:cpu,cpuacct:/a\n4:memory:/a/b\n0::/a\n")
    unlimited = {"memory__limit_in_bytes": str((1 << 63) - 4096), "memory__usage_in_bytes": "5000"}
    group(mount / "memory", **unlimited)
    group(mount / "memory" / "a", **unlimited)
    group(mount / "memory" / "a" / "b", **unlimited)
    assert container_memory(own, mount) is None
    stat = "inactive_file 1\ntotal_inactive_file 400"
    group(mount / "memory" / "a", memory__limit_in_bytes="2000", memory__usage_in_bytes="1500", memory__stat=stat)
    assert container_memory(own, mount) == ContainerMemory(limit=2000, available=900)


def test_a_container_that_shows_its_group_as_the_root(tmp_path):
    own, mount = tmp_path / "cgroup", tmp_path / "fs"
    for name in ("/", "/system.slice/docker-abc.scope", "/../outside"):
        own.write_text(f"0::{name}\n")
        group(mount, memory__max="1048576", memory__current="1048577", memory__stat="")
        assert container_memory(own, mount) == ContainerMemory(limit=1048576, available=0)
    assert container_memory(tmp_path / "missing", mount) is None
    group(mount, memory__max="max", memory__current="5")
    assert container_memory(own, mount) is None


def test_an_accelerator_that_keeps_no_count_has_the_figures_of_the_process(monkeypatch):
    names = ["memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"]
    names += ["reset_peak_memory_stats", "get_memory_info"]

    def failing_with(words):
        def call(device):
            raise RuntimeError(words)

        for name in names:
            monkeypatch.setattr(torch.accelerator, name, call)

    apple = torch.device("mps")
    failing_with("allocator INTERNAL ASSERT FAILED: Allocator for mps is not a DeviceAllocator.")
    memory = device_memory(apple)
    assert 0 < memory.allocated == memory.reserved and 0 < memory.peak_allocated == memory.peak_reserved
    reset_peak(apple)
    free, total = device_capacity(apple)
    assert 0 < free < total == device_capacity(torch.device("cpu"))[1]
    failing_with("the driver is gone")
    for ask in (device_memory, reset_peak, device_capacity):
        with pytest.raises(RuntimeError, match="the driver is gone"):
            ask(apple)


def test_memory_is_reported():
    memory, host = device_memory(torch.device("cpu")), host_memory()
    assert 0 < memory.allocated <= memory.peak_allocated * 2
    assert 0 < host.resident < host.total and host.available <= host.total


def test_only_the_device_room_names_a_device():
    root = Path(helios.__file__).parent
    guilty = [
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if path.name != "device.py" and re.search(r"torch\.cuda|\.cuda\(|[\"']cuda", path.read_text())
    ]
    assert guilty == []
