"""Runs that are compared with each other differ in what their name says and in nothing else."""

import pytest

import recipes
from helios.training.config import differences, to_plain
from helios.training.phase import After, Scratch
from helios.training.sample import cut
from helios.training.seeds import Draws
from recipes import ablations, toy
from tests.training.clips import GEOMETRY, clip

CORRUPTION, MIX = "stage.tasks.corruption.", "stage.tasks.mix."


@pytest.mark.parametrize(
    "name, against, allowed",
    [
        ("reseeded", "reference", ("run.seed",)),
        ("undamaged", "reference", (CORRUPTION,)),
        ("noise_only", "reference", (CORRUPTION,)),
        ("blur_only", "reference", (CORRUPTION,)),
        ("no_anchor", "reference", (MIX + "anchored",)),
        ("no_i2v", "reference", (MIX + "i2v", MIX + "full")),
        ("base", "reference", ("stage.type", "stage.law", "stage.draws", "stage.sparse", "run.steps")),
        ("dmd_only", "ode_then_dmd", ("start.phase", "run.steps")),
        ("dmd_gan", "dmd", ("stage.adversary.",)),
    ],
)
def test_two_runs_differ_in_one_thing(name, against, allowed):
    one, other = (getattr(ablations, phase)() for phase in (name, against))
    changed = set(differences(to_plain(one), to_plain(other))) - {"name"}
    assert changed and all(key.startswith(allowed) for key in changed)
    assert {one.name, other.name} == {f"ablations.{name}", f"ablations.{against}"}


def test_every_start_and_teacher_is_a_phase_of_the_workspace():
    phases = [getattr(ablations, name)() for name in ablations.PHASES]
    known = {*toy.PHASES, *(phase.name for phase in phases)}
    assert {phase.start.phase for phase in phases if isinstance(phase.start, After)} <= known
    assert len({phase.name for phase in phases} | set(toy.PHASES)) == len(phases) + len(toy.PHASES)
    assert isinstance(recipes.origin("ablations.base"), Scratch) and recipes.origin("ablations") == toy.vae().start


def test_budgets_are_equal():
    mid, base = ablations.reference(), ablations.base()
    one_level_s, full_size_s = ablations.ONE_LEVEL_STEP_S, ablations.FULL_SIZE_STEP_S
    assert abs(mid.run.steps * one_level_s - base.run.steps * full_size_s) <= full_size_s
    parts = [ablations.ode().run.steps, ablations.ode_then_dmd().run.steps]
    assert sum(parts) == ablations.dmd_only().run.steps
    assert ablations.ode_then_dmd().start == After(phase=ablations.ode().name)
    assert ablations.ode().data == toy.ode().data  # recorded once, for both


def test_without_the_anchor_its_slot_is_empty_and_the_window_is_as_ever():
    clips, draws = [clip(4, seed=seed) for seed in range(12)], Draws(0, 0, tuple(range(12)))
    sample = cut(clips, draws, GEOMETRY)
    shown, hidden = (
        getattr(ablations, name)().stage.tasks.mix.drop(sample, draws, GEOMETRY) for name in ("reference", "no_anchor")
    )
    assert shown.anchor_BCTHW.abs().max() > 0 and hidden.anchor_BCTHW.abs().max() == 0
    assert not hidden.anchor_valid_B1.any() and hidden.window_BCTHW.equal(shown.window_BCTHW)
