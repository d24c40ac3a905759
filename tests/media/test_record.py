"""The record comes back from the file itself, or from the JSON beside it."""

import json
import shutil

import numpy as np
import pytest

from helios.errors import InputError
from helios.media import open_writer, read_record, sidecar_path
from helios.media.record import dump_record
from tests.media.clips import frame_with_id, write_clip

RECORD = {
    "seed": 7,
    "timelines": [[{"chunk": 0, "prompt": 'a "red" fox; = \\ # in\nthe snow, 雪の中の狐 🦊 \u0000'}]],
    "guidance": None,
    "shift": 1.5,
    "nested": {"steps": [2, 2, 2], "exact": True},
}
FRAMES = np.zeros((2, 32, 48, 3), np.uint8)
SIZES = {"fps": 24, "height": 32, "width": 48}


def write(path, record=RECORD):
    with open_writer(path, **SIZES, num_frames=2, record=record) as writer:
        writer.write(FRAMES)
    return writer.path


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "a.npy", "frames/"])
def test_the_record_comes_back(tmp_path, name):
    path = write(f"{tmp_path}/{name}")
    assert read_record(path) == RECORD
    assert json.loads(sidecar_path(path).read_text("utf-8")) == RECORD
    assert read_record(sidecar_path(path)) == RECORD


def test_the_record_travels_inside_an_mp4(tmp_path):
    write(tmp_path / "a.mp4")
    moved = shutil.copy(tmp_path / "a.mp4", tmp_path / "renamed.mp4")
    assert read_record(moved) == RECORD


def test_a_long_record_fits(tmp_path):
    record = {"prompts": [f"{i} " + "word " * 100 for i in range(2000)]}
    write(tmp_path / "a.mp4", record)
    (tmp_path / "a.mp4.json").unlink()
    assert read_record(tmp_path / "a.mp4") == record


@pytest.mark.parametrize("name", ["a.mp4", "a.npy", "a.gif"])
def test_an_unfinished_video_has_its_record(tmp_path, name):
    with (
        pytest.raises(KeyboardInterrupt),
        open_writer(tmp_path / name, **SIZES, num_frames=9, record=RECORD) as writer,
    ):
        writer.write(FRAMES)
        raise KeyboardInterrupt
    assert read_record(tmp_path / f"{name}.part") == RECORD


@pytest.mark.parametrize("name", ["a.mp4", "a.npy"])
def test_what_was_learnt_while_running_is_in_the_record(tmp_path, name):
    with open_writer(tmp_path / name, **SIZES, num_frames=None, record=RECORD) as writer:
        writer.write(FRAMES)
        writer.record["timelines"] = [[{"chunk": 0, "prompt": "changed " * 50}]]
        writer.write(FRAMES)
    assert read_record(tmp_path / name) == writer.record != RECORD
    assert read_record(sidecar_path(tmp_path / name)) == writer.record


def test_a_changed_record_does_not_change_the_video(tmp_path):
    from helios.media import read_video

    write(tmp_path / "a.mp4")
    with open_writer(tmp_path / "b.mp4", **SIZES, num_frames=2, record={"x": "y" * 5000}) as writer:
        writer.write(FRAMES)
        writer.record = RECORD
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert len(read_video(tmp_path / "b.mp4").frames) == 2


def test_letters_that_are_no_text_survive(tmp_path):
    """A command line that is not UTF-8 reaches Python as lone surrogates."""
    record = {"prompt": b"caf\xe9".decode("utf-8", "surrogateescape")}
    assert read_record(write(tmp_path / "a.mp4", record)) == record
    assert read_record(tmp_path / "a.mp4.json") == record


def test_files_without_a_record_are_refused(tmp_path):
    write_clip(tmp_path / "foreign.mp4", [frame_with_id(1)] * 2, range(2))
    np.save(tmp_path / "foreign.npy", FRAMES)
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "broken.json").write_text('{"seed": ')
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    for name in ("foreign.mp4", "foreign.npy", "list.json", "broken.json", "binary.json", "broken.mp4", "none.mp4"):
        with pytest.raises(InputError, match=name) as caught:
            read_record(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("record", [{"x": float("nan")}, {"x": object()}])
def test_a_record_that_json_cannot_hold_fails_before_anything_is_written(tmp_path, record):
    with pytest.raises((TypeError, ValueError)):
        open_writer(tmp_path / "a.mp4", **SIZES, num_frames=2, record=record)
    assert list(tmp_path.iterdir()) == []


def test_the_same_record_is_the_same_text():
    assert dump_record(RECORD) == dump_record(json.loads(json.dumps(RECORD)))
