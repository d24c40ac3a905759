import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from helios.checkpoints import inspect, write_random_checkpoint
from helios.data import PreparedClips
from helios.data.loader import _MappedFiles
from helios.errors import InputError
from tests.data.videos import write_folder


@pytest.fixture(scope="session")
def data(tmp_path_factory, folder, model):
    """The folder's data set, made once."""
    from helios.data import find_sources, make_plan, prepare
    from tests.data.conftest import CONFIG

    out = tmp_path_factory.mktemp("sets") / "data"
    config = replace(CONFIG, shard_chunks=3)
    prepare(make_plan(find_sources(folder), model.info, config), model.info, out, device="cpu")
    return out


def test_clips_are_what_was_stored(data, model):
    clips = PreparedClips(data, model.info)
    assert len(clips) == 3 and clips.buckets() == [(2, 32, 32), (1, 32, 32), (3, 32, 32)]
    stored = load_file(data / "latents-00001.safetensors")
    assert torch.equal(clips[2].latents_CTHW, stored["000002/latents"])
    assert torch.equal(clips[2].stills_TCHW, stored["000002/stills"])
    assert clips[1].stills_TCHW is None and clips[0].captions == ("colours number 0 move",)
    expected = model.encoder.encode([clips[1].captions[0]])[0].bfloat16()
    assert torch.equal(clips[1].text_SE, expected[: len(clips[1].text_SE)])
    with pytest.raises(IndexError):
        clips[3]


def test_clips_are_read_through_maps(data, model):
    clips = PreparedClips(data, model.info)
    one, two = clips[2].latents_CTHW, clips[2].latents_CTHW
    assert one.data_ptr() == two.data_ptr()
    one[0] = 7.0  # a private map: the file keeps what it has
    assert not (load_file(data / "latents-00001.safetensors")["000002/latents"][0] == 7.0).any()


def test_only_so_many_files_stay_mapped(data, monkeypatch):
    monkeypatch.setattr("helios.data.loader._OPEN_FILES", 1)
    files = _MappedFiles(data)
    first = files.tensor("latents-00000.safetensors", "000000/latents")
    kept = first.clone()
    files.tensor("latents-00001.safetensors", "000002/latents")
    assert list(files._open) == ["latents-00001.safetensors"] and torch.equal(first, kept)


def test_clips_cut_into_equal_pieces(data, model):
    whole, pieces = PreparedClips(data, model.info), PreparedClips(data, model.info, chunks=1)
    assert set(pieces.buckets()) == {(1, 32, 32)} and len(pieces) == 6
    for place, (clip, chunk) in enumerate([(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (2, 2)]):
        expected = whole[clip].latents_CTHW[:, 9 * chunk : 9 * (chunk + 1)]
        assert torch.equal(pieces[place].latents_CTHW, expected) and pieces[place].stills_TCHW is None
        assert pieces[place].captions == whole[clip].captions
    pairs = PreparedClips(data, model.info, chunks=2)
    assert len(pairs) == 2  # the third chunk of the last clip is left out
    assert torch.equal(pairs[1].stills_TCHW, whole[2].stills_TCHW[:2])
    for chunks, message in ((4, "no clip in .* has 4 chunks"), (0, "leaves nothing")):
        with pytest.raises(InputError, match=message):
            PreparedClips(data, model.info, chunks=chunks)


def test_pieces_of_a_held_out_video_are_not_trained(data, model):
    from helios.training.build import trained_clips

    pieces = PreparedClips(data, model.info, chunks=1)  # of the videos 0 0 1 2 2 2
    assert [trained_clips(pieces, held_out) for held_out in range(1, 7)] == [3, 3, 3, 2, 0, 0]
    assert trained_clips(range(6), 2) == 4  # data of another kind: every item is one of its own


def test_the_stills_of_a_later_piece_are_its_own(folder, tmp_path, make, model):
    write_folder(tmp_path / "v", {"a.mp4": 132})
    make(tmp_path / "v", tmp_path / "out")
    whole, pairs = PreparedClips(tmp_path / "out", model.info), PreparedClips(tmp_path / "out", model.info, chunks=2)
    assert torch.equal(pairs[1].stills_TCHW, whole[0].stills_TCHW[4:6])  # the frame before chunk 3


def test_training_reads_them(data, model):
    """The trainer's own cut, order and captions on this data set."""
    from helios.training.order import BatchOrder
    from helios.training.sample import TaskMix, cut
    from helios.training.seeds import Draws
    from helios.training.text import StoredCaptions

    clips, geometry = PreparedClips(data, model.info, chunks=2), model.info.geometry
    order = BatchOrder(buckets=clips.buckets(), batch_size=2, seed=0)
    seen = set()
    for step in range(8):
        items = [clips[index] for index in order.batch(step)]
        draws = Draws(0, step, (0, 1))
        sample = cut(items, draws, geometry)
        assert sample.target_BCTHW.shape == (2, 16, 9, 4, 4) and sample.stills_valid_B.tolist() == [
            chunk > 0 for chunk in sample.chunks
        ]
        past = TaskMix(t2v=0, i2v=1, v2v=0, full=0, still=1).drop(sample, draws, geometry)
        for row, (item, chunk) in enumerate(zip(items, sample.chunks)):
            assert torch.equal(sample.target_BCTHW[row], item.latents_CTHW[:, 9 * chunk : 9 * chunk + 9])
            if chunk:
                assert torch.equal(past.anchor_BCTHW[row, :, 0], item.stills_TCHW[2 * chunk - 2])
                assert torch.equal(past.window_BCTHW[row, :, -1], item.stills_TCHW[2 * chunk - 1])
        seen |= set(sample.chunks)
        text = StoredCaptions(model.encoder).encode(items, draws)
        assert torch.equal(text.bfloat16(), model.encoder.encode([item.captions[0] for item in items]).bfloat16())
    assert seen == {0, 1}


def test_another_vae_or_text_encoder_is_refused(data, tmp_path, model, tiny):
    write_random_checkpoint(tmp_path / "other", "base", seed=1)
    other = tmp_path / "other"
    with pytest.raises(InputError, match="another VAE .* prepare the videos again"):
        PreparedClips(data, inspect(other))
    shutil.rmtree(other / "vae")
    shutil.copytree(tiny("base") / "vae", other / "vae")
    with pytest.raises(InputError, match="another text encoder"):
        PreparedClips(data, inspect(other))
    assert PreparedClips(data, inspect(other), text=False)[0].text_SE is None
    for part in ("text_encoder", "tokenizer"):
        shutil.rmtree(other / part)
        shutil.copytree(tiny("base") / part, other / part)
    assert len(PreparedClips(data, inspect(other))) == 3  # another transformer is fine
    tokenizer = other / "tokenizer/tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    with pytest.raises(InputError, match="another text encoder"):
        PreparedClips(data, inspect(other))


def test_sizes_that_the_checkpoint_cannot_take_are_refused(data, model):
    info = replace(model.info, geometry=replace(model.info.geometry, levels=3))
    with pytest.raises(InputError, match="clips of 32x32, which this checkpoint cannot take.*multiple of 64"):
        PreparedClips(data, info)
    info = replace(model.info, geometry=replace(model.info.geometry, chunk_latent_frames=5))
    with pytest.raises(InputError, match="chunk_latent_frames=9, this checkpoint has 5"):
        PreparedClips(data, info)


@pytest.fixture
def copy(data, tmp_path):
    """A data set to damage."""
    shutil.copytree(data, tmp_path / "copy")
    return tmp_path / "copy"


def test_what_is_missing_or_damaged_is_named(copy, model):
    (copy / "latents-00001.safetensors").write_bytes(b"x" * 100)
    clips = PreparedClips(copy, model.info)
    assert clips[0].chunks(model.info.geometry) == 2
    with pytest.raises(InputError, match="latents-00001.safetensors is damaged.*makes it anew"):
        clips[2]
    (copy / "latents-00001.safetensors").unlink()
    with pytest.raises(InputError, match=r"lacks latents-00001.safetensors \(1 of 3"):
        PreparedClips(copy, model.info)


def test_an_index_that_cannot_be_read_is_refused(copy, model, tmp_path):
    index = json.loads((copy / "index.json").read_text())
    (copy / "index.json").write_text(json.dumps({**index, "format": 99}))
    with pytest.raises(InputError, match="format 99"):
        PreparedClips(copy, model.info)
    (copy / "index.json").write_text("{")
    with pytest.raises(InputError, match="index.json is damaged"):
        PreparedClips(copy, model.info)
    (copy / "index.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        PreparedClips(copy, model.info)
    with pytest.raises(InputError, match="no data set"):
        PreparedClips(tmp_path, model.info)


def test_data_without_text_is_for_those_who_encode_themselves(folder, tmp_path, make, model):
    make(folder, tmp_path / "out", text=False)
    with pytest.raises(InputError, match="no text states"):
        PreparedClips(tmp_path / "out", model.info)
    assert PreparedClips(tmp_path / "out", model.info, text=False)[0].captions


def test_every_wording_has_its_states(folder, tmp_path, make, model):
    write_folder(tmp_path / "v", {"a.mp4": 33})
    (tmp_path / "v/a.txt").write_text("a fox\n\nan animal in the snow")
    make(tmp_path / "v", tmp_path / "out")
    clip = PreparedClips(tmp_path / "out", model.info)[0]
    assert clip.captions == ("a fox", "an animal in the snow")
    assert [len(states) for states in clip.texts_SE] == [model.encoder.check(caption) for caption in clip.captions]
    assert torch.equal(clip.text_SE, clip.texts_SE[0])
