import json

import pytest

from helios.data.sources import Source, find_sources
from helios.errors import InputError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_a_folder_with_text_files(tmp_path):
    touch(tmp_path, "b.mp4", "a/x.MOV", "a/y.webm", "notes.md")
    (tmp_path / "b.txt").write_text("\ufeffa fox\nruns\n\nA running fox.\r\n", encoding="utf-8")
    (tmp_path / "a/x.txt").write_text("snow")
    (tmp_path / "a/y.txt").write_text(" \n")
    found = find_sources(tmp_path)
    assert found.sources == (
        Source(file="a/x.MOV", captions=("snow",)),
        Source(file="b.mp4", captions=("a fox runs", "A running fox.")),
    )
    assert [(skip.name, "y.txt" in skip.reason) for skip in found.skipped] == [("a/y.webm", True)]


RECORD = {"cut": [3, 90], "crop": [0, 64, 8, 40], "fps": 23.976}


@pytest.mark.parametrize("as_list", [False, True], ids=["in the folder", "given itself"])
@pytest.mark.parametrize("ending", ["jsonl", "json", "csv"])
@pytest.mark.parametrize("keys", [("file", "captions"), ("path", "cap"), ("file_name", "text"), ("video", "prompt")])
def test_lists_of_records(tmp_path, keys, ending, as_list):
    touch(tmp_path, "v/a.mp4", "v/b.mp4", "c.mp4")
    rows = [{keys[0]: "v/a.mp4", keys[1]: ["one", "two"], **RECORD}, {keys[0]: "./v/b.mp4", keys[1]: "three, four"}]
    place = tmp_path / f"metadata.{ending}"
    if ending == "csv":
        import csv

        with place.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*keys, *RECORD])
            writer.writeheader()
            writer.writerows([{k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows])
    else:
        place.write_text(json.dumps(rows) if ending == "json" else "\n".join(map(json.dumps, rows)) + "\n\n")
    found = find_sources(place if as_list else tmp_path)
    assert found.root == tmp_path
    assert found.sources == (
        Source(file="v/a.mp4", captions=("one", "two"), cut=(3, 90), crop=(0, 64, 8, 40), fps=23.976),
        Source(file="v/b.mp4", captions=("three, four",)),
    )
    assert [skip.name for skip in found.skipped] == ([] if as_list else ["c.mp4"])


def test_a_record_without_caption_takes_the_text_file(tmp_path):
    touch(tmp_path, "a.mp4")
    (tmp_path / "a.txt").write_text("a fox")
    (tmp_path / "metadata.jsonl").write_text('{"file": "a.mp4", "cut": [0, 40]}\n{"file": "a.mp4", "cut": [40, 99]}')
    assert [(s.captions, s.cut) for s in find_sources(tmp_path).sources] == [
        (("a fox",), (0, 40)),
        (("a fox",), (40, 99)),
    ]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"file": "gone.mp4", "caption": "a"}, "no such file"),
        ({"file": "a.mp4"}, "no caption"),
        ({"file": "a.mp4", "captions": [" ", 3]}, "no caption"),
        ({"caption": "a"}, "no file name"),
        ({"file": "a.mp4", "caption": "a", "cut": [5]}, r"cut=\[5\]"),
        ({"file": "a.mp4", "caption": "a", "cut": [9, 9]}, "above its start"),
        ({"file": "a.mp4", "caption": "a", "cut": "x"}, "not JSON"),
        ({"file": "a.mp4", "caption": "a", "crop": [0, 8, 0.5, 8]}, "crop"),
        ({"file": "a.mp4", "caption": "a", "crop": [0, 8, -1, 8]}, "crop"),
        ({"file": "a.mp4", "caption": "a", "fps": "fast"}, "fps='fast'"),
        ({"file": "a.mp4", "caption": "a", "fps": -1}, "frame rate"),
    ],
)
def test_a_wrong_record_is_left_out_with_its_reason(tmp_path, record, reason):
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "metadata.json").write_text(json.dumps([record, {"file": "b.mp4", "caption": "b"}]))
    found = find_sources(tmp_path)
    assert [source.file for source in found.sources] == ["b.mp4"]
    import re

    assert re.search(reason, found.skipped[0].reason)
    if record.get("file") == "a.mp4":  # named in the list, so it is not also reported as a file without caption
        assert len(found.skipped) == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.jsonl", '{"file": 1}\n{', "line 2 is not JSON"),
        ("metadata.json", "{}", "holds no list"),
        ("metadata.jsonl", "3", "no JSON object"),
        ("list.txt", "", "no list of videos"),
        ("metadata.jsonl", "\n", "names no videos"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        find_sources(tmp_path / name)


def test_no_videos_and_no_folder(tmp_path):
    with pytest.raises(InputError, match="holds no videos"):
        find_sources(tmp_path)
    with pytest.raises(InputError, match="no folder at"):
        find_sources(tmp_path / "gone")
    (tmp_path / "metadata.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        find_sources(tmp_path)
