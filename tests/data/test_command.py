import json
import os
import shutil

import pytest
import typer

from helios.cli import main
from helios.cli.data import data
from tests.data.videos import write_folder


@pytest.fixture
def run(tiny, capsys, monkeypatch):
    """Run ``helios data ...``: exit code, stdout, stderr."""
    app = typer.Typer()
    app.add_typer(data, name="data")
    monkeypatch.setattr(main, "app", app)

    def call(*arguments):
        code = main.run(["data", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def prepare(run, tiny):
    """``helios data prepare`` with a tiny model at 32x32."""
    return lambda *arguments: run("prepare", "-m", tiny("base"), "--sizes", "32x32", "--device", "cpu", *arguments)


def test_a_folder_in_one_command(prepare, run, folder, tmp_path):
    code, out, err = prepare(folder, "-o", tmp_path / "data", "--no-stills")
    assert code == 0 and "(3 clips, 6 chunks)" in out
    assert (
        "3 clips, 6 chunks, 0.1 MB on disk (latents 0.1 MB, stills 0.0 MB, text 0.0 MB)" in err
        and "encoding chunks: 6 of 6" in err
    )
    code, out, _ = run("show", tmp_path / "data")
    assert code == 0 and "32x32: 3 clips, 6 chunks" in out
    facts = json.loads(run("show", tmp_path / "data", "--json")[1])
    assert facts["sizes"] == {"32x32": {"clips": 3, "chunks": 6}} and not facts["settings"]["stills"]


def test_left_out_videos_decide_the_exit_code(prepare, run, tmp_path):
    write_folder(tmp_path / "v", {"a.mp4": 33, "short.mp4": 9})
    (tmp_path / "v" / os.fsdecode(b"\xffmute.mp4")).write_bytes(b"")
    code, out, err = prepare(tmp_path / "v", "-o", tmp_path / "data", "-q", "--no-stills")
    assert code == 3 and "(1 clips, 1 chunks)" in out
    assert "2 left out:" in err and "short.mp4: 9 frames" in err and "mute.mp4: no caption" in err
    code, out, err = prepare(tmp_path / "v", "-o", tmp_path / "data", "-q", "--no-stills", "--json")
    assert code == 3 and len(json.loads(out)["skipped"]) == 2
    assert "2 left out:" in run("show", tmp_path / "data")[1]


def test_a_dry_run_writes_nothing(prepare, folder, tmp_path):
    code, out, _ = prepare(folder, "-o", tmp_path / "data", "--dry-run")
    assert code == 0 and "3 clips, 6 chunks" in out and not (tmp_path / "data").exists()
    facts = json.loads(prepare(folder, "-o", tmp_path / "data", "--dry-run", "--json", "-q")[1])
    assert facts["chunks"] == 6 and facts["total"] == facts["latents"] + facts["stills"] + facts["text"]


def test_sizes_and_rates_come_from_the_checkpoint(run, tiny, folder, tmp_path):
    def dry(*arguments):
        base = ("prepare", folder, "-o", tmp_path / "data", "-m", tiny("base"), "--dry-run", "--json", "-q")
        return json.loads(run(*base, *arguments)[1])

    latents_of_chunk = 16 * 9 * 4 * (64 // 8) * (128 // 8)  # the tiny checkpoint's own size is 64x128
    assert dry()["latents"] == 6 * latents_of_chunk
    assert dry("--fps", "12")["chunks"] == 2 and dry("--fps", "source")["chunks"] == 6
    assert dry("--sizes", "released")["latents"] == 6 * 16 * 9 * 4 * 64 * 64  # square videos go to 512x512
    assert dry("--latent-dtype", "float16")["latents"] == 3 * latents_of_chunk


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone"], "no folder at gone"),
        (["v", "--fps", "fast"], "fps='fast'"),
        (["v", "--fps", "0"], "fps=0"),
        (["v", "--sizes", "big"], "size 'big'"),
        (["v", "--only", "64x64"], "only=64x64 is none of the sizes"),
        (["v", "--part", "2"], "part='2'"),
        (["v", "--part", "3/2"], "part 3 of 2"),
        (["v", "--min-chunks", "9", "--max-chunks", "2"], "min_chunks=9"),
        (["v", "--latent-dtype", "int4"], "latent_dtype='int4'"),
        (["v", "--seed", "-1"], "seed=-1"),
        (["v", "--min-chunks", "2"], "none of the 1 videos"),
    ],
)
def test_bad_input_is_one_sentence(prepare, folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v").mkdir()
    for name in ("c.mp4", "c.txt"):
        shutil.copy(folder / "b" / name, tmp_path / "v" / name)
    code, out, err = prepare(*arguments, "-o", "data", "-q")
    assert code == 2 and out == "" and err.startswith("helios: ") and err.count("\n") == 1 and message in err
    assert not (tmp_path / "data").exists()


def test_a_data_set_that_is_none(run, tmp_path):
    code, _, err = run("show", tmp_path)
    assert code == 2 and "no data set" in err


def test_the_toy_world_is_data_like_any_other(prepare, run, tmp_path):
    toy, out = tmp_path / "toy", tmp_path / "data"
    code, printed, err = run("toy", "-o", toy, "--clips", 2, "--chunks", 2, "--changes", 1, "--seed", 4)
    assert code == 0 and "metadata.jsonl  (2 videos of 66 frames)" in printed and "drawing videos: 2 of 2" in err
    code, printed, _ = prepare(toy, "-o", out, "-q", "--no-stills", "--no-text")
    assert code == 0 and "(4 clips, 4 chunks)" in printed  # a chunk before the change and one after it
    rows = [json.loads(line) for line in (toy / "metadata.jsonl").read_text().splitlines()]
    index = json.loads((out / "index.json").read_text())
    for row, clip in zip(rows, index["clips"], strict=True):
        assert [clip["video"], clip["frames"]] == [row["file"], row["cut"]]
        assert index["captions"][clip["captions"][0]] == row["caption"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clips", 0], "count=0"),
        (["--clips", 1, "--split", "test"], "test"),
        (["--clips", 1, "--shape", "cow"], "cow"),
        (["--clips", 1, "--shape", "heart", "--changes", 1], "--shape and --changes"),
        (["--clips", 1, "--changes", 1, "--chunks", 1], "chunks=1"),
    ],
)
def test_impossible_toys_are_refused(run, tmp_path, arguments, message):
    code, _, err = run("toy", "-o", tmp_path / "toy", "-q", *arguments)
    assert code == 2 and message in err and err.count("\n") == 1
    assert not (tmp_path / "toy").exists()
