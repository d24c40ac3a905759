"""The kernel check of the GPU script, here on the CPU: it passes, and it would notice a wrong kernel."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import kernels

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_backend_equals_its_reference(dtype):
    rows = kernels.check_kernels(CPU, (dtype,))
    assert [row for row in rows if not row["ok"]] == []
    ran = {row["op"] for row in rows if row["backend"] == "auto" and row["error"] is not None}
    assert ran == {operation.name for operation in kernels.operations()}


def test_a_wrong_kernel_is_noticed(monkeypatch):
    wrong = kernels.Operation(
        name="rms_norm",
        call=lambda x, backend: x * (1.0 if backend == "reference" else 1.1),
        shapes=((2, 5, 8),),
        names=("reference",),
    )
    monkeypatch.setattr(kernels, "operations", lambda: [wrong])
    rows = kernels.check_kernels(CPU, (torch.float32,))
    assert [(row["backend"], row["ok"]) for row in rows] == [("auto", False), ("reference", True)]
