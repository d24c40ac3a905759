import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helios.schedulers import DynamicShift, NoShift, PyramidStages, SchedulerConfig, SingleStage
from helios.schedulers.tables import MERGE_DISTANCE, LevelSchedule

LINEAR = DynamicShift(kind="linear")


def _schedule(steps: int, level: int = 2, shift=LINEAR) -> LevelSchedule:
    config = SchedulerConfig(solver="distilled", stages=PyramidStages(), shift=shift)
    return config.level_schedule(level, steps, 8640)


@pytest.mark.parametrize(
    ("sigmas", "timesteps"),
    [
        ((0.9, 0.1), (900.0,)),  # does not end at 0
        ((0.5, 0.5, 0.0), (500.0, 500.0)),  # does not fall
        ((0.9, 0.5, 0.0), (900.0,)),  # lengths
        ((0.0,), ()),  # no step
    ],
)
def test_a_schedule_must_fall_to_zero(sigmas, timesteps):
    with pytest.raises(ValueError):
        LevelSchedule(sigmas=sigmas, timesteps=timesteps, model_timesteps=timesteps)


def test_every_schedule_has_its_own_model_timesteps():
    with pytest.raises(ValueError):
        LevelSchedule(sigmas=(0.9, 0.0), timesteps=(900.0,), model_timesteps=())


def test_merged_schedule_passes_through_the_points_of_both():
    teacher = SchedulerConfig(solver="unipc", stages=PyramidStages(), shift=LINEAR).level_schedule(2, 20, 8640)
    student = _schedule(4)
    merged = teacher.merged(student)
    assert set(student.sigmas) <= set(merged.sigmas)
    assert all(min(abs(sigma - kept) for kept in merged.sigmas) <= MERGE_DISTANCE for sigma in teacher.sigmas)
    assert merged.steps == teacher.steps + student.steps - 1  # both begin at the level's first entry
    at = dict(zip(merged.sigmas, merged.timesteps))
    assert [at[sigma] for sigma in student.sigmas[:-1]] == list(student.timesteps)


def test_merging_leaves_no_two_points_so_close_that_a_multistep_solver_trips():
    teacher = _schedule(3)
    near = tuple(sigma - 1e-5 if sigma else 0.0 for sigma in teacher.sigmas)
    student = LevelSchedule(sigmas=near, timesteps=teacher.timesteps, model_timesteps=teacher.timesteps)
    assert teacher.merged(student) == student


@given(st.integers(1, 30))
def test_merging_a_schedule_with_itself_changes_nothing(steps):
    schedule = _schedule(steps)
    assert schedule.merged(schedule) == schedule


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("kind", ["linear", "exponential"])
@pytest.mark.parametrize("tokens", [540, 2160, 8640])
def test_shifted_training_table_is_the_published_map(level, kind, tokens):
    """Shift all 1000 sigmas, then put them on the line between the table's own smallest and largest timestep."""
    table, shift = PyramidStages().noise_table(level), DynamicShift(kind=kind)
    shifted, sigmas, timesteps = table.shifted(shift, tokens), np.array(table.sigmas), np.array(table.timesteps)
    factor = shift.factor(tokens)
    expected = factor / (factor + 1 / sigmas - 1)
    np.testing.assert_allclose(shifted.sigmas, expected, rtol=1e-12)
    on_the_line = timesteps.min() + expected * (timesteps.max() - timesteps.min())
    np.testing.assert_allclose(shifted.timesteps, on_the_line, rtol=1e-12)


def test_shifted_table_of_a_single_resolution_keeps_timestep_1000_sigma():
    shifted = SingleStage().noise_table().shifted(LINEAR, 8640)
    np.testing.assert_allclose(shifted.timesteps, 1000 * np.array(shifted.sigmas), rtol=1e-12)
    assert shifted.sigmas[0] == 1.0


def test_no_shift_keeps_the_table_and_a_factor_of_one_does_not():
    table = PyramidStages().noise_table(0)
    assert table.shifted(NoShift(), 540) is table
    one = table.shifted(DynamicShift(kind="linear", base_shift=1.0, max_shift=1.0), 540)
    assert one.sigmas == pytest.approx(table.sigmas, rel=1e-12)
    assert one.timesteps[0] < table.timesteps[0] - 0.2


@given(st.floats(0.0, 1000.0), st.sampled_from([0, 1, 2]))
def test_nearest_is_the_first_smallest_distance(timestep, level):
    table = PyramidStages().noise_table(level).shifted(LINEAR, 2160)
    assert table.nearest(timestep) == int(np.argmin(np.abs(np.array(table.timesteps) - timestep)))


def test_nearest_prefers_the_noisier_entry_on_a_tie():
    table = SingleStage(num_train_timesteps=4).noise_table()
    assert table.timesteps == (4.0, 3.0, 2.0, 1.0)
    assert table.nearest(2.5) == 1


@pytest.mark.parametrize("level", [0, 1, 2])
def test_lookup_of_the_students_timesteps_finds_their_sigmas(level):
    """The regression loss looks a stored timestep up in the shifted 1000-entry table."""
    tokens = (540, 2160, 8640)[level]
    config = SchedulerConfig(solver="distilled", stages=PyramidStages(), shift=LINEAR)
    schedule = config.level_schedule(level, 4, tokens)
    table = PyramidStages().noise_table(level).shifted(LINEAR, tokens)
    for sigma, timestep in zip(schedule.sigmas, schedule.timesteps):
        assert table.sigmas[table.nearest(timestep)] == pytest.approx(sigma, abs=1e-3)


@pytest.mark.parametrize(
    ("level", "tokens", "timesteps", "sigmas"),
    [
        (0, 540, (998.5342, 902.2183, 833.9636, 783.0660), (0.9982, 0.6212, 0.3540, 0.1548)),
        (1, 2160, (742.8216, 640.0038, 547.1926, 462.9951), (0.9988, 0.7110, 0.4512, 0.2156)),
        (2, 8640, (385.4137, 328.6249, 253.9905, 151.5308), (0.9995, 0.8517, 0.6574, 0.3908)),
    ],
)
def test_the_students_points_in_training(level, tokens, timesteps, sigmas):
    """Conformance check T7 (level 2) and the table of the distillation pairs: shift of the level's own size."""
    config = SchedulerConfig(solver="distilled", stages=PyramidStages(), shift=LINEAR)
    four, two = (config.level_schedule(level, steps, tokens) for steps in (4, 2))
    assert four.timesteps == pytest.approx(timesteps, abs=5e-5)
    assert four.sigmas[:-1] == pytest.approx(sigmas, abs=5e-5)
    assert two.timesteps == pytest.approx(timesteps[::2], abs=5e-5)
    assert two.sigmas[:-1] == pytest.approx(sigmas[::2], abs=5e-5)


def test_without_last_drops_the_least_noisy_entries():
    table = SingleStage(num_train_timesteps=4).noise_table()
    assert table.without_last(2).timesteps == (4.0, 3.0)
    assert len(table.without_last()) == 3
