import json

import pytest

import helios.ops.attention  # noqa: F401 - registers its backends
from helios.cli.main import run
from helios.cli.show import _draw as draw_sheet
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


@pytest.mark.usefixtures("no_compiler")
def test_doctor_says_what_a_missing_compiler_is_for(capsys):
    assert run(["doctor", "--json"]) == 0
    assert "--accelerate compiled" in json.loads(capsys.readouterr().out)["compiler"]


def test_doctor_does_not_claim_more_than_was_run(capsys):
    assert run(["doctor", "--json"]) == 0
    unproven = json.loads(capsys.readouterr().out)["unproven"]
    only_there = next(line for line in unproven if line.startswith("what only accelerators take"))
    kernels = set(backends("attention")) - {"reference", "sdpa"}
    assert all(words in only_there for words in ("convolutions", "pinned copies", "second stream", *kernels))
    assert any("--accelerate compiled" in line and "on the CPU" in line for line in unproven)
    assert any("Triton" in line and "do not exist" in line for line in unproven)


@pytest.mark.parametrize(
    "arguments", [["info", "nowhere/at-all/x"], ["show", "missing.mp4"], ["resume", "missing.session"]]
)
def test_what_is_missing_is_named(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("helios: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments,words",
    [
        (["plan", "tiny-random", "-H", "0"], "0x128 (height x width) is not a multiple"),
        (["plan", "tiny-random", "-W", "-64"], "64x-64 (height x width) is not a multiple"),
        (["plan", "tiny-random", "--device-memory", "nan"], "device-memory=nan is no size"),
        (["plan", "tiny-random", "--device-memory", "inf"], "device-memory=inf is no size"),
        (["plan", "tiny-random", "--device-memory", "0"], "device-memory=0 is no size"),
        (["info", "MODEL", "-H", "0"], "height=0 is no size"),
        (["info", "MODEL", "-W", "-5"], "width=-5 is no size"),
    ],
)
def test_sizes_that_are_none_are_one_sentence(tiny, arguments, words, capsys):
    assert run([str(tiny("distilled")) if word == "MODEL" else word for word in arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.startswith("helios: ") and error.count("\n") == 1


def test_a_sheet_holds_only_the_frames_that_it_shows(tmp_path, monkeypatch):
    import weakref

    import numpy as np
    from PIL import Image

    made, most = [], []

    def stream(path, *, fps):
        for i in range(40):
            frame_HWC = np.full((16, 16, 3), i, np.uint8)
            made.append(weakref.ref(frame_HWC))
            most.append(sum(ref() is not None for ref in made))
            yield frame_HWC

    monkeypatch.setattr("helios.media.video.stream_frames", stream)
    draw_sheet(tmp_path / "a.mp4", tmp_path / "a.png", 3)
    assert max(most) <= 6 + 2
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    shown = [int(sheet[4 + 8, 4 + column * 20 + 8, 0]) for column in range(3)]
    assert shown == [0, 7, 15]


def test_unknown_options_are_exit_code_two(capsys):
    assert run(["generate", "a", "--no-such-option"]) == 2
    assert "no-such-option" in capsys.readouterr().err


def test_help_teaches(capsys):
    assert run(["generate", "--help"]) == 0
    text = capsys.readouterr().out
    assert "Examples" in text and "--timeline" in text
    assert run(["--version"]) == 0
