import errno
import json
import os
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from helios.conditioning.history import FirstFrameAnchor
from helios.conditioning.picture import Motion, history_from_image, to_signed
from helios.data import Part, PreparedClips, find_sources, make_plan, preparation, shards
from helios.data.encode import video_seed
from helios.data.sources import Source
from helios.errors import GenerationError, InputError
from helios.media import Crop, fit, read_video
from helios.noise import Address, AddressedNoise, Purpose
from tests.data.conftest import CONFIG, SIZE
from tests.data.videos import write_folder


def content(folder):
    """Every file of a data set, byte for byte."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "unfinished"}


def tensors(folder):
    found = {}
    for path in folder.glob("*.safetensors"):
        found |= load_file(path)
    return found


def test_a_window_is_encoded_as_the_vae_encodes_it(folder, prepared, model):
    frames = fit(read_video(folder / "d.mp4").frames, *SIZE, Crop())
    noise = AddressedNoise((video_seed(0, Source(file="d.mp4", captions=())),))
    for window in range(3):
        pixels = to_signed(torch.from_numpy(frames[33 * window : 33 * (window + 1)]))
        draw = noise.normal(Address(Purpose.HISTORY_POSTERIOR, window), (1, 16, 9, 4, 4))
        expected = model.vae.encode(pixels, draw)[0]
        stored = tensors(prepared)["000002/latents"][:, 9 * window : 9 * (window + 1)]
        assert stored.dtype == torch.float32
        torch.testing.assert_close(stored, expected, rtol=0, atol=0)
        mean = model.vae.encode(pixels)[0]  # a sample was drawn, and it is not far from the posterior's mean
        assert not torch.equal(stored, mean)


class _DataNoise:
    """The draws that a still was made with, where image-to-video asks for its own."""

    def __init__(self, seed, window):
        self.noise, self.window = AddressedNoise((seed,)), window

    def normal(self, address, shape):
        level = int(address.purpose == Purpose.HISTORY_POSTERIOR)
        return self.noise.normal(Address(address.purpose, self.window, level), shape)


def test_a_still_is_what_image_to_video_makes_of_the_frame_before_a_chunk(folder, prepared, model):
    frames = fit(read_video(folder / "d.mp4").frames, *SIZE, Crop())
    stored = tensors(prepared)["000002/stills"]
    assert stored.shape == (4, 16, 4, 4)
    for chunk in (1, 2):
        image = to_signed(torch.from_numpy(frames[33 * chunk - 1][None]))[:, :, 0]
        noise = _DataNoise(video_seed(0, Source(file="d.mp4", captions=())), chunk - 1)
        history = history_from_image(
            model.vae, image, noise, geometry=model.info.geometry, anchor=FirstFrameAnchor(), motion=Motion(amount=0)
        )
        anchor, newest = stored[2 * (chunk - 1) : 2 * chunk]
        torch.testing.assert_close(anchor, history.anchor_BCTHW[0, :, 0], rtol=0, atol=0)
        torch.testing.assert_close(newest, history.window_BCTHW[0, :, -1], rtol=0, atol=0)


def test_text_is_what_the_prompt_encoder_gives_without_padding(prepared, model):
    captions = json.loads((prepared / "index.json").read_text())["captions"]
    for caption in captions:
        stored = load_file(prepared / "text-00000.safetensors")[shards.caption_name(caption)]
        expected = model.encoder.encode([caption])[0]
        assert len(stored) == model.encoder.check(caption) and stored.dtype == torch.bfloat16
        assert torch.equal(stored, expected[: len(stored)].bfloat16()) and not expected[len(stored) :].any()


def test_a_video_has_the_same_latents_whatever_else_is_there(folder, prepared, tmp_path, make):
    alone = tmp_path / "videos/b"
    alone.mkdir(parents=True)
    for name in ("c.mp4", "c.txt"):
        shutil.copy(folder / "b" / name, alone / name)
    make(alone.parent, tmp_path / "alone", workers=1)
    assert torch.equal(tensors(tmp_path / "alone")["000000/latents"], tensors(prepared)["000001/latents"])
    make(alone.parent, tmp_path / "seeded", seed=1)
    assert not torch.equal(tensors(tmp_path / "seeded")["000000/latents"], tensors(prepared)["000001/latents"])


def test_random_numbers_are_addressed_by_seed_file_and_cut():
    def source(file="a.mp4", cut=None, caption="a"):
        return Source(file=file, cut=cut, captions=(caption,))

    seeds = {video_seed(seed, each) for seed in (0, 1) for each in (source(), source("b.mp4"), source(cut=(0, 9)))}
    assert len(seeds) == 6 and video_seed(0, source(caption="b")) in seeds
    assert video_seed(0, source()) == 9840305982792666579  # data sets of old stay what they are


def test_file_names_in_any_writing(tmp_path, quick, model):
    for name in ("狐 in the snow.mp4", os.fsdecode(b"\xff\xfe.mp4")):
        write_folder(tmp_path / "v", {name: 33})
    (tmp_path / "v/狐 in the snow.txt").write_text("雪の中の狐", encoding="utf-8")
    quick(tmp_path / "v", tmp_path / "out")
    quick(tmp_path / "v", tmp_path / "out")
    clips = PreparedClips(tmp_path / "out", model.info)
    assert {clip["video"] for clip in clips.index["clips"]} == {path.name for path in (tmp_path / "v").glob("*.mp4")}
    assert "雪の中の狐" in (clips[0].captions + clips[1].captions)


def test_the_estimate_is_what_the_tensors_take(folder, prepared, model):
    estimate = make_plan(find_sources(folder), model.info, CONFIG).estimate
    assert (estimate.clips, estimate.chunks) == (3, 6)
    stored = tensors(prepared)
    sizes = {
        kind: sum(t.nbytes for name, t in stored.items() if name.endswith(kind)) for kind in ("/latents", "/stills")
    }
    assert (estimate.latents, estimate.stills) == (sizes["/latents"], sizes["/stills"])
    assert estimate.text == sum(t.nbytes for name, t in stored.items() if "/" not in name)
    half = make_plan(find_sources(folder), model.info, CONFIG.__class__(buckets=CONFIG.buckets, latent_dtype="float16"))
    assert half.estimate.latents * 2 == estimate.latents


def test_settings_choose_what_is_stored(folder, tmp_path, quick):
    quick(folder, tmp_path / "out", stills=False, text=False, latent_dtype="float16")
    stored = tensors(tmp_path / "out")
    assert {name.partition("/")[2] for name in stored} == {"latents"}
    assert all(tensor.dtype == torch.float16 for tensor in stored.values())


class Killed(BaseException):
    """Stands for a process that ends on the spot."""


def events(monkeypatch, limit):
    """Kill the run at its ``limit``-th event: a caption or chunk that is done, or a file right before its rename."""
    count = 0

    def tick(*_):
        nonlocal count
        count += 1
        if count == limit:
            raise Killed

    def replace(source, target):
        tick()
        rename(source, target)

    rename = os.replace
    monkeypatch.setattr(shards.os, "replace", replace)
    return tick, lambda: count


class QuickVae:
    """Latents that depend on pixels and noise, for tests of what is around the VAE."""

    device = torch.device("cpu")

    def encode(self, pixels_BCFHW, noise_BCTHW, **kwargs):
        shrunk = torch.nn.functional.adaptive_avg_pool3d(pixels_BCFHW, noise_BCTHW.shape[2:])
        return shrunk.mean(1, keepdim=True) + noise_BCTHW


@pytest.fixture
def quick(make, monkeypatch):
    """:func:`make` with a VAE that takes no time."""
    monkeypatch.setattr(preparation, "load_vae", lambda info, device: QuickVae())
    return make


def test_killed_anywhere_and_resumed_equals_uninterrupted(tmp_path, quick, monkeypatch):
    make, folder = quick, write_folder(tmp_path / "v", {"a.mp4": 66, "b.mp4": 33}, height=32, width=32)
    make(folder, tmp_path / "whole")
    expected = content(tmp_path / "whole")
    assert len(expected) == 5 and not any(name.startswith(".") for name in expected)
    with monkeypatch.context() as patch:
        tick, counted = events(patch, limit=-1)
        make(folder, tmp_path / "count", show=tick)
    assert counted() == 2 + 3 + 5 + 2  # captions, chunks, files, clips
    for limit in range(1, counted() + 1):
        out = tmp_path / f"killed-{limit}"
        with monkeypatch.context() as patch:
            tick, _ = events(patch, limit)
            with pytest.raises(Killed):
                make(folder, out, show=tick)
        make(folder, out)
        assert content(out) == expected, f"killed at event {limit}"


def test_a_run_that_keeps_being_killed_gets_there(folder, tmp_path, quick, monkeypatch):
    make, out, attempts = quick, tmp_path / "out", 0
    make(folder, tmp_path / "whole")
    while True:
        attempts += 1
        with monkeypatch.context() as patch:
            tick, _ = events(patch, limit=5)
            try:
                make(folder, out, show=tick)
                break
            except Killed:
                assert attempts < 20
    assert attempts > 3 and content(out) == content(tmp_path / "whole")


def test_what_is_finished_is_not_made_again(folder, prepared, make, monkeypatch):
    before = content(prepared)
    monkeypatch.setattr("helios.data.windows.timed_frames", None)
    monkeypatch.setattr(preparation, "load_vae", None)
    monkeypatch.setattr(preparation, "load_prompt_encoder", None)
    assert make(folder, prepared).complete and content(prepared) == before


def test_a_damaged_file_is_made_anew(folder, prepared, make):
    before = content(prepared)
    (prepared / "latents-00001.safetensors").write_bytes(before["latents-00001.safetensors"][:-5])
    (prepared / "text-00000.safetensors").unlink()
    make(folder, prepared)
    assert content(prepared) == before


def test_a_file_of_another_data_set_is_not_taken_for_ones_own(folder, tmp_path, quick):
    for seed in (0, 1):
        quick(folder, tmp_path / str(seed), seed=seed)
    expected = content(tmp_path / "0")
    shutil.copy(tmp_path / "1/latents-00001.safetensors", tmp_path / "0/latents-00001.safetensors")
    quick(folder, tmp_path / "0")
    assert content(tmp_path / "0") == expected


def test_parts_made_apart_equal_the_whole(folder, tmp_path, quick):
    quick(folder, tmp_path / "whole")
    out = tmp_path / "out"
    first = quick(folder, out, part=Part(index=1, of=2))
    assert not first.complete and first.clips < 3 and not (out / "index.json").exists()
    assert quick(folder, out, part=Part(index=0, of=2)).complete
    assert content(out) == content(tmp_path / "whole")
    with pytest.raises(InputError, match="part 3 of 2 does not exist"):
        Part(index=2, of=2)


def test_the_data_set_does_not_depend_on_where_the_videos_are_or_how_many_are_decoded(folder, tmp_path, quick):
    quick(folder, tmp_path / "whole")
    shutil.copytree(folder, tmp_path / "elsewhere")
    quick(tmp_path / "elsewhere", tmp_path / "out", workers=4)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"fps": 12.0}, r"fps=24\.0, not 12\.0"), ({"prefix": "a"}, "prefix=, not a"), ({"seed": 3}, "seed=0, not 3")],
)
def test_going_on_with_other_settings_is_refused(folder, prepared, make, settings, message):
    before = content(prepared)
    with pytest.raises(InputError, match=f"begun with {message}.*another folder"):
        make(folder, prepared, **settings)
    assert content(prepared) == before


def test_going_on_with_other_videos_is_refused(folder, prepared, tmp_path, make):
    shutil.copytree(folder, tmp_path / "more")
    (tmp_path / "more/d.txt").write_text("another caption")
    with pytest.raises(InputError, match="3 other videos or captions.*d.mp4 is new or changed"):
        make(tmp_path / "more", prepared)
    write_folder(tmp_path / "more", {"e.mp4": 33})
    with pytest.raises(InputError, match=r"\(4 now, "):
        make(tmp_path / "more", prepared)


def test_going_on_with_another_vae_is_refused(folder, prepared, make, tmp_path):
    from helios.checkpoints import inspect, write_random_checkpoint

    write_random_checkpoint(tmp_path / "other", "base", seed=1)
    other = inspect(tmp_path / "other")
    with pytest.raises(InputError, match="another VAE"):
        make(folder, prepared, info=other)


def test_a_folder_of_other_things_is_left_alone(folder, tmp_path, make):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/a.txt").write_text("dear")
    with pytest.raises(InputError, match="no data set"):
        make(folder, tmp_path / "letters")
    with pytest.raises(InputError, match="no data set"):
        make(folder, tmp_path / "letters/a.txt")
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["a.txt"]


def test_too_little_room_is_said_before_anything_is_written(folder, tmp_path, make, model, monkeypatch):
    usage, plan = shutil.disk_usage(tmp_path), make_plan(find_sources(folder), model.info, CONFIG)
    short = usage._replace(free=plan.estimate.total + 1000)  # the last file needs its clips beside it
    monkeypatch.setattr(preparation.shutil, "disk_usage", lambda path: short)
    with pytest.raises(InputError, match=r"needs 0\.\d MB more and .* has 0\.\d MB free: make room"):
        make(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_keeps_what_is_finished(folder, tmp_path, quick, monkeypatch):
    quick(folder, tmp_path / "whole")
    out = tmp_path / "out"

    def full(descriptor):
        if (out / "latents-00000.safetensors").exists():
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shards.os, "fsync", full)
        with pytest.raises(GenerationError, match="disk is full.*unfinished/000001.*goes on"):
            quick(folder, out)
    assert sorted(content(out)) == ["latents-00000.safetensors", "plan.json", "text-00000.safetensors"]
    quick(folder, out)
    assert content(out) == content(tmp_path / "whole")


def test_a_place_that_cannot_be_written_to(folder, tmp_path, make, monkeypatch):
    def denied(*args):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(shards.os, "replace", denied)
    with pytest.raises(GenerationError, match="cannot write .*plan.json.*Permission denied"):
        make(folder, tmp_path / "out")


def break_video(path, *, keep):
    """Cut the file's data off and leave its table of frames: only decoding can tell."""
    raw = path.read_bytes()
    at = raw.index(b"mdat") + 4
    end = raw.index(b"moov") - 4
    cut = at + int((end - at) * keep)
    path.write_bytes(raw[:cut] + bytes(np.random.default_rng(0).integers(0, 256, end - cut, np.uint8)) + raw[end:])


def test_a_video_that_breaks_off_keeps_its_good_chunks(tmp_path, quick):
    write_folder(tmp_path / "v", {"a.mp4": 132, "b.mp4": 40})
    break_video(tmp_path / "v/a.mp4", keep=0.6)
    result = quick(tmp_path / "v", tmp_path / "out", max_chunks=3)
    index = json.loads((tmp_path / "out/index.json").read_text())
    kept = index["clips"][0]["chunks"]
    assert 1 <= kept < 3 and index["clips"][0]["frames"] == [0, 33 * kept]
    assert [skip.name for skip in result.skipped] == [f"a.mp4, chunks {kept} to 2", "a.mp4, chunks 3 to 3"]
    stored = tensors(tmp_path / "out")
    assert stored["000000/latents"].shape[1] == 9 * kept and "000001/latents" not in stored
    assert len(stored.get("000000/stills", ())) == 2 * (kept - 1)
    assert index["clips"][-1]["video"] == "b.mp4" and result.clips == 2 and result.chunks == kept + 1
    again = quick(tmp_path / "v", tmp_path / "out", max_chunks=3)
    assert again == result
    with pytest.raises(InputError, match="none of the 1 clips could be decoded"):
        quick(tmp_path / "v", tmp_path / "strict", max_chunks=3, min_chunks=3)


def test_nothing_that_can_be_decoded_is_an_error(tmp_path, quick):
    write_folder(tmp_path / "v", {"a.mp4": 66})
    break_video(tmp_path / "v/a.mp4", keep=0.2)
    with pytest.raises(InputError, match="none of the 1 clips could be decoded"):
        quick(tmp_path / "v", tmp_path / "out")
    assert not (tmp_path / "out/index.json").exists()


def test_latents_that_are_not_finite_are_left_out(folder, tmp_path, make, model, monkeypatch):
    encode, calls = model.vae.encode, []

    def broken(pixels, *args, **kwargs):
        calls.append(1)
        latents = encode(pixels, *args, **kwargs)
        return latents * torch.nan if len(calls) == 4 else latents  # the second video

    monkeypatch.setattr(model.vae, "encode", broken)
    result = make(folder, tmp_path / "out", stills=False, min_chunks=1)
    assert [skip.name for skip in result.skipped] == ["d.mp4, chunks 0 to 2"] and result.clips == 2
    assert "not finite" in result.skipped[0].reason
