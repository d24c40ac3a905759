import math
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helios.errors import InputError
from helios.schedulers import DynamicShift, LevelSchedule, NoShift, PyramidStages, SchedulerConfig, SingleStage
from helios.schedulers.solvers import DistilledSolver, EulerSolver, UniPCSolver, _phi

SHAPE = (2, 4, 3, 4, 6)
KINDS = ["unipc", "euler", "distilled"]


def _normal(seed: int, shape=SHAPE) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@cache
def _bias(index: int) -> torch.Tensor:
    return 0.5 * _normal(100 + index)


def _velocity(index: int, x: torch.Tensor) -> torch.Tensor:
    """A network that depends on the point in a bent way and on the step."""
    return torch.tanh(0.7 * x.roll(1, dims=-1) - 0.4 * x) + _bias(index)


def _walk(solver, steps: int, x: torch.Tensor, velocity=_velocity) -> list[torch.Tensor]:
    points = []
    for index in range(steps):
        x = solver.step(index, velocity(index, x), x)
        points.append(x)
    return points


def _plain(sigmas: list[float]) -> LevelSchedule:
    timesteps = tuple(1000 * sigma for sigma in sigmas)
    return LevelSchedule(sigmas=(*sigmas, 0.0), timesteps=timesteps, model_timesteps=timesteps)


def _schedule(kind: str, steps: int, amplified: bool = False) -> LevelSchedule:
    config = SchedulerConfig(solver=kind, stages=PyramidStages(), shift=DynamicShift(kind="exponential"))
    return config.level_schedule(1, steps, 2160, amplified=amplified)


def _solver(kind: str, schedule: LevelSchedule, start: torch.Tensor):
    return SchedulerConfig(solver=kind, stages=PyramidStages()).make_solver(schedule, start)


# Parity with Diffusers


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 20, 50])
@pytest.mark.parametrize("tokens", [8640])
@pytest.mark.parametrize("kind", KINDS)
def test_parity_of_trajectories(published, stages, shift, kind, steps, tokens):
    """Every point of the walk, float32, largest difference over the largest value."""
    config = SchedulerConfig(solver=kind, stages=stages, shift=shift)
    for level in range(stages.levels):
        theirs = published(config)
        theirs.set_timesteps(level, steps, tokens)
        start = _normal(level)
        schedule = config.level_schedule(level, steps, tokens)
        ours = _walk(config.make_solver(schedule, start), steps, start)
        for mine, reference in zip(ours, theirs.walk(_velocity, start), strict=True):
            assert mine.dtype == torch.float32
            assert (mine - reference).abs().max() <= 1e-6 * max(1.0, reference.abs().max())


@pytest.mark.parametrize("steps", [1, 2, 3, 50])
def test_parity_of_amplified_trajectories(published, shift, steps):
    config = SchedulerConfig(solver="distilled", stages=PyramidStages(), shift=shift)
    for level in range(3):
        theirs, start = published(config), _normal(level)
        theirs.set_timesteps(level, steps, 540, amplified=True)
        schedule = config.level_schedule(level, steps, 540, amplified=True)
        ours = _walk(config.make_solver(schedule, start), 2 * steps, start)
        for mine, reference in zip(ours, theirs.walk(_velocity, start), strict=True):
            assert (mine - reference).abs().max() <= 1e-6 * max(1.0, reference.abs().max())


@pytest.mark.parametrize("name", ["base", "mid"])
def test_released_multistep_trajectories_are_bit_equal_on_the_cpu(published, released, name):
    config = released[name]
    for level, tokens in enumerate((540, 540, 2160)[-config.levels :]):
        theirs, start = published(config), _normal(level)
        theirs.set_timesteps(level, 20, tokens)
        ours = _walk(config.make_solver(config.level_schedule(level, 20, tokens)), 20, start)
        assert torch.equal(ours[-1], theirs.walk(_velocity, start)[-1])


def test_trajectories_differ_between_solvers():
    """What parity is worth: the three solvers do not agree with each other to 1e-6 on this velocity."""
    start = _normal(0)
    ends = [_walk(_solver(kind, _schedule("unipc", 4), start), 4, start)[-1] for kind in KINDS]
    assert min((a - b).abs().max() for a, b in [(ends[0], ends[1]), (ends[0], ends[2]), (ends[1], ends[2])]) > 1e-3


# What a solver is


@given(st.lists(st.floats(0.01, 0.999), min_size=1, max_size=12, unique=True), st.sampled_from(["unipc", "euler"]))
@settings(max_examples=30, deadline=None)
def test_a_straight_path_is_walked_exactly(sigmas, kind):
    """A velocity that always points away from one end leads to that end, whatever the points on the way."""
    schedule = _plain(sorted({0.02 * max(1, round(sigma / 0.021)) for sigma in sigmas}, reverse=True))
    end, noise = _normal(1), _normal(2)
    x = schedule.sigmas[0] * noise + (1 - schedule.sigmas[0]) * end
    points = _walk(_solver(kind, schedule, x), schedule.steps, x, lambda index, _: noise - end)
    for sigma, point in zip(schedule.sigmas[1:], points):
        torch.testing.assert_close(point, sigma * noise + (1 - sigma) * end, atol=2e-5, rtol=0)


def _gaussian_error(kind: str, steps: int) -> float:
    """Distance from the exact flow of data N(1, 0.5^2) under its true velocity, from sigma 0.9 to 0.1."""
    sigmas = [0.9 - 0.8 * index / steps for index in range(steps + 1)]
    schedule = _plain(sigmas)

    def spread(sigma):
        return math.sqrt((1 - sigma) ** 2 * 0.25 + sigma**2)

    def velocity(sigma, x):
        deviation = (x - (1 - sigma)) / spread(sigma)
        return -1 + deviation * (sigma - (1 - sigma) * 0.25) / spread(sigma)

    solver, x = _solver(kind, schedule, torch.zeros(1)), torch.full((1,), 1.5)
    for index in range(steps):
        x = solver.step(index, velocity(sigmas[index], x), x)
    exact = (1 - 0.1) + (1.5 - (1 - 0.9)) / spread(0.9) * spread(0.1)
    return abs(float(x) - exact)


def test_order_of_convergence():
    """Halving the step halves Euler's error, and divides UniPC's by much more than 4 (predictor and corrector)."""
    assert _gaussian_error("euler", 16) / _gaussian_error("euler", 32) == pytest.approx(2, abs=0.3)
    assert _gaussian_error("unipc", 8) / _gaussian_error("unipc", 16) > 4
    assert _gaussian_error("unipc", 8) < _gaussian_error("euler", 8) / 3


def test_euler_is_the_formula():
    x, v = _normal(1), _normal(2)
    out = EulerSolver(_plain([0.9, 0.4])).step(0, v, x)
    torch.testing.assert_close(out, x - 0.5 * v)


def test_first_unipc_step_is_the_exponential_euler_step():
    x, v = _normal(1), _normal(2)
    out = UniPCSolver(_plain([0.9, 0.4])).step(0, v, x)
    m = x - 0.9 * v
    torch.testing.assert_close(out, 0.4 / 0.9 * x + (1 - 0.4 / 0.9) * m)


def test_second_unipc_step_by_hand():
    """Order 1 corrector, then order 2 predictor, written out in float64."""
    sigmas = (0.9, 0.6, 0.3, 0.1)
    x0, v0, v1 = (_normal(seed).double() for seed in (1, 2, 3))
    lam = [math.log(1 - s) - math.log(s) for s in sigmas]
    m0 = x0 - 0.9 * v0
    h = lam[1] - lam[0]
    phi = math.expm1(-h)
    x1 = 0.6 / 0.9 * x0 - 0.4 * phi * m0
    m1 = x1 - 0.6 * v1
    y1 = 0.6 / 0.9 * x0 - 0.4 * phi * m0 - 0.4 * phi * 0.5 * (m1 - m0)
    h = lam[2] - lam[1]
    phi, r = math.expm1(-h), (lam[0] - lam[1]) / h
    expected = 0.3 / 0.6 * y1 - 0.7 * phi * m1 - 0.7 * phi * 0.5 * (m0 - m1) / r
    solver = UniPCSolver(_plain(list(sigmas)))
    x = solver.step(0, v0.float(), x0.float())
    torch.testing.assert_close(solver.step(1, v1.float(), x), expected.float(), atol=2e-6, rtol=0)


def test_third_unipc_correction_solves_the_two_by_two_system():
    """Order 2 corrector against a numerical solution of its linear system."""
    sigmas = (0.9, 0.6, 0.3, 0.1)
    lam = [math.log(1 - s) - math.log(s) for s in sigmas]
    h = lam[2] - lam[1]
    r, b = (lam[0] - lam[1]) / h, math.expm1(-h)
    g = b / -h - 1
    system = torch.tensor([[1.0, 1.0], [r, 1.0]], dtype=torch.float64)
    rho = torch.linalg.solve(system, torch.tensor([g / b, 2 * (g / -h - 0.5) / b], dtype=torch.float64))
    corrector, _ = UniPCSolver(_plain(list(sigmas)))._moves[2]
    assert (corrector.old, corrector.new) == pytest.approx(rho.tolist(), rel=1e-12)
    assert (corrector.clean, corrector.ratio) == pytest.approx((-0.7 * b, r), rel=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("z", [-0.5, -0.4999999, 0.4999999, 0.5])
def test_phi_has_no_jump_where_its_two_forms_meet(k, z):
    direct = {1: math.expm1(z) / z, 2: (math.exp(z) - 1 - z) / z**2, 3: (math.exp(z) - 1 - z - z * z / 2) / z**3}
    assert _phi(k, z) == pytest.approx(direct[k], rel=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_phi_at_zero_and_far_away(k):
    assert _phi(k, 1e-12) == pytest.approx(1 / math.factorial(k), rel=1e-11)
    assert _phi(k, -20.0) == pytest.approx({1: 1 / 20, 2: 1 / 20 - 1 / 400, 3: 0.025 - 1 / 400 + 1 / 8000}[k], rel=1e-6)


def test_a_merged_schedule_walks_like_the_teachers():
    """Distillation pairs: the student's points, put into the teacher's schedule, hardly change where it arrives."""
    teacher, student, start = _schedule("unipc", 20), _schedule("distilled", 4), _normal(0)
    merged = teacher.merged(student)
    assert merged.steps > teacher.steps
    ends = [_walk(UniPCSolver(s), s.steps, start, lambda _, x: torch.tanh(x))[-1] for s in (teacher, merged)]
    assert (ends[0] - ends[1]).abs().max() < 2e-3


# The distilled solver


def test_a_distilled_step_is_the_jump_and_the_way_back():
    start, x, v = _normal(0), _normal(1), _normal(2)
    schedule = _schedule("distilled", 3)
    solver = DistilledSolver(schedule, start)
    x0 = solver.x0(1, v, x)
    torch.testing.assert_close(x0, x - schedule.sigmas[1] * v)
    torch.testing.assert_close(solver.renoise(1, x0), (1 - schedule.sigmas[2]) * x0 + schedule.sigmas[2] * start)
    torch.testing.assert_close(solver.step(1, v, x), solver.renoise(1, x0), rtol=0, atol=0)
    torch.testing.assert_close(solver.step(2, v, x), solver.x0(2, v, x), rtol=0, atol=0)


def test_sigmas_are_looked_up_with_the_truncated_timestep():
    """With steps closer together than a timestep, the published lookup lands on a neighbour."""
    timesteps = (500.9, 500.2, 499.0)
    schedule = LevelSchedule(sigmas=(0.8, 0.7, 0.6, 0.0), timesteps=timesteps, model_timesteps=(500.0, 500.0, 499.0))
    x, v = torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1)
    solver = DistilledSolver(schedule, x)
    assert [-float(solver.x0(index, v, x)) for index in range(3)] == pytest.approx([0.7, 0.7, 0.6])


def test_the_lookup_finds_the_own_sigma_in_the_released_settings():
    config = SchedulerConfig(solver="distilled", stages=PyramidStages(), shift=DynamicShift(kind="linear"))
    x, v = torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1)
    for level, tokens in enumerate((540, 540, 2160)):
        for amplified in (False, True):
            schedule = config.level_schedule(level, 2, tokens, amplified=amplified)
            solver = DistilledSolver(schedule, x)
            found = [-float(solver.x0(index, v, x)) for index in range(schedule.steps)]
            assert found == pytest.approx(schedule.sigmas[:-1])


def test_the_last_distilled_step_cannot_be_renoised():
    solver = DistilledSolver(_schedule("distilled", 2), _normal(0))
    with pytest.raises(IndexError):
        solver.renoise(1, _normal(1))


# Host and device


class _Float64Watch(TorchDispatchMode):
    """Fails when an operation makes a float64 tensor."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            assert not (isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64), func
        return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_never_wait_for_the_device_or_need_float64(kind, dtype):
    """Meta tensors have no values: reading one on the host would raise."""
    schedule, x = _schedule(kind, 4), torch.empty(SHAPE, device="meta")
    with _Float64Watch():
        solver = _solver(kind, schedule, x)
        for point in _walk(solver, 4, x, lambda index, x: torch.empty(SHAPE, device="meta", dtype=dtype)):
            assert point.device.type == "meta" and point.dtype == torch.float32 and point.shape == x.shape


def test_the_float64_watch_sees_float64():
    with pytest.raises(AssertionError), _Float64Watch():
        torch.zeros(1).double()


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_velocities_are_used_in_float32(kind):
    start, schedule = _normal(0), _schedule(kind, 3)
    halves = [_normal(index).bfloat16() for index in range(3)]
    low = _walk(_solver(kind, schedule, start), 3, start, lambda index, x: halves[index])
    full = _walk(_solver(kind, schedule, start), 3, start, lambda index, x: halves[index].float())
    assert all(torch.equal(a, b) for a, b in zip(low, full))


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_are_left_alone(kind):
    start, schedule = _normal(0), _schedule(kind, 3)
    x, v = start.clone(), _normal(1)
    kept = v.clone()
    _walk(_solver(kind, schedule, x), 3, x, lambda index, _: v)
    assert torch.equal(x, start) and torch.equal(v, kept)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_walk(kind):
    """Against central differences: the walk is linear in the velocities, so these are exact up to rounding."""
    schedule, start = _schedule(kind, 4), _normal(0, (1, 1, 1, 1, 2))
    velocities = [_normal(index + 1, start.shape).requires_grad_() for index in range(4)]
    probe = _normal(9, start.shape)

    def outcome(values, x):
        return (_walk(_solver(kind, schedule, x), 4, x, lambda index, _: values[index])[-1] * probe).sum()

    x = start.clone().requires_grad_()
    outcome(velocities, x).backward()
    plain = [velocity.detach() for velocity in velocities]
    for tensor, position in [*((velocity, index) for index, velocity in enumerate(velocities)), (x, None)]:
        bump = torch.zeros_like(start)
        bump[..., 0] = 0.5

        def moved(sign, position=position, bump=bump):
            values = [v + sign * bump if i == position else v for i, v in enumerate(plain)]
            return outcome(values, start + sign * bump if position is None else start)

        assert tensor.grad is not None
        assert tensor.grad[..., 0].item() == pytest.approx((moved(1) - moved(-1)).item(), abs=2e-5)


# Refusals


def test_unipc_steps_are_taken_in_turn():
    solver, x = UniPCSolver(_schedule("unipc", 3)), _normal(0)
    with pytest.raises(ValueError, match="expects step 0"):
        solver.step(1, x, x)
    solver.step(0, x, x)
    with pytest.raises(ValueError, match="expects step 1"):
        solver.step(0, x, x)


def test_unipc_cannot_start_at_pure_noise():
    with pytest.raises(InputError, match="sigma 1.0"):
        UniPCSolver(_plain([1.0, 0.5]))


def test_single_stage_distilled_starts_at_pure_noise():
    config = SchedulerConfig(solver="distilled", stages=SingleStage(), shift=NoShift())
    assert config.level_schedule(0, 3, 8640).sigmas[0] == 1.0
