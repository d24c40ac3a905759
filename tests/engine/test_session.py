"""What a stream promises: the same pixels however it is run, and memory that does not grow."""

import gc
import threading
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch

from helios.conditioning.timeline import Cue, Timeline
from helios.engine.pace import DecodeAhead, InTurn
from helios.engine.session import EarlyFrames, FloatPixels
from helios.errors import GenerationError, InputError

SIZE = {"height": 64, "width": 64}
STEPS = {"base": (2,), "mid": (3, 1, 1), "distilled": (1, 1, 1)}
PROMPT = "A red circle moves slowly from left to right."
OTHER = "Waves roll onto a quiet beach."


@pytest.fixture(params=["base", "mid", "distilled"])
def settings(request, helios_of):
    variant = request.param
    return helios_of(variant), {**SIZE, "steps": STEPS[variant], "seed": 3}


@pytest.fixture
def fast(helios_of):
    return helios_of("distilled"), {**SIZE, "steps": (1, 1, 1), "seed": 3, "amplify_first_chunk": False}


def joined(chunks) -> np.ndarray:
    return np.concatenate([chunk.frames for chunk in chunks])


def test_streamed_equals_offline(settings):
    helios, how = settings
    chunks = list(helios.stream(PROMPT, num_frames=80, **how))
    assert [(chunk.index, chunk.first_frame, len(chunk.frames)) for chunk in chunks] == [
        (0, 0, 33),
        (1, 33, 33),
        (2, 66, 14),
    ]
    video = helios.generate(PROMPT, num_frames=80, **how)
    assert video.frames.shape == (80, 64, 64, 3) and video.frames.dtype == np.uint8
    assert np.array_equal(joined(chunks), video.frames)


@pytest.mark.parametrize("num_frames", [1, 32, 33, 34, 66])
def test_exactly_as_many_frames_as_asked_for(fast, num_frames):
    """The published pipelines give 65 for 66, and 261 for 240 (B21)."""
    helios, how = fast
    assert len(helios.generate(PROMPT, num_frames=num_frames, **how).frames) == num_frames


def test_frames_of_a_chunk_do_not_depend_on_the_length(fast):
    helios, how = fast
    short, long = (helios.generate(PROMPT, num_frames=n, **how).frames for n in (40, 99))
    assert np.array_equal(short, long[:40])


@pytest.mark.parametrize("cut", [33, 40, 66])
def test_resumed_equals_uninterrupted(settings, tmp_path, cut):
    helios, how = settings
    whole = helios.generate(PROMPT, num_frames=99, **how).frames
    first = helios.session(PROMPT, num_frames=cut, **how)
    begun = joined(first)
    path = first.save(tmp_path / "stream.session")
    assert path.stat().st_size < 4_000_000
    rest = joined(helios.resume(path, num_frames=99))
    assert np.array_equal(np.concatenate([begun, rest]), whole)


def test_resumed_after_an_image_equals_uninterrupted(fast, tmp_path):
    helios, how = fast
    image = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    whole = helios.generate(PROMPT, image=image, num_frames=66, **how).frames
    first = helios.session(PROMPT, image=image, num_frames=33, **how)
    begun = joined(first)
    rest = joined(helios.resume(first.save(tmp_path / "stream.session"), num_frames=66))
    assert np.array_equal(np.concatenate([begun, rest]), whole)


def test_any_kept_chunk_can_be_branched(fast, tmp_path):
    helios, how = fast
    session = helios.session(PROMPT, num_frames=132, **how)
    frames = []
    for chunk in session:
        frames.append(chunk.frames)
        session.save(tmp_path / f"{chunk.index}.session")
    branch = helios.resume(tmp_path / "1.session")
    assert branch.set_prompt(OTHER) == 66
    other = joined(branch)
    timeline = Timeline(cues=(Cue(chunk=0, prompt=PROMPT), Cue(chunk=2, prompt=OTHER)))
    assert np.array_equal(other, helios.generate(timeline=timeline, num_frames=132, **how).frames[66:])
    assert not np.array_equal(other, np.concatenate(frames[2:]))


def test_a_prompt_waits_for_a_chunk_that_was_handed_out_in_part(fast, tmp_path):
    helios, how = fast
    first = helios.session(PROMPT, num_frames=40, **how)
    begun = joined(first)
    resumed = helios.resume(first.save(tmp_path / "stream.session"), num_frames=99)
    assert resumed.set_prompt(OTHER) == 66
    timeline = Timeline(cues=(Cue(chunk=0, prompt=PROMPT), Cue(chunk=2, prompt=OTHER)))
    whole = helios.generate(timeline=timeline, num_frames=99, **how).frames
    assert np.array_equal(np.concatenate([begun, joined(resumed)]), whole)


def test_a_later_prompt_never_changes_an_earlier_chunk(settings):
    helios, how = settings
    plain = helios.generate(PROMPT, num_frames=99, **how).frames
    session = helios.session(PROMPT, num_frames=99, **how)
    frames = []
    for chunk in session:
        frames.append(chunk.frames)
        if chunk.index == 0:
            assert session.set_prompt(OTHER) == 33
    changed = np.concatenate(frames)
    assert np.array_equal(changed[:33], plain[:33])
    assert not np.array_equal(changed[33:66], plain[33:66])


@pytest.mark.parametrize("prompt,words", [("", "is empty"), (" &nbsp; ", "is empty"), ("red " * 600, "512")])
def test_a_bad_prompt_leaves_the_stream_as_it_was(fast, prompt, words):
    helios, how = fast
    session = helios.session(PROMPT, num_frames=66, **how)
    next(session)
    with pytest.raises(InputError, match=words):
        session.set_prompt(prompt)
    assert np.array_equal(next(session).frames, helios.generate(PROMPT, num_frames=66, **how).frames[33:])
    with pytest.raises(InputError, match="the video ends at 66"):
        session.set_prompt(OTHER)


def test_numbers_of_any_kind_are_taken(fast, tmp_path):
    helios, how = fast
    how = {**how, "seed": np.int64(3), "height": np.int64(64), "steps": [1, 1, 1]}
    video = helios.generate(PROMPT, num_frames=np.int64(20), fps=np.float32(12), **how)
    assert video.save(tmp_path / "a.mp4").is_file() and video.record["seeds"] == (3,)


def test_prompts_land_where_they_said_they_would(fast):
    helios, how = fast
    session = helios.session(PROMPT, num_frames=132, **how)
    landed, prompts = [], []
    for chunk in session:
        prompts.append(chunk.prompts[0])
        if chunk.index == 1:
            landed.append(session.set_prompt(OTHER, blend=2))
    assert landed == [66] and prompts == [PROMPT, PROMPT, OTHER, OTHER]


def test_a_batch_equals_its_videos_alone(settings):
    helios, how = settings
    how = {**how, "seed": (3, 8)}
    videos = helios.generate_batch([PROMPT, OTHER], num_frames=66, **how)
    for video, prompt, seed in zip(videos, (PROMPT, OTHER), (3, 8)):
        alone = helios.generate(prompt, num_frames=66, **{**how, "seed": seed})
        difference = np.abs(video.frames.astype(int) - alone.frames)
        assert difference.max() <= 1 and difference.mean() < 1e-3


def test_early_frames_equal_whole_chunks(fast):
    helios, how = fast
    whole = helios.generate(PROMPT, num_frames=50, **how).frames
    pieces = list(helios.session(PROMPT, num_frames=50, decoding=EarlyFrames(), **how))
    assert pieces[0].frames.shape[0] == 1 and pieces[1].first_frame == 1
    difference = np.abs(joined(pieces).astype(int) - whole)
    assert difference.max() <= 1 and difference.mean() < 1e-3


def test_early_frames_can_be_resumed_in_the_middle_of_a_chunk(fast, tmp_path):
    helios, how = fast
    session = helios.session(PROMPT, num_frames=66, decoding=EarlyFrames(), **how)
    begun = [next(session).frames for _ in range(3)]
    rest = joined(helios.resume(session.save(tmp_path / "s.session")))
    whole = helios.generate(PROMPT, num_frames=66, **how).frames.astype(int)
    assert np.abs(np.concatenate([*begun, rest]) - whole).max() <= 1


def test_the_same_seed_gives_the_same_file(fast, tmp_path):
    helios, how = fast
    files = [helios.generate(PROMPT, num_frames=40, **how).save(tmp_path / f"{i}.mp4") for i in range(2)]
    assert files[0].read_bytes() == files[1].read_bytes()
    other = helios.generate(PROMPT, num_frames=40, **{**how, "seed": 4}).save(tmp_path / "other.mp4")
    assert other.read_bytes() != files[0].read_bytes()


def test_different_seeds_differ_in_every_chunk(fast):
    helios, how = fast
    one, two = (helios.generate(PROMPT, num_frames=66, **{**how, "seed": seed}).frames for seed in (1, 2))
    assert not np.array_equal(one[:33], two[:33]) and not np.array_equal(one[33:], two[33:])


def test_float_pixels_round_to_the_uint8_ones(fast):
    helios, how = fast
    floats = helios.generate(PROMPT, num_frames=33, pixels=FloatPixels(), **how).frames
    assert floats.dtype == np.float32 and 0 <= floats.min() and floats.max() <= 1
    rounded = np.abs(floats * 255 - helios.generate(PROMPT, num_frames=33, **how).frames)
    assert rounded.max() <= 0.5 + 1e-3


def test_two_passes_equal_one_batch(helios_of):
    from helios.engine.session import Session
    from helios.sampling.rollout import TwoPasses

    helios = helios_of("base")
    how = {**SIZE, "steps": (3,), "seed": 3}
    one = helios.session(PROMPT, num_frames=33, pixels=FloatPixels(), **how)
    two = helios.session(PROMPT, num_frames=33, pixels=FloatPixels(), layout=TwoPasses(), **how)
    assert isinstance(two, Session)
    assert np.abs(joined(one) - joined(two)).max() < 1e-4


def test_a_resumed_stream_takes_its_passes_one_by_one_too(helios_of, tmp_path, monkeypatch):
    from helios.sampling.rollout import TwoPasses

    helios, batches = helios_of("base"), []
    velocity = helios.transformer.velocity

    def watched(x_BCTHW, *given):
        batches.append(len(x_BCTHW))
        return velocity(x_BCTHW, *given)

    monkeypatch.setattr(helios.transformer, "velocity", watched, raising=False)
    session = helios.session(PROMPT, num_frames=33, layout=TwoPasses(), steps=(2,), seed=3, **SIZE)
    list(session)
    list(helios.resume(session.save(tmp_path / "s.session"), num_frames=34, layout=TwoPasses()))
    assert batches == [1] * 8


def test_cancelling_keeps_the_finished_chunks(fast):
    helios, how = fast
    session = helios.session(PROMPT, num_frames=330, **how)
    kept = [next(session).frames, next(session).frames]
    threading.Thread(target=session.cancel).start()
    assert list(session) == [] and session.cancelled
    assert session.frames_done == 66
    assert np.array_equal(np.concatenate(kept), helios.generate(PROMPT, num_frames=66, **how).frames)


def test_cancelling_stops_within_a_chunk(fast):
    helios, how = fast
    seen = []

    def progress(standing):
        seen.append(standing)
        session.cancel()

    session = helios.session(PROMPT, num_frames=99, progress=progress, **how)
    assert list(session) == [] and len(seen) == 1


def test_progress_counts_every_step_once(helios_of):
    helios, seen = helios_of("distilled"), []
    list(helios.session(PROMPT, num_frames=66, steps=(2, 1, 1), seed=0, progress=seen.append, **SIZE))
    assert [p.done for p in seen] == list(range(1, 13)) and {p.total for p in seen} == {12}
    assert [(p.chunk, p.level, p.step) for p in seen[:5]] == [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 0, 3), (0, 1, 0)]


def test_timings_and_memory_come_with_every_chunk(fast):
    helios, how = fast
    for chunk in helios.stream(PROMPT, num_frames=66, **how):
        parts = chunk.timings
        assert len(parts.levels) == 3 and min(parts.levels) > 0 and parts.decode > 0
        assert parts.condition + sum(parts.levels) + parts.decode + parts.copy <= parts.total
        assert chunk.memory.allocated > 0


def test_broken_numbers_stop_the_run_and_are_located(tiny, helios_of):
    from helios import Helios

    helios = Helios.from_pretrained(tiny("distilled"), device="cpu", dtype="float32")
    velocity = helios.transformer.velocity

    def broken(x_BCTHW, timestep_B, text, history):
        out = velocity(x_BCTHW, timestep_B, text, history)
        return out * float("nan") if x_BCTHW.shape[-1] == 4 and broken.chunks > 0 else out

    broken.chunks = 0
    helios.transformer.velocity = broken
    session = helios.session(PROMPT, num_frames=99, steps=(1, 2, 1), seed=0, amplify_first_chunk=False, **SIZE)
    next(session)
    broken.chunks = 1
    with pytest.raises(GenerationError, match="chunk 1, level 1, step 0"):
        next(session)
    assert session.frames_done == 33


@pytest.fixture
def short_of_memory(monkeypatch):
    """A function that lets a Helios' network run a number of times, then fails as an accelerator's allocator does."""

    def limit(helios, evaluations):
        velocity, calls = helios.transformer.velocity, []

        def allocating(*given):
            calls.append(1)
            if len(calls) > evaluations:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return velocity(*given)

        monkeypatch.setattr(helios.transformer, "velocity", allocating, raising=False)

    return limit


@pytest.mark.parametrize("pace", [InTurn(), DecodeAhead()])
def test_running_out_of_memory_is_one_sentence_and_keeps_what_is_done(
    fast, short_of_memory, tmp_path, pace, monkeypatch
):
    helios, how = fast
    whole = helios.generate(PROMPT, num_frames=66, **how).frames
    short_of_memory(helios, 4)
    session = helios.session(PROMPT, num_frames=66, pace=pace, **how)
    first = next(session).frames
    with pytest.raises(GenerationError) as caught:
        next(session)
    sentence = str(caught.value)
    assert all(words in sentence for words in ("64x64", "float32", "helios plan")) and "\n" not in sentence
    monkeypatch.undo()
    rest = joined(helios.resume(session.save(tmp_path / "s.session")))
    assert np.array_equal(np.concatenate([first, rest]), whole)


def test_a_batch_or_a_picture_that_is_too_much_is_named(fast, short_of_memory, monkeypatch):
    helios, how = fast
    short_of_memory(helios, 0)
    with pytest.raises(GenerationError, match="2 videos together"):
        helios.generate_batch([PROMPT, OTHER], num_frames=33, **how)

    def encode(*given, **named):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(helios.vae, "encode", encode)
    with pytest.raises(GenerationError, match="at 64x64 in float32"):
        helios.generate(PROMPT, image=np.zeros((64, 64, 3), np.uint8), num_frames=33, **how)


def test_a_prompt_that_finds_no_room_is_named_and_leaves_the_stream_as_it_was(tiny):
    from helios import Helios

    how = {**SIZE, "steps": (1, 1, 1), "seed": 3, "amplify_first_chunk": False}
    helios = Helios.from_pretrained(tiny("distilled"), device="cpu", dtype="float32", prompts=PROMPT)
    whole = helios.generate(PROMPT, num_frames=66, **how).frames

    def load():
        raise torch.OutOfMemoryError("CUDA out of memory.")

    helios.encoder._load_encoder = load
    session = helios.session(PROMPT, num_frames=66, **how)
    next(session)
    with pytest.raises(GenerationError, match="out of memory at 64x64 in float32"):
        session.set_prompt(OTHER)
    assert np.array_equal(next(session).frames, whole[33:])


def test_a_size_outside_training_is_said_once(fast, caplog):
    from helios.engine.prepare import _warn_outside_training, prepare

    helios, how = fast
    _warn_outside_training.cache_clear()
    helios.prepare(PROMPT, **how)
    assert caplog.text == ""  # nothing was trained
    trained = replace(helios.info, random_weights=False)
    size = {"height": trained.preset.height, "width": trained.preset.width}
    prepare(trained, PROMPT, **{**how, **size}, encoder=helios.encoder)
    assert caplog.text == ""
    for _ in range(2):
        prepare(trained, PROMPT, **{**how, "height": 192}, encoder=helios.encoder)
    assert caplog.text.count("192x64 is outside training") == 1
    assert f"was trained at {size['height']}x{size['width']} " in caplog.text


def test_a_model_that_is_too_large_is_named(fast, monkeypatch):
    from helios.engine.pipeline import Helios

    def load(*given, **named):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("helios.checkpoints.load.load_transformer", load)
    with pytest.raises(GenerationError, match="out of memory while loading in float32"):
        Helios.from_info(fast[0].info, device="cpu")


def test_memory_is_flat_over_two_hundred_chunks(fast):
    helios, how = fast
    session = helios.session(PROMPT, num_frames=200 * 33, **how)
    process, resident, tensors = psutil.Process(), [], []
    for chunk in session:
        if chunk.index in (20, 199):
            del chunk
            gc.collect()
            resident.append(process.memory_info().rss)
            tensors.append(sum(o.numel() for o in gc.get_objects() if isinstance(o, torch.Tensor)))
    assert tensors[1] == tensors[0]
    assert resident[1] - resident[0] < 8 * 2**20


def test_a_session_of_another_checkpoint_is_refused(fast, helios_of, tmp_path):
    helios, how = fast
    session = helios.session(PROMPT, num_frames=33, **how)
    list(session)
    path = session.save(tmp_path / "stream.session")
    with pytest.raises(InputError, match=f"belongs to another checkpoint .*{helios.source}.*--model"):
        helios_of("mid").resume(path, num_frames=66)
    with pytest.raises(InputError, match="already has 33 frames"):
        helios.resume(path)


def test_another_precision_than_the_saved_one_is_said(fast, tmp_path, caplog):
    from helios import Helios

    helios, how = fast
    session = helios.session(PROMPT, num_frames=33, **how)
    list(session)
    path = session.save(tmp_path / "stream.session")
    assert len(joined(helios.resume(path, num_frames=34))) == 1 and caplog.text == ""
    half = Helios.from_info(helios.info, device="cpu", dtype="bfloat16")
    taken_up = half.resume(path, num_frames=34)
    assert "made in float32 with the VAE in float32 and goes on in bfloat16" in caplog.text
    caplog.clear()
    half.resume(taken_up.save(path), num_frames=34)
    assert caplog.text == ""


def test_sessions_that_do_not_say_their_precision_are_taken_up(fast, tmp_path, caplog):
    helios, how = fast
    session = helios.session(PROMPT, num_frames=33, **how)
    list(session)
    path = replace(session.state(), precision=None, source=None).save(tmp_path / "early.session")
    assert len(joined(helios.resume(path, num_frames=34))) == 1 and caplog.text == ""


def test_reference_noise_cannot_be_saved(fast, tmp_path):
    helios, how = fast
    session = helios.session(PROMPT, num_frames=33, noise="reference", **how)
    list(session)
    with pytest.raises(InputError, match="noise=reference cannot be saved"):
        session.save(tmp_path / "stream.session")


def test_damaged_session_files_are_named(tmp_path, fast):
    helios, _ = fast
    path = tmp_path / "stream.session"
    path.write_bytes(b"not a session")
    with pytest.raises(InputError, match="stream.session"):
        helios.resume(path)
    with pytest.raises(InputError, match="missing.session"):
        helios.resume(tmp_path / "missing.session")


@pytest.mark.parametrize(
    "bad,words",
    [
        ({"height": 480, "width": 640}, "480x640"),
        ({"num_frames": 0}, "num_frames=0"),
        ({"num_frames": -5}, "num_frames=-5"),
        ({"steps": (2, 2)}, "steps=2,2 has 2 entries"),
        ({"steps": (2, 0, 2)}, "steps=2,0,2 has a level without steps"),
        ({"guidance": 3.0}, "this checkpoint is distilled"),
        ({"fps": 0.0}, "fps=0"),
        ({"motion": -1.0}, "motion=-1"),
        ({"anchor": "last"}, "anchor='last'"),
        ({"noise": "pink"}, "noise='pink'"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": None}, "seed=None"),
        ({"num_frames": 1.5}, "num_frames=1.5"),
        ({"steps": 2}, "steps=2 is not a list"),
        ({"fit": "stretch"}, "fit='stretch'"),
        ({"fps": float("nan")}, "fps=nan"),
        ({"image": 3}, "the image is a int"),
        ({"video": np.zeros((0, 8, 8, 3), np.uint8)}, "the video is uint8"),
        ({"timeline": [(0, "a")]}, "a prompt and a timeline were both given"),
        ({"prompts": None, "timeline": [(0, "a"), (1.4, "b")]}, "turns to 'b' at frame 33 .* ends at 33"),
        ({"image": np.zeros((8, 8, 3), np.uint8), "video": np.zeros((33, 8, 8, 3), np.uint8)}, "both given"),
        ({"video": np.zeros((32, 64, 64, 3), np.uint8)}, "the video has 32 frame"),
        ({"prompts": ""}, "prompt is empty"),
        ({"prompts": "red circle " * 400}, "512"),
    ],
)
def test_bad_requests_are_refused_in_one_sentence(fast, bad, words):
    helios, how = fast
    asked = {"prompts": PROMPT, "num_frames": 33, **how, **bad}
    with pytest.raises(InputError, match=words) as caught:
        helios.prepare(**asked)
    assert "\n" not in str(caught.value)
