"""The command line as scripts see it: files, JSON, exit codes, one sentence for bad input."""

import json
import shutil

import av
import numpy as np
import pytest
import torch
from PIL import Image

from helios.cli.main import run
from helios.cli.options import parse_accelerations, parse_approximations
from helios.engine.acceleration import CompiledBlocks, CompiledNorms, FusedProjections
from helios.engine.approximation import Fp8Linears, ReusedHistory
from helios.engine.pipeline import Helios
from helios.engine.session import EarlyFrames, WholeChunks

PROMPT = "A red circle moves slowly from left to right."
SMALL = ["--height", "64", "--width", "64", "--steps", "1,1,1", "--no-amplify-first-chunk", "--device", "cpu"]


@pytest.fixture
def model(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return str(tiny("distilled"))


@pytest.fixture
def no_weights(monkeypatch):
    """Loading weights fails the test: bad input must be refused before."""

    def refuse(*args, **kwargs):
        raise AssertionError("weights were loaded before the input was checked")

    for name in ("load_transformer", "load_vae", "load_text_encoder"):
        monkeypatch.setattr(f"helios.checkpoints.load.{name}", refuse)


def generate(*arguments: str) -> int:
    return run(["generate", *arguments])


def refused(capsys, words: str, *arguments: str) -> None:
    assert generate(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert captured.err.startswith("helios: ") and captured.err.count("\n") == 1


def test_a_video_and_its_record(model, capsys, tmp_path):
    assert generate(PROMPT, "-m", model, "-n", "40", "--seed", "5", "-o", "out.mp4", *SMALL) == 0
    captured = capsys.readouterr()
    assert "out.mp4" in captured.out and "40 frames" in captured.out and "chunk 2" in captured.err
    with av.open("out.mp4") as file:
        stream = file.streams.video[0]
        assert (stream.width, stream.height, float(stream.average_rate)) == (64, 64, 24.0)
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert sum(1 for _ in file.decode(video=0)) == 40
    sidecar = json.loads((tmp_path / "out.mp4.json").read_text())
    assert sidecar["seeds"] == [5] and sidecar["steps"] == [1, 1, 1]
    assert sidecar["timelines"][0][0]["prompt"] == PROMPT
    assert not list(tmp_path.glob("*.part"))


def test_json_is_one_object_with_settings_timings_and_paths(model, capsys):
    assert generate(PROMPT, "-m", model, "-n", "33", "-o", "out.npy", "--json", *SMALL) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["frames"] == 33 and printed["paths"]["video"] == "out.npy"
    assert printed["settings"]["num_frames"] == 33 and printed["settings"]["checkpoint"]["variant"] == "distilled"
    assert printed["timings"]["fps"] > 0 and printed["timings"]["time_to_first_frame_s"] > 0


def test_npy_holds_uint8_or_floats(model):
    for name, extra in (("bytes.npy", []), ("floats.npy", ["--float"])):
        assert generate(PROMPT, "-m", model, "-n", "34", "-o", name, *SMALL, *extra) == 0
    frames, floats = np.load("bytes.npy"), np.load("floats.npy")
    assert frames.shape == floats.shape == (34, 64, 64, 3)
    assert frames.dtype == np.uint8 and floats.dtype == np.float32
    assert 0 <= floats.min() and floats.max() <= 1
    assert np.abs(floats * 255 - frames).max() <= 0.51


def test_repeating_a_recorded_run_gives_the_same_bytes(model, tmp_path):
    Image.fromarray(np.full((80, 90, 3), 200, np.uint8)).save("start.png")
    first = [PROMPT, "-m", model, "-n", "40", "--seed", "5", "--image", "start.png", "-o", "a.mp4", *SMALL]
    assert generate(*first) == 0
    for source in ("a.mp4", "a.mp4.json"):
        assert generate("--from", source, "-o", "b.mp4", "--force") == 0
        assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_repeat_keeps_the_fit_and_the_dtype(model, tmp_path):
    Image.fromarray(np.arange(80 * 160 * 3, dtype=np.uint8).reshape(80, 160, 3)).save("start.png")
    how = ["--fit", "pad", "--dtype", "bfloat16", "--vae-dtype", "bfloat16", "--image", "start.png", "-n", "20"]
    assert generate(PROMPT, "-m", model, *how, "-o", "a.mp4", *SMALL) == 0
    sidecar = json.loads((tmp_path / "a.mp4.json").read_text())
    assert sidecar["dtype"] == sidecar["vae_dtype"] == "bfloat16"
    assert generate("--from", "a.mp4", "-o", "b.mp4") == 0
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_what_python_saved_can_be_repeated(model, helios_of, tmp_path):
    Image.fromarray(np.arange(80 * 90 * 3, dtype=np.uint8).reshape(80, 90, 3)).save("start.png")
    how = {"height": 64, "width": 64, "steps": (1, 1, 1), "num_frames": 20, "amplify_first_chunk": False}
    videos = helios_of("distilled").generate_batch(["a red ball", PROMPT], image="start.png", seed=3, **how)
    videos[1].save("a.npy")
    assert generate("--from", "a.npy.json", "-m", model, "-o", "b.npy") == 0
    assert np.abs(np.load("a.npy").astype(int) - np.load("b.npy")).max() <= 1


def test_a_repeat_notices_a_changed_input(model, capsys):
    Image.fromarray(np.full((80, 90, 3), 200, np.uint8)).save("start.png")
    assert generate(PROMPT, "-m", model, "-n", "33", "--image", "start.png", "-o", "a.mp4", *SMALL) == 0
    Image.fromarray(np.full((80, 90, 3), 100, np.uint8)).save("start.png")
    capsys.readouterr()
    refused(capsys, "gone or has changed: pass it with --image", "--from", "a.mp4", "-o", "b.mp4")
    assert generate("--from", "a.mp4", "--image", "start.png", "-o", "b.mp4") == 0


def test_resuming_on_the_command_line_equals_one_run(model):
    common = ["-m", model, "--seed", "5", *SMALL]
    assert generate(PROMPT, *common, "-n", "99", "-o", "whole.npy") == 0
    assert generate(PROMPT, *common, "-n", "40", "-o", "first.npy", "--session", "s.session") == 0
    assert run(["resume", "s.session", "-m", model, "-n", "99", "-o", "rest.npy"]) == 0
    joined = np.concatenate([np.load("first.npy"), np.load("rest.npy")])
    assert np.array_equal(joined, np.load("whole.npy"))


def test_a_part_of_a_resumed_stream_is_no_run_to_repeat(model, capsys):
    assert generate(PROMPT, "-m", model, "-n", "33", "-o", "first.mp4", "--session", "s.session", *SMALL) == 0
    assert run(["resume", "s.session", "-n", "66", "-o", "rest.mp4", "-q"]) == 0
    capsys.readouterr()
    refused(capsys, "rest.mp4 begins at frame 33 of a stream that was resumed", "--from", "rest.mp4", "-o", "b.mp4")


def test_a_session_names_its_model(model, tiny, capsys, tmp_path):
    shutil.copytree(model, tmp_path / "own")
    assert generate(PROMPT, "-m", "own", "-n", "33", "-o", "a.npy", "--session", "s.session", *SMALL) == 0
    assert run(["resume", "s.session", "-n", "66", "-o", "b.npy", "-q"]) == 0
    capsys.readouterr()
    assert run(["resume", "s.session", "-m", str(tiny("mid")), "-n", "66", "-o", "c.npy"]) == 2
    error = capsys.readouterr().err
    assert "belongs to another checkpoint" in error and str(tmp_path / "own") in error and error.count("\n") == 1
    (tmp_path / "own").rename(tmp_path / "moved")
    assert run(["resume", "s.session", "-n", "66", "-o", "c.npy"]) == 2
    error = capsys.readouterr().err
    assert "the model of s.session cannot be read, pass it with --model" in error and error.count("\n") == 1
    assert run(["resume", "s.session", "-m", "moved", "-n", "66", "-o", "c.npy", "-q"]) == 0
    assert np.array_equal(np.load("b.npy"), np.load("c.npy"))


@pytest.fixture
def encoders(monkeypatch):
    """Which weights are loaded, in order."""
    from helios.checkpoints import load

    order = []
    for name in ("load_text_encoder", "load_transformer"):

        def watched(*given, name=name, original=getattr(load, name), **named):
            order.append(name)
            return original(*given, **named)

        monkeypatch.setattr(load, name, watched)
    return order


def test_the_text_encoder_is_gone_before_the_transformer_comes(tiny, encoders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--height", "64", "--width", "64", "--steps", "2", "--device", "cpu", "-q", "-m", str(tiny("base"))]
    told = ["-n", "66", "--negative-prompt", "blurry", "--session", "s.session"]
    (tmp_path / "story.txt").write_text("0 a red ball\n1.4 waves on a beach\n")
    assert generate("--timeline", "story.txt", *told, "-o", "a.npy", *small) == 0
    assert encoders == ["load_text_encoder", "load_transformer"]
    encoders.clear()
    assert run(["resume", "s.session", "-n", "99", "-p", "and it snows", "--blend", "2", "-o", "b.npy", "-q"]) == 0
    assert encoders == ["load_text_encoder", "load_transformer"]


def test_decoding_early_gives_the_same_video(model, capsys):
    for how in ("whole", "early"):
        command = [PROMPT, "-m", model, "-n", "40", "-o", f"{how}.npy", "--json", "--decode", how, *SMALL]
        assert generate(*command, "--session", f"{how}.session") == 0
        timings = json.loads(capsys.readouterr().out)["timings"]
        assert len(timings["chunk_seconds"]) == 2
        assert run(["resume", f"{how}.session", "-n", "70", "-o", f"{how}-rest.npy", "-q", "--decode", how]) == 0
        capsys.readouterr()
    for rest in ("", "-rest"):
        whole, early = (np.load(f"{how}{rest}.npy").astype(int) for how in ("whole", "early"))
        assert whole.shape == early.shape and np.abs(whole - early).max() <= 1


@pytest.fixture
def room(monkeypatch, tiny):
    """A function that leaves a number of bytes free for a run of 64x64, and returns what such a run needs."""
    import torch

    from helios.checkpoints import inspect
    from helios.device import HostMemory
    from helios.engine.memory import Room, footprint, judge
    from helios.engine.prepare import prepare

    info, cpu = inspect(tiny("distilled")), torch.device("cpu")
    plan = prepare(info, PROMPT, height=64, width=64).plan

    def leave(free, weights="exact"):
        host = HostMemory(total=1 << 40, available=free, cgroup_limit=None, resident=0)
        here = Room(device=cpu, capacity=1 << 40, free=free, host=host)
        monkeypatch.setattr(Room, "of", staticmethod(lambda device: here))
        return judge(footprint(info, plan, device=cpu, dtype=torch.float32, weights=weights), here)

    return leave


def test_a_run_without_room_is_refused_before_weights_load(model, capsys, room, no_weights):
    needed = room(0)
    command = [PROMPT, "-m", model, "-n", "5", "-o", "a.npy", *SMALL]
    room(needed.needed_prompts_first - 1)
    refused(capsys, "--decode early needs", *command)
    room(needed.needed_least - 1)
    for how in ("whole", "early"):
        words = "on cpu and 0.6 GiB are free: take a smaller precision, size or model; `helios plan` counts"
        refused(capsys, words, *command, "--decode", how)


def test_what_saves_memory_is_said_and_can_be_overridden(model, capsys, room):
    needed = room(0)
    command = [PROMPT, "-m", model, "-n", "5", "-o", "a.npy", "-q", "--force", *SMALL]
    for free, more, words in (
        (needed.needed_prompts_first - 1, ["--anyway"], "it is tried anyway"),
        (needed.needed - 1, [], "fits only with the text encoder freed"),
        (needed.needed, [], ""),
        (needed.needed_prompts_first - 1, ["--decode", "early"], "fits only with the text encoder freed"),
        (1 << 40, [], ""),
    ):
        room(free)
        assert generate(*command, *more) == 0
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == bool(words)


def test_8_bit_weights_are_rounded_while_they_load_where_the_exact_ones_have_no_room(model, capsys, room):
    command = [PROMPT, "-m", model, "-n", "5", "-q", "--force", *SMALL]
    rounded = room(0, weights="fp8")
    exact = room(rounded.needed_prompts_first)
    assert rounded.needed_prompts_first < exact.needed_prompts_first
    refused(capsys, "on cpu and", *command, "-o", "a.npy")
    assert generate(*command, "-o", "a.npy", "--approximate", "fp8") == 0
    assert "fp8: weights were rounded while they loaded" in capsys.readouterr().err
    room(1 << 40)
    assert generate(*command, "-o", "b.npy", "--approximate", "fp8") == 0
    assert "fp8: a second chunk is" in capsys.readouterr().err
    assert np.array_equal(np.load("a.npy"), np.load("b.npy"))


def test_resuming_keeps_the_precision(model, capsys):
    common = ["-m", model, "--seed", "5", "--dtype", "bfloat16", "--vae-dtype", "bfloat16", "-q", *SMALL]
    assert generate(PROMPT, *common, "-n", "66", "-o", "whole.npy") == 0
    assert generate(PROMPT, *common, "-n", "33", "-o", "first.npy", "--session", "s.session") == 0
    resume = ["resume", "s.session", "-m", model, "-n", "66", "-q"]
    assert run([*resume, "-o", "rest.npy"]) == 0
    assert np.array_equal(np.concatenate([np.load("first.npy"), np.load("rest.npy")]), np.load("whole.npy"))
    assert capsys.readouterr().err == ""
    assert run([*resume, "-o", "other.npy", "--dtype", "float32"]) == 0
    warning = capsys.readouterr().err
    assert "made in bfloat16 with the VAE in bfloat16 and goes on in float32 with" in warning
    assert warning.startswith("helios: s.session") and warning.count("\n") == 1


def test_accelerations_keep_the_video(model):
    for name, how in (("plain.npy", []), ("sooner.npy", ["--accelerate", "fused", "--ahead"])):
        assert generate(PROMPT, "-m", model, "-n", "66", "-o", name, "--session", "s.session", *how, *SMALL) == 0
        assert run(["resume", "s.session", "-m", model, "-n", "70", "-o", f"rest-{name}", *how]) == 0
    for prefix in ("", "rest-"):
        plain, sooner = (np.load(f"{prefix}{name}.npy").astype(int) for name in ("plain", "sooner"))
        assert np.abs(plain - sooner).max() <= 1


def test_the_ways_to_accelerate(monkeypatch):
    monkeypatch.setattr("helios.engine.acceleration.require_compiler_for", lambda device: None)
    here = torch.device("cpu")
    assert parse_accelerations(None, here) == ()
    assert parse_accelerations("compiled", here) == (CompiledBlocks(), CompiledNorms())
    assert parse_accelerations("compiled,fused", here) == (FusedProjections(), CompiledBlocks(), CompiledNorms())


@pytest.mark.usefixtures("no_weights", "no_compiler")
@pytest.mark.parametrize("command", [["generate", PROMPT], ["compile"], ["bench", "speed"]])
def test_a_missing_compiler_is_said_before_anything_loads(model, capsys, tmp_path, command):
    how = ["-o", "packages"] if command == ["compile"] else ["--accelerate", "fused,compiled"]
    assert run([*command, "-m", model, *how]) == 2
    assert capsys.readouterr().err.count("compiling needs a C++ compiler and there is none") == 1
    assert not list(tmp_path.glob("*.mp4*"))


def test_compiling_comes_before_the_run_and_is_said(model, capsys, monkeypatch):
    """The run's own figures are then those of the compiled model; parts of a chunk are other sizes than whole ones."""
    warmed = []
    monkeypatch.setattr("helios.engine.acceleration.require_compiler_for", lambda device: None)
    for compiled in (CompiledBlocks, CompiledNorms):
        monkeypatch.setattr(compiled, "apply", lambda self, transformer, vae: None)
    monkeypatch.setattr(Helios, "warm_up", lambda self, prepared, *, decoding: warmed.append(type(decoding)))
    assert generate(PROMPT, "-m", model, "-n", "1", "-o", "a.npy", "--accelerate", "compiled", *SMALL) == 0
    assert "compiled in 0 s" in capsys.readouterr().err
    assert generate(PROMPT, "-m", model, "-n", "1", "-o", "b.npy", "--accelerate", "fused", *SMALL) == 0
    assert "compil" not in capsys.readouterr().err
    early = ["--accelerate", "compiled", "--decode", "early"]
    assert generate(PROMPT, "-m", model, "-n", "1", "-o", "c.npy", *early, *SMALL) == 0
    assert warmed == [WholeChunks, EarlyFrames]


def test_an_approximation_is_said_recorded_and_repeated(model, capsys, tmp_path):
    small = ["-m", model, "-n", "66", *SMALL]
    assert generate(PROMPT, *small, "-o", "exact.npy") == 0
    assert generate(PROMPT, *small, "-o", "nearly.npy", "--approximate", "history,fp8", "--session", "s.session") == 0
    said = capsys.readouterr().err
    assert "history and fp8: a second chunk is " in said and " dB (PSNR) from the one without" in said
    assert json.loads((tmp_path / "nearly.npy.json").read_text())["approximations"] == ["fp8", "history"]
    exact, nearly = np.load("exact.npy"), np.load("nearly.npy")
    assert not np.array_equal(exact, nearly)
    assert run(["generate", "--from", "nearly.npy.json", "-o", "again.npy", "-q"]) == 0
    assert np.array_equal(np.load("again.npy"), nearly)
    assert run(["generate", "--from", "nearly.npy.json", "-o", "plain.npy", "-q", "--approximate", "none"]) == 0
    assert np.array_equal(np.load("plain.npy"), exact)
    capsys.readouterr()
    assert run(["resume", "s.session", "-n", "70", "-o", "rest.npy", "-q"]) == 0
    assert "fp8 and history" in capsys.readouterr().err
    (tmp_path / "packages.json").write_text("{}")
    assert run(["resume", "s.session", "-n", "70", "-o", "more.npy", "-q", "--accelerate", "."]) == 2
    assert "the run is approximate (fp8, history): leave --accelerate out" in capsys.readouterr().err


def test_the_ways_to_approximate():
    assert parse_approximations(None) is None
    assert parse_approximations("none") == ()
    assert parse_approximations("fp8,history") == (ReusedHistory(), Fp8Linears())


def test_resuming_refuses_before_weights_load(model, capsys, monkeypatch, tmp_path):
    assert generate(PROMPT, "-m", model, "-n", "33", "-o", "a.npy", "--session", "s.session", *SMALL) == 0
    capsys.readouterr()

    def refuse(*args, **kwargs):
        raise AssertionError("weights were loaded before the input was checked")

    monkeypatch.setattr("helios.checkpoints.load.load_transformer", refuse)
    for extra, words in (
        (["--prompt", ""], "the prompt is empty"),
        (["--prompt", "red circle " * 300], "the text encoder reads 512"),
        (["--prompt", "x", "--blend", "-2"], "blend=-2"),
        (["-n", "33"], "already has 33 frames"),
        (["-n", "99", "--session", str(tmp_path)], "is a folder"),
    ):
        assert run(["resume", "s.session", "-m", model, "-n", "66", *extra]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


def test_damaged_records_are_refused(model, capsys, tmp_path):
    assert generate(PROMPT, "-m", model, "-n", "5", "-o", "a.mp4", *SMALL) == 0
    record = json.loads((tmp_path / "a.mp4.json").read_text())
    capsys.readouterr()
    for broken in ({"timelines": []}, {**record, "seeds": "x"}, {**record, "inputs": [1]}, {**record, "motion": None}):
        (tmp_path / "broken.json").write_text(json.dumps(broken))
        assert run(["generate", "--from", "broken.json", "-o", "b.mp4"]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_timeline_is_one_video(model, tmp_path):
    """The published interactive scripts make a batch of separate videos from several prompts (B8)."""
    (tmp_path / "story.txt").write_text("0 a red ball\n1.4 waves on a beach\n")
    assert generate("-m", model, "-n", "66", "--timeline", "story.txt", "-o", "story.npy", *SMALL) == 0
    assert generate("a red ball", "-m", model, "-n", "66", "-o", "plain.npy", *SMALL) == 0
    story, plain = np.load("story.npy"), np.load("plain.npy")
    assert story.shape == plain.shape
    assert np.array_equal(story[:33], plain[:33]) and not np.array_equal(story[33:], plain[33:])


def test_frames_as_pictures_and_the_fps_option(model, tmp_path):
    """The published --fps has no effect (B12)."""
    assert generate(PROMPT, "-m", model, "-n", "5", "-o", "frames/", *SMALL) == 0
    assert len(list((tmp_path / "frames").glob("*.png"))) == 5
    assert generate(PROMPT, "-m", model, "-n", "5", "-o", "slow.mp4", "--fps", "12", *SMALL) == 0
    with av.open("slow.mp4") as file:
        assert float(file.streams.video[0].average_rate) == 12.0


def test_an_existing_file_is_kept(model, capsys, tmp_path, no_weights):
    (tmp_path / "out.mp4").write_bytes(b"precious")
    refused(capsys, "out.mp4", PROMPT, "-m", model, "-o", "out.mp4", *SMALL)
    assert (tmp_path / "out.mp4").read_bytes() == b"precious"


@pytest.mark.parametrize(
    "arguments,words",
    [
        ([PROMPT, "--height", "480", "--width", "640"], "480x640 (height x width) is not a multiple of 64"),
        ([PROMPT, "-n", "0"], "num_frames=0"),
        ([PROMPT, "-n", "-3"], "num_frames=-3"),
        ([PROMPT, "--steps", "2,2"], "steps=2,2 has 2 entries, the checkpoint has 3 level(s)"),
        ([PROMPT, "--steps", "2,x,2"], "steps='2,x,2' cannot be read"),
        ([PROMPT, "--guidance", "5"], "this checkpoint is distilled"),
        ([], "no prompt was given"),
        (["  "], "the prompt is empty"),
        (["red circle " * 300], "tokens and the text encoder reads 512"),
        ([PROMPT, "--negative-prompt", "red circle " * 300], "tokens and the text encoder reads 512"),
        ([PROMPT, "--image", "a.png", "--video", "b.mp4"], "image and video were both given"),
        ([PROMPT, "--image", "missing.png"], "missing.png"),
        ([PROMPT, "--video", "missing.mp4"], "missing.mp4"),
        ([PROMPT, "--timeline", "missing.txt"], "a prompt and a timeline were both given"),
        (["--timeline", "missing.txt"], "missing.txt"),
        ([PROMPT, "--model", "no/such/folder/here"], "no/such/folder/here"),
        ([PROMPT, "--device", "cuda:9"], "device='cuda:9' is not on this machine"),
        ([PROMPT, "--device", "toaster"], "device='toaster'"),
        ([PROMPT, "--dtype", "int4"], "dtype='int4'"),
        ([PROMPT, "--vae-dtype", "int4"], "dtype='int4'"),
        ([PROMPT, "--decode", "late"], "decode='late' is unknown: use whole or early"),
        ([PROMPT, "--accelerate", "turbo"], "accelerate='turbo' is unknown: use fused, compiled, or a folder"),
        ([PROMPT, "--accelerate", "compiled,."], "accelerate='compiled,.'"),
        ([PROMPT, "--accelerate", "."], "'.' holds no packages: make them with helios compile"),
        (
            [PROMPT, "--approximate", "int4"],
            "approximate='int4' is unknown: use history, fp8, both with a comma, or none",
        ),
        ([PROMPT, "--out", "video.avi"], ".avi"),
        ([PROMPT, "--out", "video.mp4", "--float"], "use a name ending in .npy"),
        ([PROMPT, "--noise", "pink"], "noise='pink'"),
        ([PROMPT, "--anchor", "last"], "anchor='last'"),
        ([PROMPT, "--fit", "stretch"], "fit='stretch'"),
        ([PROMPT, "--preset", "turbo"], "preset='turbo'"),
        ([PROMPT, "--motion", "9"], "motion=9"),
        ([PROMPT, "--blend", "-1"], "blend"),
        ([PROMPT, "--seed", "-1"], "seed=-1"),
        ([PROMPT, "--fps", "0"], "fps=0"),
        (["--from", "missing.mp4"], "missing.mp4"),
        ([PROMPT, "--from", "some.mp4"], "leave prompt out"),
        (["--from", "some.mp4", "--seed", "7", "-n", "5"], "leave num-frames, seed out"),
        ([PROMPT, "--fps", "inf"], "fps=inf"),
        ([PROMPT, "--guidance", "inf"], "guidance=inf"),
        ([PROMPT, "-H", "0"], "0x"),
        ([PROMPT, "-H", "1000000", "-W", "1000000"], "at most 8192x8192"),
        ([PROMPT, "--model", ""], "--model is empty"),
        ([PROMPT, "--session", "no/folder/s.session"], "does not exist"),
        ([PROMPT, "--out", "x.mp4", "--session", "x.mp4"], "give them different names"),
        ([PROMPT, "--noise", "reference", "--session", "s.session"], "leave --session out"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_two(model, capsys, no_weights, tmp_path, arguments, words):
    chosen = [] if "--model" in arguments or "--from" in arguments else ["-m", model]
    refused(capsys, words, *arguments, *chosen)
    assert list(tmp_path.iterdir()) == []


def test_media_that_cannot_be_used(model, capsys, no_weights, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG broken")
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    for kind in ("image", "video"):
        suffix = "png" if kind == "image" else "mp4"
        refused(capsys, f"broken.{suffix}", PROMPT, "-m", model, f"--{kind}", f"broken.{suffix}")
    from helios.media import open_writer

    for frames in (1, 20):
        with open_writer(f"{frames}.mp4", fps=24, height=64, width=64, num_frames=frames, record={}) as writer:
            writer.write(np.zeros((frames, 64, 64, 3), np.uint8))
        refused(capsys, f"has {frames} frame(s)", PROMPT, "-m", model, "--video", f"{frames}.mp4")


def test_timelines_that_cannot_be_used(model, capsys, no_weights, tmp_path):
    for text, words in (("0 a\n5 b\n4 c\n", "out of order"), ("2 a\n", "at time 0"), ("hello\n", "line 1")):
        (tmp_path / "story.txt").write_text(text)
        refused(capsys, words, "-m", model, "--timeline", "story.txt")
    (tmp_path / "story.txt").write_text("0 a\n5.5 waves\n1:02 the sea at night\n")
    late = "turns to 'the sea at night' at frame 1485 (61.9 s), and the video ends at 1485 (61.9 s)"
    refused(capsys, late, "-m", model, "--timeline", "story.txt", "-n", "1485")


def test_directories_that_are_no_checkpoint_and_damaged_ones(model, capsys, no_weights, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(capsys, "empty", PROMPT, "-m", str(tmp_path / "empty"))
    shutil.copytree(model, tmp_path / "cut")
    weights = next((tmp_path / "cut" / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1000])
    refused(capsys, weights.name, PROMPT, "-m", str(tmp_path / "cut"))


def test_a_pyramid_pipeline_with_a_base_scheduler_is_refused(model, tiny, capsys, no_weights, tmp_path):
    """The published pipelines fail deep inside (Q27, B4)."""
    shutil.copytree(model, tmp_path / "mixed")
    shutil.rmtree(tmp_path / "mixed" / "scheduler")
    shutil.copytree(tiny("base") / "scheduler", tmp_path / "mixed" / "scheduler")
    refused(capsys, "contradicts itself", PROMPT, "-m", str(tmp_path / "mixed"))


def test_a_full_disk_keeps_the_finished_chunks(model, capsys, tmp_path, monkeypatch):
    import errno

    from helios.media.part_file import PartFile

    append, calls = PartFile.append, []

    def full_after_two(self, piece):
        calls.append(1)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, piece)

    monkeypatch.setattr(PartFile, "append", full_after_two)
    assert generate(PROMPT, "-m", model, "-n", "132", "-o", "out.mp4", "-q", *SMALL) == 1
    error = capsys.readouterr().err
    assert "out.mp4.part" in error and error.count("\n") == 1
    assert not (tmp_path / "out.mp4").exists()
    with av.open(str(tmp_path / "out.mp4.part")) as file:
        assert sum(1 for _ in file.decode(video=0)) in (33, 66)


def test_stopping_keeps_the_finished_chunks(model, capsys, tmp_path, monkeypatch):
    from helios.engine.session import Session

    advance = Session.__next__

    def interrupted(self):
        if self.frames_done >= 66:
            raise KeyboardInterrupt
        return advance(self)

    monkeypatch.setattr(Session, "__next__", interrupted)
    assert generate(PROMPT, "-m", model, "-n", "132", "-o", "out.mp4", "-q", *SMALL) == 130
    error = capsys.readouterr().err
    assert "(66 frames) can be played from out.mp4.part" in error and error.count("\n") == 1
    with av.open(str(tmp_path / "out.mp4.part")) as file:
        assert sum(1 for _ in file.decode(video=0)) == 66


def test_a_run_that_breaks_is_exit_code_one(model, capsys, tmp_path, monkeypatch):
    from helios.engine.watch import FiniteLog
    from helios.errors import GenerationError

    def broken(self, chunk):
        raise GenerationError(f"the latents became NaN or infinite in chunk {chunk}, level 0, step 0")

    monkeypatch.setattr(FiniteLog, "check", broken)
    assert generate(PROMPT, "-m", model, "-n", "33", "-o", "out.mp4", "-q", *SMALL) == 1
    assert "chunk 0, level 0, step 0" in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists()
