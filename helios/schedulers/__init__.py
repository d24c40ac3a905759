"""Noise schedules: shift, pyramid stages, tables, solvers and the renoise between levels. Pure maths, no models."""

from helios.schedulers.config import SchedulerConfig, SolverKind
from helios.schedulers.pairs import LevelPair, latent_pyramid, level_pairs, noise_pyramid
from helios.schedulers.renoise import (
    block_noise_cholesky,
    block_noise_closed_form,
    downsample_mean,
    downsample_noise,
    transition,
    upsample_nearest,
)
from helios.schedulers.shift import DynamicShift, NoShift, Shift, StaticShift, shift_sigma
from helios.schedulers.solvers import DistilledSolver, EulerSolver, Solver, UniPCSolver
from helios.schedulers.stages import PyramidStages, SingleStage, Stage
from helios.schedulers.tables import LevelSchedule, NoiseTable

__all__ = [
    "DistilledSolver",
    "DynamicShift",
    "EulerSolver",
    "LevelPair",
    "LevelSchedule",
    "NoShift",
    "NoiseTable",
    "PyramidStages",
    "SchedulerConfig",
    "Shift",
    "SingleStage",
    "Solver",
    "SolverKind",
    "Stage",
    "StaticShift",
    "UniPCSolver",
    "block_noise_cholesky",
    "block_noise_closed_form",
    "downsample_mean",
    "downsample_noise",
    "latent_pyramid",
    "level_pairs",
    "noise_pyramid",
    "shift_sigma",
    "transition",
    "upsample_nearest",
]
