import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helios.errors import InputError
from helios.schedulers import SchedulerConfig
from helios.schedulers.stages import PyramidStages, SingleStage

borders = st.lists(st.integers(20, 980), min_size=1, max_size=3, unique=True).map(
    lambda cuts: (0.0, *(cut / 1000 for cut in sorted(cuts)), 1.0)
)
gammas = st.floats(0.05, 1 / 3)


def test_global_table():
    """Conformance check T1."""
    values = [PyramidStages().global_sigma(index) for index in (0, 333, 666, 999)]
    assert values == pytest.approx([0.999, 0.666333, 0.333666, 0.000999], rel=1e-12)


@pytest.mark.parametrize(
    ("level", "original", "start", "end", "first", "last", "alpha", "beta"),
    [
        (0, 0.999, 0.999, 0.666333, 999.0, 743.511744, 1.0, 0.0),
        (1, 0.666333, 0.799759712, 0.333666, 743.256, 385.971642, 0.600120144, 0.692612227),
        (2, 0.333666, 0.500374157, 0.0, 385.614, 1.383615, 0.749812922, 0.433336731),
    ],
)
def test_constants_of_the_released_pyramid(level, original, start, end, first, last, alpha, beta):
    """Conformance checks T2, T4 and T8."""
    stage = PyramidStages().stage(level)
    assert (stage.original_start, stage.start, stage.end) == pytest.approx((original, start, end), abs=5e-10)
    assert (stage.first_timestep, stage.last_timestep) == pytest.approx((first, last), abs=5e-10)
    assert (stage.alpha, stage.beta) == pytest.approx((alpha, beta), abs=5e-10)


def test_shares_of_the_time_axis():
    """Conformance check T3."""
    assert PyramidStages().fractions == pytest.approx((0.0, 0.256068102, 0.614840484, 1.0), abs=5e-10)


def test_start_has_a_short_form_at_one_third():
    pyramid = PyramidStages()
    for stage in (pyramid.stage(1), pyramid.stage(2)):
        assert stage.start == pytest.approx(2 * stage.original_start / (1 + stage.original_start), rel=1e-14)


@given(borders, gammas)
def test_a_transition_turns_the_end_of_a_level_into_the_start_of_the_next(stage_range, gamma):
    """The algebra of the correction: same mean, variance start^2, no correlation inside a block."""
    pyramid = PyramidStages(stage_range=stage_range, gamma=gamma)
    for level in range(1, pyramid.levels):
        stage, end = pyramid.stage(level), pyramid.stage(level - 1).end
        assert stage.original_start == end
        assert stage.alpha * (1 - end) == pytest.approx(1 - stage.start, abs=1e-12)
        assert stage.alpha**2 * end**2 + stage.beta**2 == pytest.approx(stage.start**2, abs=1e-12)
        assert stage.alpha**2 * end**2 - gamma * stage.beta**2 == pytest.approx(0, abs=1e-12)
        assert stage.start > end


@given(borders, gammas)
def test_levels_cover_disjoint_falling_ranges_of_time(stage_range, gamma):
    pyramid = PyramidStages(stage_range=stage_range, gamma=gamma)
    tables = [pyramid.noise_table(level).timesteps for level in range(pyramid.levels)]
    falling = [timestep for table in tables for timestep in table]
    assert all(a > b for a, b in itertools.pairwise(falling))
    assert falling[0] == 999.0 and falling[-1] > 0
    assert pyramid.stage(pyramid.levels - 1).end == 0.0


@pytest.mark.parametrize("gamma", [1 / 3, 0.33, 0.1])
@pytest.mark.parametrize("table_shift", [1.0, 3.0])
@pytest.mark.parametrize("stage_range", [(0, 1 / 3, 2 / 3, 1), (0, 0.5, 1), (0, 0.2, 0.57, 0.801, 1)])
@pytest.mark.parametrize("timesteps", [1000, 100])
def test_parity_of_constants_and_training_tables(published, gamma, table_shift, stage_range, timesteps):
    stages = PyramidStages(stage_range=stage_range, gamma=gamma, table_shift=table_shift, num_train_timesteps=timesteps)
    theirs = published(SchedulerConfig(solver="unipc", stages=stages)).scheduler
    for level in range(stages.levels):
        stage, table = stages.stage(level), stages.noise_table(level)
        assert stage.original_start == pytest.approx(theirs.ori_start_sigmas[level], rel=1e-12)
        assert stage.start == pytest.approx(theirs.start_sigmas[level], rel=1e-12)
        assert stage.end == pytest.approx(theirs.end_sigmas[level], rel=1e-12)
        np.testing.assert_allclose(table.timesteps, theirs.timesteps_per_stage[level].numpy(), rtol=1e-12)
        np.testing.assert_allclose(table.sigmas, theirs.sigmas_per_stage[level].numpy(), rtol=1e-12)


def test_training_tables_of_the_released_pyramid():
    pyramid = PyramidStages()
    for level, (first, last) in enumerate([(999.0, 743.511744), (743.256, 385.971642), (385.614, 1.383615)]):
        table = pyramid.noise_table(level)
        assert len(table) == 1000
        assert (table.timesteps[0], table.timesteps[-1]) == pytest.approx((first, last), abs=1e-6)
        assert (table.sigmas[0], table.sigmas[-1]) == pytest.approx((0.999, 0.000999), rel=1e-12)


def test_training_table_of_a_single_resolution():
    table = SingleStage().noise_table()
    np.testing.assert_allclose(table.sigmas, np.linspace(1.0, 0.001, 1000), rtol=1e-12)
    np.testing.assert_allclose(table.timesteps, 1000 * np.array(table.sigmas), rtol=1e-12)
    assert SingleStage().levels == 1


@pytest.mark.parametrize(
    "stage_range", [(0.0, 1.0), (0.1, 0.5, 1.0), (0.0, 0.5, 0.9), (0.0, 0.6, 0.5, 1.0), (0.0, 0.5, 0.5, 1.0)]
)
def test_borders_must_rise_from_zero_to_one(stage_range):
    with pytest.raises(InputError, match="must rise from 0 to 1"):
        PyramidStages(stage_range=stage_range)


@pytest.mark.parametrize("gamma", [0.0, -0.1, 0.34, 1.0, float("nan")])
def test_gamma_must_make_a_covariance(gamma):
    with pytest.raises(InputError, match="gamma="):
        PyramidStages(gamma=gamma)


@pytest.mark.parametrize("make", [PyramidStages, SingleStage])
@pytest.mark.parametrize("count", [1, 1001])
def test_the_number_of_training_timesteps_must_fit_the_time_embedding(make, count):
    with pytest.raises(InputError, match=f"num_train_timesteps={count}"):
        make(num_train_timesteps=count)


def test_the_table_shift_must_be_positive():
    with pytest.raises(InputError, match="shift=-1"):
        PyramidStages(table_shift=-1.0)
