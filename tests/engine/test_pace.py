"""Decoding ahead changes when things happen, never what comes out."""

import numpy as np
import pytest

from helios.engine.pace import DecodeAhead, InTurn
from helios.engine.session import EarlyFrames, WholeChunks
from helios.errors import GenerationError

SIZE = {"height": 64, "width": 64, "seed": 3, "steps": (1, 1, 1), "amplify_first_chunk": False}
PROMPT, OTHER = "A red circle moves slowly from left to right.", "Waves roll onto a quiet beach."


@pytest.fixture
def helios(helios_of):
    return helios_of("distilled")


def frames_of(session) -> np.ndarray:
    return np.concatenate([chunk.frames for chunk in session])


@pytest.mark.parametrize("decoding", [WholeChunks(), EarlyFrames()])
@pytest.mark.parametrize("num_frames", [20, 33, 99])
def test_ahead_equals_in_turn(helios, decoding, num_frames):
    how = {"num_frames": num_frames, "decoding": decoding, **SIZE}
    ahead, in_turn = (frames_of(helios.session(PROMPT, pace=pace, **how)) for pace in (DecodeAhead(), InTurn()))
    assert np.array_equal(ahead, in_turn) and len(ahead) == num_frames


def test_the_next_chunk_is_begun_first_and_none_beyond_the_end(helios):
    def begun(pace):
        seen = []
        session = helios.session(PROMPT, num_frames=99, pace=pace, progress=lambda p: seen.append(p.chunk), **SIZE)
        return [(chunk.index, max(seen)) for chunk in session]

    assert begun(InTurn()) == [(0, 0), (1, 1), (2, 2)]
    assert begun(DecodeAhead()) == [(0, 1), (1, 2), (2, 2)]


def test_a_prompt_lands_one_chunk_later_and_where_it_said(helios):
    session = helios.session(PROMPT, num_frames=132, pace=DecodeAhead(), **SIZE)
    frames, landed = [], []
    for chunk in session:
        frames.append(chunk.frames)
        if chunk.index == 0:
            landed.append(session.set_prompt(OTHER))
    plain = helios.generate(PROMPT, num_frames=132, **SIZE).frames
    video = np.concatenate(frames)
    assert landed == [66]
    assert np.array_equal(video[:66], plain[:66]) and not np.array_equal(video[66:99], plain[66:99])


def test_a_saved_stream_goes_on_from_what_was_handed_out(helios, tmp_path):
    whole = helios.generate(PROMPT, num_frames=99, **SIZE).frames
    session = helios.session(PROMPT, num_frames=99, pace=DecodeAhead(), **SIZE)
    begun = next(session).frames
    rest = frames_of(helios.resume(session.save(tmp_path / "stream.session")))
    assert np.array_equal(np.concatenate([begun, rest]), whole)


def test_cancelling_hands_out_what_is_done(helios):
    session = helios.session(PROMPT, num_frames=132, pace=DecodeAhead(), **SIZE)
    first = next(session)
    session.cancel()
    assert first.index == 0 and list(session) == []
    stopper = helios.session(PROMPT, num_frames=132, pace=DecodeAhead(), progress=lambda p: stop(p), **SIZE)

    def stop(progress):
        if progress.chunk == 1:
            stopper.cancel()

    assert [chunk.index for chunk in stopper] == [0]


def test_broken_numbers_are_found_before_their_frames_leave(helios, monkeypatch):
    original, chunks = helios.transformer.velocity, []

    def velocity(x, *rest, **named):
        chunks.append(1)
        result = original(x, *rest, **named)
        return result * float("nan") if len(chunks) == 5 else result  # level 1 of chunk 1

    monkeypatch.setattr(helios.transformer, "velocity", velocity, raising=False)
    session = helios.session(PROMPT, num_frames=99, pace=DecodeAhead(), **SIZE)
    assert next(session).index == 0
    with pytest.raises(GenerationError, match="chunk 1, level 1, step 0"):
        next(session)


def test_laps_are_those_of_the_piece(helios):
    for chunk in helios.session(PROMPT, num_frames=33, decoding=EarlyFrames(), **SIZE):
        assert chunk.timings.decode > 0 and len(chunk.timings.levels) == 3
        assert chunk.timings.decode + chunk.timings.copy < chunk.timings.total
