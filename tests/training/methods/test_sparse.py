"""Steps on a few frames: which, how often, and that a frame keeps its place in time."""

import itertools

import pytest
import torch

from helios.errors import InputError
from helios.training.adapt import FullTraining
from helios.training.methods.flow_matching import FlowMatching
from helios.training.methods.sparse import Excerpt, SparseFrames, WholeChunks, draw_excerpt
from helios.training.methods.stage1 import Stage1
from helios.training.methods.stage2 import OneLevel, Stage2
from helios.training.network import Network
from helios.training.optim import OptimConfig
from helios.training.phase import PretrainStage
from helios.training.player import Player
from helios.training.seeds import Draws
from tests.training.clips import GEOMETRY, clip
from tests.training.models import HashedCaptions, transformer

CHUNK = torch.arange(9.0).view(1, 1, 9, 1, 1)
POSITIONS = tuple(range(20, 29))


def taken(
    sparse: WholeChunks | SparseFrames, step: int, samples: tuple[int, ...] = (0,)
) -> tuple[torch.Tensor, tuple[int, ...]]:
    return sparse.take(CHUNK, POSITIONS, Draws(7, step, samples))


def test_kept_frames_bring_their_own_positions_and_stay_in_order():
    counts = set()
    for step in range(40):
        x_BCTHW, positions = taken(SparseFrames(share=1.0, most=3), step)
        counts.add(len(positions))
        assert [20 + int(frame) for frame in x_BCTHW.flatten()] == list(positions) == sorted(set(positions))
    assert counts == {1, 2, 3}


def test_every_rank_keeps_the_same_frames():
    sparse = SparseFrames(share=0.5, most=4)
    assert all(taken(sparse, step)[1] == taken(sparse, step, samples=(5, 6))[1] for step in range(20))


def test_share_says_how_many_steps_are_sparse():
    whole = [taken(SparseFrames(share=0.25), step)[1] == POSITIONS for step in range(200)]
    assert 120 <= sum(whole) <= 180
    assert all(taken(WholeChunks(), step)[1] == POSITIONS for step in range(20))


def test_adjacent_frames_follow_one_another():
    apart = {
        share: [
            max(b - a for a, b in itertools.pairwise(kept))
            for step in range(80)
            if len(kept := taken(SparseFrames(most=3, adjacent=share), step)[1]) > 1
        ]
        for share in (0.0, 1.0)
    }
    assert set(apart[1.0]) == {1} and max(apart[0.0]) > 3
    assert {taken(SparseFrames(most=3, adjacent=1.0), step)[1][0] for step in range(80)} == set(POSITIONS)


def test_excerpts_shrink_and_are_drawn_as_often_as_asked():
    excerpts = (
        Excerpt(share=0.2),
        Excerpt(share=0.5, shrink=4, frames=SparseFrames(most=2)),
        Excerpt(share=0.3, shrink=2),
    )
    chunk = torch.randn(2, 3, 9, 8, 8)
    drawn = [draw_excerpt(excerpts, Draws(7, step, (0,))) for step in range(200)]
    assert [drawn.count(excerpt) for excerpt in excerpts] == pytest.approx([40, 100, 60], abs=20)
    quarter, frames = excerpts[1].take(chunk, tuple(range(chunk.shape[2])), Draws(7, 0, (0, 1)))
    expected = chunk.unflatten(4, (2, 4)).unflatten(3, (2, 4)).mean((4, 6))[:, :, list(frames)]
    torch.testing.assert_close(quarter, expected)
    assert [excerpt.tokens(144, 9) for excerpt in excerpts] == [144, 2, 36]


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (lambda: Excerpt(shrink=3), "shrink=3 is not a level"),
        (lambda: Excerpt(share=2), "share=2 is not a share"),
        (lambda: PretrainStage(excerpts=(Excerpt(share=0.5), Excerpt(share=0.2))), "add up to 0.7: make it 1"),
        (lambda: PretrainStage(excerpts=()), "add up to 0: make it 1"),
    ],
)
def test_wrong_excerpts_are_refused(wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        wrong()


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"adjacent": -1}, "adjacent=-1"),
        ({"share": 1.5}, "share=1.5"),
        ({"share": 1.0, "most": 0}, "most=0 keeps no frame"),
    ],
)
def test_wrong_values_are_refused(wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        SparseFrames(**wrong)


@pytest.mark.parametrize("make", ["pretraining", "stage1", "one_level"])
def test_every_stage_tells_the_network_where_the_frames_are(make):
    model, seen = transformer(), []
    network, sparse = Network(module=model), SparseFrames(share=1.0, most=3)
    makers = {
        "pretraining": lambda *parts: FlowMatching(*parts, excerpts=(Excerpt(frames=sparse),)),
        "stage1": lambda *parts: Stage1(*parts, sparse=sparse),
        "one_level": lambda *parts: Stage2(*parts, draws=OneLevel(shares=(0.0, 0.0, 1.0), finest=sparse)),
    }
    student = Player(name="student", module=model, trainables=FullTraining().attach(model), optim=OptimConfig(lr=1e-3))
    method = makers[make](student, network, HashedCaptions(), GEOMETRY)
    packed_velocity = model.packed_velocity

    def watched(xs, *rest, frames):
        seen.append(({x.shape[2] for x in xs}, frames))
        return packed_velocity(xs, *rest, frames=frames)

    model.packed_velocity = watched
    for step in range(6):
        method.backward("student", [clip(2)], Draws(0, step, (0,)), 1.0)
    first = 0 if make == "pretraining" else 1 + GEOMETRY.history.total
    assert len({frames for _, frames in seen}) > 1
    for counts, frames in seen:
        assert counts == {len(frames)} and set(frames) <= set(range(first, first + GEOMETRY.chunk_latent_frames))
