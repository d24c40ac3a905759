import json
from itertools import islice

import numpy as np
import pytest

from helios.data.sources import find_sources
from helios.data.toy.clips import ToyChanges, ToyClips, write_dataset
from helios.data.toy.world import NOVEL_SHAPES, is_heldout
from helios.errors import InputError
from helios.media import read_record, read_video


def test_a_clip_is_the_same_whenever_it_is_asked_for():
    clips, again = ToyClips(seed=3, chunks=2), ToyClips(seed=3, chunks=2, count=10)
    frames, text, scene = clips[4]
    assert frames.shape == (66, 64, 64, 3) and frames.dtype == np.uint8
    other = again[4]
    assert np.array_equal(frames, other.frames) and text == other.caption and scene == other.scene
    assert clips.describe(4) == (scene, text)
    assert np.array_equal(clips.chunk(4, 1), frames[33:])
    assert clips.chunk(4, 40).shape == (33, 64, 64, 3)


def test_seeds_and_indices_give_different_clips():
    scenes = [ToyClips(seed=seed).describe(index)[0] for seed in range(3) for index in range(20)]
    assert len(set(scenes)) == 60


def test_counted_clips_end_and_endless_ones_do_not():
    clips = ToyClips(count=3, chunks=1)
    assert len(clips) == len(list(clips)) == 3
    assert clips[-1].caption == clips[2].caption
    with pytest.raises(IndexError):
        clips[3]
    endless = ToyClips(chunks=1)
    assert len(list(islice(endless, 4))) == 4
    with pytest.raises(TypeError, match="never end"):
        len(endless)


def test_splits_differ_in_combinations():
    assert all(is_heldout(ToyClips(split="heldout").describe(i)[0]) for i in range(20))
    assert not any(is_heldout(ToyClips(split="train").describe(i)[0]) for i in range(20))
    assert ToyClips(shapes=NOVEL_SHAPES).describe(0)[0].shape == "heart"


def test_changes_happen_between_chunks_and_both_captions_say_them():
    clips = ToyChanges(seed=1, chunks=3)
    for index in range(40):
        change, texts = clips.describe(index)
        assert change.at in (33, 66)
        assert all(set(change.changed) <= set(text.stated) for text in texts)
    assert clips[0].frames.shape == (99, 64, 64, 3)


def test_a_written_dataset_reads_back(tmp_path):
    calls = []
    metadata = write_dataset(tmp_path / "toy", ToyClips(count=2, chunks=1), progress=lambda *done: calls.append(done))
    assert calls == [(1, 2), (2, 2)]
    lines = [json.loads(line) for line in metadata.read_text().splitlines()]
    for index, line in enumerate(lines):
        clip = ToyClips(count=2, chunks=1)[index]
        assert line["caption"] == line["captions"][0] == clip.caption
        assert (line["fps"], line["frames"], line["height"], line["width"]) == (24, 33, 64, 64)
        assert line["scene"] == clip.scene.to_dict()
        video = read_video(metadata.parent / line["file"], fps=None)
        assert video.frames.shape == clip.frames.shape
        assert np.abs(video.frames.astype(int) - clip.frames).mean() < 8
        assert read_record(metadata.parent / line["file"])["toy"] == [line]


def test_a_written_change_is_one_video_with_a_line_for_each_half(tmp_path):
    metadata = write_dataset(tmp_path, ToyChanges(chunks=2), count=1)
    lines = [json.loads(line) for line in metadata.read_text().splitlines()]
    change, captions = ToyChanges(chunks=2).describe(0)
    assert [line["caption"] for line in lines] == list(captions)
    assert [line["cut"] for line in lines] == [[0, change.at], [change.at, 66]]
    assert len({line["file"] for line in lines}) == 1
    assert lines[0]["timeline"] == [{"frame": 0, "caption": captions[0]}, {"frame": change.at, "caption": captions[1]}]


def test_the_reader_of_real_data_understands_what_is_written(tmp_path):
    write_dataset(tmp_path, ToyChanges(chunks=2), count=2)
    found = find_sources(tmp_path)
    assert len(found.sources) == 4 and not found.skipped
    _, captions = ToyChanges(chunks=2).describe(1)
    assert [source.captions for source in found.sources[2:]] == [(caption,) for caption in captions]


def test_a_taken_place_is_refused_unless_overwritten(tmp_path):
    write_dataset(tmp_path, ToyClips(chunks=1), count=1)
    with pytest.raises(InputError, match="exists"):
        write_dataset(tmp_path, ToyClips(chunks=1), count=1)
    write_dataset(tmp_path, ToyClips(chunks=1), count=1, overwrite=True)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: ToyClips(chunks=0), "chunks=0"),
        (lambda: ToyChanges(chunks=1), "chunks=1"),
        (lambda: ToyClips(count=0), "count=0"),
        (lambda: ToyClips(seed=-1), "seed=-1"),
        (lambda: ToyClips(split="test"), "'train' or 'heldout'"),
    ],
)
def test_bad_settings_are_refused(build, says):
    with pytest.raises(InputError, match=says):
        build()
