"""The whole measurement on a tiny model: what it must say, and that both contenders made the same video."""

import json
import sys
from pathlib import Path

import pytest
import torch

from helios.bench.speed import SpeedConfig, markdown, measure_speed, plot_chunk
from helios.bench.speed import run as speed_run
from helios.bench.speed.machine import Machine
from helios.bench.speed.operations import time_by_kind
from helios.bench.speed.run import _growth
from helios.bench.speed.work import ChunkWork
from helios.checkpoints import inspect, resolve, synthetic_info
from helios.cli.main import run
from helios.engine.approximation import Fp8Linears, ReusedHistory
from helios.engine.pace import DecodeAhead
from helios.engine.pipeline import Helios
from helios.engine.prepare import prepare
from helios.errors import InputError

ROOT = Path(__file__).parents[3]
NEARLY = (ReusedHistory(), Fp8Linears())
RESULTS = ROOT / "benchmarks" / "results"
SIZE = {"height": 64, "width": 64, "steps": (1, 1, 1), "amplify_first_chunk": False, "num_frames": 66}


def measured(info, vae_dtype="float32", **config):
    prepared = prepare(info, "a red circle moves right", **{**SIZE, "steps": (1,) * info.geometry.levels})
    helios = Helios.from_info(info, device="cpu", dtype="float32", vae_dtype=vae_dtype)
    return measure_speed(helios, prepared, SpeedConfig(rounds=1, **config))


@pytest.fixture(scope="module")
def result(helios_of):
    return measured(helios_of("distilled").info, against=("diffusers",))


def test_the_result_names_everything_that_decides_a_figure(result):
    settings, ours = result["settings"], result["helios"]
    assert settings["steps"] == [1, 1, 1] and settings["amplify_first_chunk"] is False
    assert (settings["height"], settings["width"], settings["num_frames"]) == (64, 64, 66)
    assert (settings["dtype"], settings["vae_dtype"]) == ("float32", "float32")
    assert result["machine"]["threads"] == torch.get_num_threads() and result["machine"]["versions"]["torch"]
    assert 0 <= result["machine"]["busy_with_other_work"] <= 1
    assert result["machine"]["taken_by_other_guests"] is None or 0 <= result["machine"]["taken_by_other_guests"] <= 1
    assert ours["time_to_first_frame_s"] < ours["wall_s"] and ours["text_s"] > 0 and ours["file_s"] > 0
    assert {"chunk_p50_s", "chunk_p95_s", "chunk_p99_s", "real_time_factor", "warm_up_s"} <= set(ours)
    phases = ["history and noise", "denoise level 0", "denoise level 1", "denoise level 2", "decode", "copy to host"]
    assert list(ours["phases_s"]) == phases
    assert sum(ours["phases_s"].values()) <= 1.05 * ours["chunk_p50_s"]
    assert {"peak_allocated", "peak_reserved", "resident", "growth_after_third_chunk"} <= set(result["memory"])


def test_both_contenders_made_the_same_video(result):
    assert result["differences"]["diffusers"] < 1e-5
    assert set(result["ratios"]["diffusers"]) == {"wall", "cpu", "wall_best", "denoise", "decode"}


def test_the_floor_is_work_over_the_measured_rate(result):
    roofline, machine = result["roofline"], result["machine"]
    denoise, total = roofline["denoise_flops"], roofline["chunk_flops"]
    floor = denoise / machine["matrix_flops"] + (total - denoise) / machine["vae_matrix_flops"]
    assert machine["vae_matrix_flops"] >= machine["matrix_flops"]  # one precision: whichever way was better
    assert roofline["floor_s"] == pytest.approx(floor)
    assert roofline["floor_reached"] == pytest.approx(roofline["floor_s"] / roofline["chunk_s"])
    assert sum(row["flops"] for row in roofline["phases"]) == pytest.approx(roofline["chunk_flops"])
    assert {"convolution", "matrix product", "attention"} <= set(result["operations_s"])


def test_each_precision_has_its_own_rate():
    """A half-precision transformer beside a float32 VAE: the VAE is not held to the rate of half precision."""
    about = {"device": "cpu", "processor": "", "threads": 1, "dtype": "bfloat16", "versions": {}, "copy_bytes": 1.0}
    machine = Machine(**about, matrix_flops=100.0, vae_matrix_flops=10.0)
    phases = {"history and noise": 1.0, "denoise level 0": 4.0, "decode": 5.0, "copy to host": 0.0}
    work = ChunkWork(history=20.0, levels=(180.0,), decode=40.0, text=7.0)
    roofline = speed_run._roofline(work, machine, {"phases_s": phases})
    assert [row["floor_s"] for row in roofline["phases"]] == pytest.approx([0.2, 1.8, 4.0, 0.0])
    assert (roofline["floor_s"], roofline["floor_reached"]) == pytest.approx((6.0, 0.6))


def test_memory_is_ours_alone(helios_of, monkeypatch):
    """The CPU's peak cannot be reset: our run is measured before Diffusers has even been built."""
    memory_of, others, built = speed_run._memory_of, speed_run._others, []

    def memory_before(*given):
        assert built == []
        return memory_of(*given)

    monkeypatch.setattr(speed_run, "_memory_of", memory_before)
    monkeypatch.setattr(speed_run, "_others", lambda *given: built.append(1) or others(*given))
    measured(helios_of("distilled").info)
    assert built == [1]


SPEED = [file for file in sorted(RESULTS.rglob("*.json")) if file.parent.name not in ("small", "ablations")]


@pytest.mark.parametrize("file", SPEED, ids=lambda file: file.stem)
def test_results_that_were_kept_stay_readable(file):
    assert markdown(json.loads(file.read_text())) + "\n" == file.with_suffix(".md").read_text()


def test_tables_and_picture(result, tmp_path):
    text = markdown(json.loads(json.dumps(result)))
    assert "other work took" in text
    assert "steps 1+1+1" in text and "| decode |" in text and "| convolution |" in text and "of the matrix rate" in text
    assert plot_chunk(result, tmp_path / "a.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize("variant", ["base", "mid", "distilled"])
def test_models_without_files_run_and_equal_the_published_pipeline(variant):
    against = () if variant == "mid" else ("diffusers",)  # the published guidance of Mid fails on frames this small
    result = measured(synthetic_info(f"tiny-random-{variant}"), against=against, pace=DecodeAhead())
    assert result["settings"]["pace"] == "DecodeAhead"
    assert all(difference < 1e-4 for difference in result["differences"].values())


def test_the_shipped_model_reads_prompts_as_long_as_it_was_trained_with(small):
    """Padding is attended to, and the published pipeline pads to 512 tokens unless told otherwise."""
    assert small["differences"]["diffusers"] < 4e-4
    assert "other frames" not in markdown(small)


def test_other_frames_are_said(small):
    """A ratio between two different videos must not pass for a speed-up; half precision and approximations may differ."""
    wrong = small | {"differences": {"diffusers": 0.5}}
    assert "to diffusers: 5.0e-01. **These are other frames" in markdown(wrong)
    half = small["settings"] | {"vae_dtype": "bfloat16"}
    assert "other frames" not in markdown(wrong | {"settings": half})


@pytest.fixture(scope="module")
def small():
    return measured(inspect(resolve("small-distilled")), against=("diffusers",))


def test_a_half_vae_says_what_it_costs(helios_of):
    result = measured(helios_of("distilled").info, vae_dtype="bfloat16")
    assert 30 < result["vae_psnr_db"] < 90
    assert f"The VAE in bfloat16 is {result['vae_psnr_db']:.1f} dB from its float32 decode" in markdown(result)


def test_a_float32_vae_costs_nothing(result):
    assert result["vae_psnr_db"] is None and " dB" not in markdown(result)


def test_an_approximation_says_what_it_costs(helios_of):
    """And its floor is that of the work that is left."""
    exact, result = measured(helios_of("distilled").info), measured(helios_of("distilled").info, approximations=NEARLY)
    assert exact["approximations"] is None and result["approximations"]["names"] == ["history", "fp8"]
    assert 20 < result["approximations"]["psnr_db"] < 80
    assert result["roofline"]["denoise_flops"] < 0.95 * exact["roofline"]["denoise_flops"]
    text = markdown(result)
    assert (
        "Approximate by history and fp8: a second chunk is" in text and "8-bit products at the rate of float32" in text
    )


def test_growth_is_known_of_long_runs_only():
    assert _growth([5, 6, 7]) is None
    assert _growth([5, 6, 7, 7, 9, 8]) == 2


def test_what_an_operation_takes_is_not_the_hosts(capfd):
    """Neither the profiler's start nor its stop counts, whose hundreds of milliseconds are no one's work, or is said."""
    a = torch.randn(1536, 1536)
    kinds = time_by_kind(lambda: a @ a, torch.device("cpu"))
    assert kinds["matrix product"] > 0.01
    assert kinds["host and waiting"] <= 0.1 * sum(kinds.values())
    assert "profiler" not in capfd.readouterr().err


def test_a_steady_chunk_is_profiled(helios_of, monkeypatch):
    """The second chunk warms the profiler up, the third is measured; the first one is no steady chunk."""
    helios, made = helios_of("distilled"), []
    prepared = helios.prepare("a red ball", **SIZE)

    def opened(*given):
        for chunk in Helios.open(helios, *given):
            made.append(chunk.index)
            yield chunk

    monkeypatch.setattr(helios, "open", opened)
    call = speed_run._steady_chunks(helios, prepared)
    assert made == [0]
    time_by_kind(call, helios.device)
    assert made == [0, 1, 2]


def test_nonsense_is_refused():
    with pytest.raises(InputError, match="rounds=0"):
        SpeedConfig(rounds=0)
    with pytest.raises(InputError, match="against='magic'"):
        SpeedConfig(against=("magic",))
    with pytest.raises(InputError, match="measure history, fp8 in a run of its own"):
        SpeedConfig(against=("diffusers",), approximations=NEARLY)


def test_the_command_writes_its_files(tmp_path, capsys):
    arguments = ["bench", "speed", "-m", "tiny-random", "--steps", "1,1,1", "--rounds", "1", "--chunks", "1"]
    arguments += ["-H", "64", "-W", "64", "--device", "cpu", "--accelerate", "fused"]
    assert run([*arguments, "-o", str(tmp_path / "a" / "b")]) == 0
    assert {file.name for file in (tmp_path / "a").iterdir()} == {"b.json", "b.md", "b.png"}
    assert json.loads((tmp_path / "a" / "b.json").read_text())["settings"]["checkpoint"] == "tiny-random"
    assert "| helios |" in capsys.readouterr().out


def refusal(capsys, *arguments):
    """What the command says, which must be one sentence, before it has loaded anything."""
    assert run(["bench", "speed", "-m", "tiny-random", "--device", "cpu", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error
    return error


@pytest.mark.parametrize("threads", ["0", "-2"])
def test_no_threads_are_refused(threads, capsys):
    assert f"threads={threads} computes nothing: pass 1 or more" in refusal(capsys, "--threads", threads)


def test_a_missing_plot_library_is_known_before_the_measurement(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("helios.bench.speed.measure_speed", lambda *given, **named: pytest.fail("measured first"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "helios[bench]" in refusal(capsys, "-o", str(tmp_path / "a"))


def test_a_dot_in_the_name_is_no_ending(result, tmp_path):
    from helios.cli.bench import _write

    _write(result, tmp_path / "v1.5")
    _write(result, tmp_path / "v1.5.json")
    assert {file.name for file in tmp_path.iterdir()} == {"v1.5.json", "v1.5.md", "v1.5.png"}


@pytest.mark.parametrize("file", sorted((RESULTS / "cpu").glob("*.md")), ids=lambda file: file.stem)
def test_the_page_shows_the_results_as_they_are(file):
    assert file.read_text() in (ROOT / "docs" / "performance.md").read_text()
