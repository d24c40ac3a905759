import re
from pathlib import Path

import pytest
import torch

import helios
from helios.device import cgroup_limit, device_memory, host_memory, is_out_of_memory, resolve_device
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


def test_the_container_limit_counts(tmp_path):
    limit = tmp_path / "memory.max"
    limit.write_text("1048576\n")
    assert cgroup_limit((tmp_path / "missing", limit)) == 1048576
    limit.write_text("max\n")
    assert cgroup_limit((limit,)) is None
    limit.write_text(str(1 << 63))
    assert cgroup_limit((limit,)) is None


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
