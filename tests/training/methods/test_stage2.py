import pytest
import torch

from helios.errors import InputError
from helios.schedulers.stages import PyramidStages
from helios.training.adapt import FullTraining, LoraTraining
from helios.training.methods.sparse import SparseFrames
from helios.training.methods.stage2 import OneByOne, OneLevel, Packed, PyramidDraws, Stage2
from helios.training.network import Network
from helios.training.optim import OptimConfig
from helios.training.player import Player
from helios.training.seeds import Draws
from tests.training.clips import GEOMETRY, clip, plain_clips
from tests.training.methods.steps import moved, run, snapshot
from tests.training.models import HashedCaptions, transformer

FRAMES = tuple(range(20, 29))


def stage2(model, training=FullTraining(), **kwargs) -> Stage2:
    student = Player(name="student", module=model, trainables=training.attach(model), optim=OptimConfig(lr=2e-3))
    return Stage2(student, Network(module=model), HashedCaptions(), GEOMETRY, **kwargs)


@pytest.mark.parametrize("per_level", [(1, 2, 1), (1, 1, 1)])
def test_packed_equals_one_by_one_in_losses_and_gradients(per_level):
    """Conformance T18, and K17: the gradient is averaged over the draws either way."""
    numbers, gradients = [], []
    for passes in (Packed(), OneByOne()):
        method = stage2(transformer(), draws=PyramidDraws(per_level=per_level, passes=passes))
        numbers.append(method.backward("student", [clip(4, seed=1), clip(4, seed=2)], Draws(0, 0, (0, 1)), 0.5))
        gradients.append(torch.cat([p.grad.flatten() for p in method.players[0].trainables.values()]))
    assert set(numbers[0]) == {"loss", "loss_level0", "loss_level1", "loss_level2"}
    for name, value in numbers[0].items():
        torch.testing.assert_close(value, numbers[1][name], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


def test_draws_are_points_between_the_published_ends():
    x0, stages = torch.randn(2, 4, 9, 8, 8), PyramidStages()
    points, frames = PyramidDraws(per_level=(1, 2, 1)).make(x0, FRAMES, stages, Draws(0, 0, (0, 1)))
    assert [point.level for point in points] == [0, 1, 1, 2] and frames == FRAMES
    assert [tuple(point.x_BCTHW.shape[3:]) for point in points] == [(2, 2), (4, 4), (4, 4), (8, 8)]
    assert torch.equal(points[1].velocity_BCTHW, points[2].velocity_BCTHW)
    assert not torch.equal(points[1].timestep_B, points[2].timestep_B)
    for point in points:
        stage = stages.stage(point.level)
        fraction = (point.timestep_B - stage.last_timestep) / (stage.first_timestep - stage.last_timestep)
        sigma = (0.000999 + fraction * (0.999 - 0.000999)).view(-1, 1, 1, 1, 1)
        end = point.x_BCTHW - sigma * point.velocity_BCTHW
        start = point.x_BCTHW + (1 - sigma) * point.velocity_BCTHW
        if point.level == 2:
            torch.testing.assert_close(end, x0, rtol=1e-3, atol=1e-3)
        if point.level == 0:
            assert abs(start.std() - 1) < 0.2


def test_one_level_per_step_is_the_same_for_all_samples_and_follows_its_shares():
    x0, stages = torch.randn(2, 4, 9, 8, 8), PyramidStages()
    law = OneLevel(shares=(0.2, 0.5, 0.3))
    steps = [law.make(x0, FRAMES, stages, Draws(0, step, (0, 1)))[0] for step in range(300)]
    assert all(len(points) == 1 for points in steps)
    shares = [sum(points[0].level == level for points in steps) / 300 for level in range(3)]
    assert shares == pytest.approx([0.2, 0.5, 0.3], abs=0.08)
    for step in range(5):  # another rank's samples meet the same level
        other, _ = law.make(x0, FRAMES, stages, Draws(0, step, (2, 3)))
        assert other[0].level == steps[step][0].level


def test_few_frames_are_for_the_finest_level_alone():
    x0, stages = torch.randn(2, 4, 9, 8, 8), PyramidStages()
    law = OneLevel(finest=SparseFrames(most=2))
    for step in range(40):
        (point,), frames = law.make(x0, FRAMES, stages, Draws(0, step, (0, 1)))
        assert point.x_BCTHW.shape[2] == len(frames)
        assert len(frames) <= 2 if point.level == 2 else frames == FRAMES


def test_one_level_learns_the_loss_of_that_level():
    method = stage2(transformer(), draws=OneLevel(shares=(0.0, 1.0, 0.0)))
    numbers = method.backward("student", [clip(4)], Draws(0, 0, (0,)), 1.0)
    assert set(numbers) == {"loss", "loss_level1"} and numbers["loss"] == numbers["loss_level1"]
    with pytest.raises(InputError, match=r"shares=\(0.5, 0.2\) do not add up to 1"):
        OneLevel(shares=(0.5, 0.2))
    with pytest.raises(InputError, match="shares=.* has 2 entries for 3 levels"):
        OneLevel(shares=(0.5, 0.5)).make(torch.randn(1, 4, 9, 8, 8), FRAMES, PyramidStages(), Draws(0, 0, (0,)))


def test_the_mean_counts_every_draw_once():
    method = stage2(transformer())
    numbers = method.backward("student", [clip(4)], Draws(0, 0, (0,)), 1.0)
    mean = (numbers["loss_level0"] + 2 * numbers["loss_level1"] + numbers["loss_level2"]) / 4
    torch.testing.assert_close(numbers["loss"], mean)


def test_everything_trained_moves_and_nothing_else(tmp_path):
    model = transformer()
    patches = ("patch_embedding", "patch_short", "patch_mid", "patch_long")
    method = stage2(model, LoraTraining(rank=4, patches=patches, full=()))
    before = snapshot(model)
    run(method, tmp_path, steps=8, gradient_check_steps=8, batch_size=4)
    assert moved(before, model) == set(method.players[0].trainables)


def test_it_learns_all_levels(tmp_path):
    curves = run(stage2(transformer()), tmp_path, steps=60, data=plain_clips(3), batch_size=1)
    for level in range(3):
        losses = [value for _, value in curves[f"student/loss_level{level}"]]
        assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


@pytest.mark.parametrize("per_level", [(1, 1), (0, 0, 0), (1, -1, 1)])
def test_counts_that_do_not_fit_are_refused(per_level):
    with pytest.raises(InputError, match="per_level"):
        PyramidDraws(per_level=per_level).make(torch.randn(1, 4, 9, 8, 8), FRAMES, PyramidStages(), Draws(0, 0, (0,)))
