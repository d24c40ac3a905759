"""The GPU script keeps its table whatever breaks on the way; here on the CPU."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import gpu

SHORT = "CUDA out of memory. Tried to allocate 2.00 GiB.\nMore about it."


def out_of_memory(*given, **named):
    raise torch.OutOfMemoryError(SHORT)


@pytest.fixture
def report(tmp_path):
    return gpu.Report(folder=tmp_path, limit_s=60)


def test_a_step_that_runs_out_of_memory_fails_alone(report):
    assert not report.step("large", out_of_memory)
    assert report.step("small", lambda: ({"fps": 1}, "1 fps", True))
    table = report.table()
    assert "| large | FAILED with OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. |" in table
    assert "| small | 1 fps |" in table and table.endswith("FAILED")
    assert [file.name for file in report.folder.iterdir()] == ["small.json"]


def test_a_model_that_does_not_fit_is_a_row_of_the_table(report, monkeypatch):
    monkeypatch.setattr(gpu.Helios, "from_info", out_of_memory)
    gpu.measure(torch.device("cpu"), "tiny-random", gpu.Scale.of(torch.device("cpu")), report)
    assert [name for name, _ in report.rows] == ["load"] and report.failed


def test_every_measurement_is_a_step(report, monkeypatch):
    """Whatever runs out of memory after loading, every row is there."""
    monkeypatch.setattr(gpu, "speed", out_of_memory)
    monkeypatch.setattr(gpu, "HeliosContender", out_of_memory)
    scale = gpu.Scale(size=(64, 64), chunks=1, rounds=1, long_chunks=5, beyond=True)
    gpu.measure(torch.device("cpu"), "tiny-random", scale, report)
    ran = [name for name, line in report.rows if "FAILED" not in line]
    assert ran == ["load", "bf16 decode"] and len(report.rows) == 9


def test_approximations_are_measured_on_models_of_their_own(report, monkeypatch):
    """Weights of tiny-random are too narrow for float8 in places; the rest is rounded, and its cost is in the row."""
    scale = gpu.Scale(size=(64, 64), chunks=2, rounds=1, long_chunks=5, beyond=False)
    gpu.measure_approximate(torch.device("cpu"), "tiny-random", scale, report)
    names = ["load for fp8", "bf16 VAE fp8 1+1+1", "load for history fp8", "bf16 VAE history fp8 1+1+1"]
    assert [name for name, _ in report.rows] == names and not report.failed
    assert "; fp8: a second chunk is " in report.rows[1][1]
    assert "; history and fp8: a second chunk is " in report.rows[3][1]


def test_what_is_late_is_left_out(report):
    def late():
        raise TimeoutError

    report.step("slow", late)
    report.limit_s = 0
    report.step("next", out_of_memory)
    assert report.rows == [("slow", "stopped: out of time"), ("next", "left out: 0 s were over")]
    assert not report.failed
