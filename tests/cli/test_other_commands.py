import json

import pytest

import helios.ops.attention  # noqa: F401 - registers its backends
from helios.cli.main import run
from helios.ops.backends import backends

SMALL = ["--height", "64", "--width", "64", "--steps", "1,1,1", "--device", "cpu", "-q"]


def test_info_says_what_a_checkpoint_is(tiny, capsys):
    assert run(["info", str(tiny("mid")), "--height", "100", "--width", "200", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["variant"], facts["levels"], facts["solver"]) == ("mid", 3, "unipc")
    assert facts["steps"] == [20, 20, 20] and facts["size_multiple"] == 64
    assert [size.split()[0] for size in facts["legal_sizes_near"]] == ["128x192", "64x192"]
    assert run(["info", str(tiny("base"))]) == 0
    assert "base" in capsys.readouterr().out


def test_show_prints_the_record_and_draws_a_sheet(tiny, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["generate", "a red ball", "-m", str(tiny("distilled")), "-n", "33", "-o", "a.mp4", *SMALL]) == 0
    capsys.readouterr()
    assert run(["show", "a.mp4", "--sheet", "a.png", "--columns", "3"]) == 0
    assert "a red ball" in capsys.readouterr().out
    from PIL import Image

    assert Image.open("a.png").size[0] > 3 * 64
    assert run(["show", "a.mp4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_frames"] == 33


def test_doctor_reports_without_failing(capsys):
    assert run(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"device", "host_memory", "container_limit", "h264_encoder", "extras", "unproven"} <= set(report)
    assert report["h264_encoder"] == "libx264"


def test_doctor_does_not_claim_more_than_was_run(capsys):
    assert run(["doctor", "--json"]) == 0
    unproven = json.loads(capsys.readouterr().out)["unproven"]
    only_there = next(line for line in unproven if line.startswith("what only accelerators take"))
    kernels = set(backends("attention")) - {"reference", "sdpa"}
    assert all(words in only_there for words in ("convolutions", "pinned copies", "second stream", *kernels))
    assert any("eager backend only" in line for line in unproven)
    assert any("Triton" in line and "do not exist" in line for line in unproven)


@pytest.mark.parametrize(
    "arguments", [["info", "nowhere/at-all/x"], ["show", "missing.mp4"], ["resume", "missing.session"]]
)
def test_what_is_missing_is_named(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("helios: ") and error.count("\n") == 1


def test_unknown_options_are_exit_code_two(capsys):
    assert run(["generate", "a", "--no-such-option"]) == 2
    assert "no-such-option" in capsys.readouterr().err


def test_help_teaches(capsys):
    assert run(["generate", "--help"]) == 0
    text = capsys.readouterr().out
    assert "Examples" in text and "--timeline" in text
    assert run(["--version"]) == 0
