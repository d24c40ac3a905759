"""The kernel check of the GPU script, here on the CPU: it passes, and it would notice a wrong kernel."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import kernels

from helios.errors import InputError
from helios.ops.backends import _LOADERS, backends

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_backend_equals_its_reference(dtype):
    rows = kernels.check_kernels(CPU, (dtype,))
    assert [row for row in rows if not row["ok"]] == []
    ran = {row["op"] for row in rows if row["backend"] == "auto" and row["error"] is not None}
    assert ran == {operation.name for operation in kernels.operations()}


def test_no_operation_with_a_choice_of_backends_is_left_out():
    with_a_choice = {operation for operation, _ in _LOADERS if len(backends(operation)) > 1}
    assert with_a_choice <= {operation.name for operation in kernels.operations()}


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


def refusing(op, refused, error):
    """An operation one backend of which raises."""

    def call(x, backend):
        if backend == refused:
            raise error
        return x.clone()

    return kernels.Operation(name=op, call=call, shapes=((2, 5, 8),))


@pytest.mark.parametrize(
    ("op", "backend", "error", "ok"),
    [
        ("rms_norm", "triton", RuntimeError("illegal memory access"), False),
        ("rms_norm", "triton", TypeError("unexpected keyword"), False),
        ("rms_norm", "triton", InputError("needs the package 'triton', which is not installed"), True),
        ("rms_norm", "auto", InputError("needs the package 'triton', which is not installed"), False),
        ("linear", "onednn", RuntimeError("could not create a primitive"), False),
        ("attention", "flash3", RuntimeError("only half precision"), True),
    ],
)
def test_an_error_is_a_failure_unless_it_was_declared(op, backend, error, ok, monkeypatch):
    """In float32 on the CPU, which linear/onednn takes and attention/flash3 does not."""
    row = kernels._check(refusing(op, backend, error), backend, CPU, torch.float32)
    assert row["ok"] == ok and row["error"] is None and str(error) in row["note"]


def test_what_a_backend_takes_is_declared_of_backends_that_exist():
    named = {(operation.name, name) for operation in kernels.operations() for name in operation.names}
    assert set(kernels.TAKES) <= named
