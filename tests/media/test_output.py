"""Where a video may go: decided before anything runs, and nothing is left behind by asking."""

import os
import subprocess
import sys

import pytest

from helios.errors import InputError
from helios.media import check_output
from helios.media.output import OutputFormat


@pytest.mark.parametrize(
    ("name", "kind", "place"),
    [
        ("a.mp4", OutputFormat.MP4, "a.mp4"),
        ("A.MP4", OutputFormat.MP4, "A.MP4"),
        ("a.gif", OutputFormat.GIF, "a.gif"),
        ("a.webp", OutputFormat.WEBP, "a.webp"),
        ("a.npy", OutputFormat.NPY, "a.npy"),
        ("frames/", OutputFormat.PNG, "frames"),
        ("a.png", OutputFormat.PNG, "a"),
        ("deep/er/a.mp4", OutputFormat.MP4, "deep/er/a.mp4"),
    ],
)
def test_the_name_says_the_format(tmp_path, name, kind, place):
    target = check_output(f"{tmp_path}/{name}")
    assert (target.format, target.path) == (kind, tmp_path / place)
    assert os.listdir(tmp_path) == [], "asking leaves nothing behind"


def test_an_empty_folder_takes_frames(tmp_path):
    (tmp_path / "there").mkdir()
    assert check_output(tmp_path / "there").format is OutputFormat.PNG


@pytest.mark.parametrize("name", ["a", "a.avi", "a.mp4.part", "", "a.json"])
def test_unknown_endings_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"\.mp4"):
        check_output(f"{tmp_path}/x{name}")


@pytest.mark.parametrize("taken", ["a.mp4", "a.mp4.json", "a.mp4.part"])
def test_what_is_there_is_not_overwritten_unasked(tmp_path, taken):
    (tmp_path / taken).write_bytes(b"precious")
    with pytest.raises(InputError, match=taken) as caught:
        check_output(tmp_path / "a.mp4")
    assert "--force" in str(caught.value) and "\n" not in str(caught.value)
    check_output(tmp_path / "a.mp4", overwrite=True)
    assert (tmp_path / taken).read_bytes() == b"precious"


def test_an_unfinished_run_without_a_chunk_is_no_obstacle(tmp_path):
    (tmp_path / "a.mp4.part").touch()
    check_output(tmp_path / "a.mp4")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_other_files_is_never_replaced(tmp_path, overwrite):
    (tmp_path / "frame_000000.png").touch()
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="thesis.tex"):
        check_output(f"{tmp_path}/", overwrite)


def test_a_folder_of_frames_is_replaced_only_when_asked(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "frame_000000.png").touch()
    with pytest.raises(InputError, match="exists"):
        check_output(folder)
    assert check_output(folder, overwrite=True).format is OutputFormat.PNG


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        check_output(tmp_path / "file" / "a.mp4")
    with pytest.raises(InputError, match="file"):
        check_output(f"{tmp_path}/file/", overwrite=True)


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs a place that nobody can write to")
def test_a_place_that_cannot_be_written_to_is_refused():
    with pytest.raises(InputError, match="cannot write to /proc/a.mp4"):
        check_output("/proc/a.mp4")


@pytest.mark.parametrize("name", ["x" * 300 + ".mp4", "x" * 246 + ".mp4", "a\0b.mp4"])
def test_names_that_no_file_can_have_are_refused(tmp_path, name):
    with pytest.raises(InputError):
        check_output(f"{tmp_path}/{name}")


def test_asking_needs_no_heavy_library():
    code = (
        "import sys, helios.media as m; m.check_output('/tmp/none/a.mp4'); "
        "print([n for n in ('torch', 'av', 'PIL', 'numpy') if n in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
