import pytest
import torch

from helios.conditioning.history import FirstFrameAnchor, History, NoAnchor, SecondChunkAnchor
from helios.shapes import Geometry

GEOMETRY = Geometry(latent_channels=2)


def numbered_chunk(chunk: int) -> torch.Tensor:
    """A chunk whose latent frame ``t`` is filled with its number in the video, from 1."""
    first = 1 + 9 * chunk
    return torch.arange(first, first + 9, dtype=torch.float32).view(1, 1, 9, 1, 1).expand(1, 2, 9, 4, 4)


def run(policy, chunks: int) -> History:
    history = History.empty(1, policy.window(GEOMETRY), GEOMETRY, 4, 4)
    for chunk in range(chunks):
        history = policy.after_chunk(history, numbered_chunk(chunk), chunk)
    return history


def frames(latents: torch.Tensor) -> list[int]:
    return latents[0, 0, :, 0, 0].int().tolist()


@pytest.mark.parametrize("chunks,missing", [(0, 19), (1, 10), (2, 1), (3, 0)])
def test_what_has_not_happened_yet_is_zero(chunks, missing):
    window = run(FirstFrameAnchor(), chunks).window_BCTHW
    assert frames(window).count(0) == missing
    assert frames(window)[missing:] == list(range(9 * chunks - 19 + missing + 1, 9 * chunks + 1))


def test_streams_go_from_old_to_new_and_the_anchor_leads_the_short_one():
    policy = FirstFrameAnchor()
    streams = policy.split(run(policy, 4), GEOMETRY)
    assert frames(streams.long_BCTHW) == list(range(18, 34))
    assert frames(streams.mid_BCTHW) == [34, 35]
    assert frames(streams.short_BCTHW) == [1, 36]


def test_the_anchor_is_set_once():
    history = run(FirstFrameAnchor(), 1)
    assert history.anchored and frames(history.anchor_BCTHW) == [1]
    assert frames(run(FirstFrameAnchor(), 7).anchor_BCTHW) == [1]


def test_a_given_anchor_is_kept():
    policy = FirstFrameAnchor()
    history = History.empty(1, 19, GEOMETRY, 4, 4).with_anchor(torch.full((1, 2, 1, 4, 4), 99.0))
    assert frames(policy.after_chunk(history, numbered_chunk(0), 0).anchor_BCTHW) == [99]


def test_the_second_chunk_anchor_is_set_anew():
    assert frames(run(SecondChunkAnchor(), 1).anchor_BCTHW) == [1]
    assert frames(run(SecondChunkAnchor(), 2).anchor_BCTHW) == [10]
    assert frames(run(SecondChunkAnchor(), 5).anchor_BCTHW) == [10]


def test_without_an_anchor_the_short_stream_is_the_two_newest():
    policy = NoAnchor()
    streams = policy.split(run(policy, 4), GEOMETRY)
    assert frames(streams.long_BCTHW) == list(range(17, 33))
    assert frames(streams.mid_BCTHW) == [33, 34]
    assert frames(streams.short_BCTHW) == [35, 36]
    positions = policy.positions(GEOMETRY)
    assert (positions.long[0], positions.long[-1], positions.mid, positions.short) == (0, 15, (16, 17), (18, 19))
    assert positions.noisy == tuple(range(20, 29))


def test_the_window_never_grows():
    for policy in (FirstFrameAnchor(), SecondChunkAnchor(), NoAnchor()):
        assert run(policy, 30).window_BCTHW.shape == run(policy, 0).window_BCTHW.shape


def test_gradients_pass_through_the_window():
    chunk = numbered_chunk(0).clone().requires_grad_()
    policy = FirstFrameAnchor()
    policy.after_chunk(History.empty(1, 19, GEOMETRY, 4, 4), chunk, 0).window_BCTHW.sum().backward()
    assert chunk.grad is not None and chunk.grad.sum() > 0
