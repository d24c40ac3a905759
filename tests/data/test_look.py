import json

import pytest

from helios.data.look import make_plan
from helios.data.sources import find_sources
from helios.errors import InputError
from tests.data.conftest import CONFIG
from tests.data.videos import write_folder, write_video


def plan_of(folder, model, **changes):
    from dataclasses import replace

    return make_plan(find_sources(folder), model.info, replace(CONFIG, **changes))


def one_video(tmp_path, record=None, **video):
    write_video(tmp_path / "a.mp4", video.pop("frames", 70), **video)
    row = {"file": "a.mp4", "caption": "a", **(record or {})}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    return tmp_path


@pytest.mark.parametrize(
    ("lengths", "settings", "pieces"),
    [
        ([33, 65, 66, 200], {}, [(0, 1), (0, 1), (0, 2), (0, 6)]),
        ([200], {"max_chunks": 4}, [(0, 4), (4, 2)]),
        ([200], {"max_chunks": 4, "min_chunks": 3}, [(0, 4)]),
        ([99, 40], {"min_chunks": 2}, [(0, 3)]),
    ],
)
def test_whole_chunks_and_how_long_videos_are_split(tmp_path, model, lengths, settings, pieces):
    write_folder(tmp_path, {f"{number}.mp4": length for number, length in enumerate(lengths)})
    plan = plan_of(tmp_path, model, **settings)
    assert [(clip.first_window, clip.chunks) for clip in plan.clips] == pieces


@pytest.mark.parametrize("fps", [24, 12, 8.5, 30, 23.976, None])
def test_the_length_is_what_resampling_gives(tmp_path, model, fps):
    from helios.media import read_video

    write_folder(tmp_path, {"a.mp4": 131}, fps=25)
    frames = len(read_video(tmp_path / "a.mp4", fps=fps).frames)
    assert plan_of(tmp_path, model, fps=fps).videos[0].frames == frames


@pytest.mark.parametrize(
    ("record", "fps", "span"),
    [
        ({"cut": [4, 50]}, None, (4, 46)),
        ({"cut": [4, 50]}, 24, (4, 46)),
        ({"cut": [4, 500]}, 24, (4, 66)),
        ({"cut": [4, 70]}, 12, (2, 33)),
        ({"cut": [2, 35], "fps": 12}, 24, (4, 66)),
    ],
)
def test_cuts_count_in_the_files_frames(tmp_path, model, record, fps, span):
    video = plan_of(one_video(tmp_path, record), model, fps=fps).videos[0]
    assert (video.first, video.frames) == span


def test_each_video_goes_to_its_bucket_by_what_is_seen_of_it(tmp_path, model):
    from helios.data.buckets import Buckets

    buckets = Buckets(sizes=((32, 64), (64, 32)))
    write_folder(tmp_path, {"wide.mp4": 33}, height=40, width=60)
    write_folder(tmp_path, {"tall.mp4": 33}, height=60, width=40)
    record = {"file": "wide.mp4", "caption": "cropped", "crop": [10, 26, 0, 40]}
    assert [video.size for video in plan_of(tmp_path, model, buckets=buckets).videos] == [(64, 32), (32, 64)]
    (tmp_path / "metadata.jsonl").write_text(json.dumps(record))
    assert [video.size for video in plan_of(tmp_path, model, buckets=buckets).videos] == [(64, 32), (64, 32)]
    assert len(plan_of(tmp_path, model, buckets=Buckets(sizes=buckets.sizes, only=(64, 32))).videos) == 2


def test_what_cannot_be_used_is_named_with_its_reason(tmp_path, model):
    write_folder(tmp_path, {"good.mp4": 40, "short.mp4": 32})
    (tmp_path / "junk.mp4").write_bytes(b"junk")
    (tmp_path / "junk.txt").write_text("junk")
    (tmp_path / "long.mp4").write_bytes((tmp_path / "good.mp4").read_bytes())
    (tmp_path / "long.txt").write_text("word " * 600)
    (tmp_path / "mute.mp4").write_bytes(b"")
    plan = plan_of(tmp_path, model)
    reasons = {skip.name: skip.reason for skip in plan.skipped}
    assert [video.source.file for video in plan.videos] == ["good.mp4"]
    assert set(reasons) == {"short.mp4", "junk.mp4", "long.mp4", "mute.mp4"}
    assert "32 frames at 24 fps are too short: 33" in reasons["short.mp4"]
    assert "cannot be read" in reasons["junk.mp4"] and "no caption" in reasons["mute.mp4"]
    assert "tokens" in reasons["long.mp4"]
    assert all(str(tmp_path) not in reason for reason in reasons.values())


def test_a_crop_outside_the_picture(tmp_path, model):
    with pytest.raises(InputError, match=r"none of the 1 videos.*crop=\[0, 65, 0, 8\] leaves the 64 x 64"):
        plan_of(one_video(tmp_path, {"crop": [0, 65, 0, 8]}), model)


def test_captions_are_cleaned_prefixed_and_counted_once(tmp_path, model):
    write_folder(tmp_path, {"a.mp4": 33, "b.mp4": 33})
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("a  fox &amp; snow\n\na fox & snow\n\nsnow")
    plan = plan_of(tmp_path, model, prefix="zorp,")
    assert plan.captions == ("zorp, a fox & snow", "zorp, snow")
    assert plan.text_tokens == sum(map(model.encoder.check, plan.captions))


def test_sizes_must_suit_the_checkpoint(tmp_path, model):
    from helios.data.buckets import Buckets

    with pytest.raises(InputError, match="24x32.*multiple of 16"):
        plan_of(one_video(tmp_path), model, buckets=Buckets(sizes=((24, 32),)))


def test_an_earlier_plan_is_taken_as_it_is(tmp_path, model, monkeypatch):
    plan = plan_of(one_video(tmp_path), model)
    monkeypatch.setattr("helios.data.look.probe", None)  # nothing is opened again
    again = make_plan(find_sources(tmp_path), model.info, CONFIG, earlier=plan.to_json())
    assert again == plan and again.fingerprint == plan.fingerprint


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_damaged_plan_is_refused(tmp_path, model, text):
    with pytest.raises(InputError, match="damaged"):
        make_plan(find_sources(one_video(tmp_path)), model.info, CONFIG, earlier=text)
