import json
import logging

import numpy as np
import pytest
import torch
from diffusers import HeliosDMDScheduler, HeliosScheduler
from hypothesis import given
from hypothesis import strategies as st

from helios.errors import InputError
from helios.schedulers import (
    DistilledSolver,
    DynamicShift,
    EulerSolver,
    NoShift,
    PyramidStages,
    SchedulerConfig,
    SingleStage,
    StaticShift,
    UniPCSolver,
)

MULTISTEP = {
    "_class_name": "HeliosScheduler",
    "_diffusers_version": "0.37.0.dev0",
    "disable_corrector": [],
    "lower_order_final": True,
    "num_train_timesteps": 1000,
    "predict_x0": True,
    "prediction_type": "flow_prediction",
    "scheduler_type": "unipc",
    "shift": 1.0,
    "solver_order": 2,
    "solver_p": None,
    "solver_type": "bh2",
    "thresholding": False,
    "time_shift_type": "exponential",
    "use_dynamic_shifting": True,
    "use_flow_sigmas": True,
}
BASE = MULTISTEP | {"stages": 1, "stage_range": [0, 1], "gamma": 0.3333333333333333}
MID = MULTISTEP | {"stages": 3, "stage_range": [0, 1 / 3, 2 / 3, 1], "gamma": 0.3333333333333333}
DISTILLED = {
    "_class_name": "HeliosDMDScheduler",
    "_diffusers_version": "0.37.0.dev0",
    "gamma": 0.3333333333333333,
    "num_train_timesteps": 1000,
    "prediction_type": "flow_prediction",
    "scheduler_type": "dmd",
    "shift": 1.0,
    "stage_range": [0, 0.3333333333333333, 0.6666666666666666, 1],
    "stages": 3,
    "time_shift_type": "linear",
    "use_dynamic_shifting": True,
    "use_flow_sigmas": True,
}
PUBLISHED = {"base": BASE, "mid": MID, "distilled": DISTILLED}


# Reading


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_files_are_read(released, name):
    assert SchedulerConfig.from_dict(PUBLISHED[name]) == released[name]


def test_released_configs_know_their_levels(released):
    assert [released[name].levels for name in ("base", "mid", "distilled")] == [1, 3, 3]
    assert released["mid"].num_train_timesteps == 1000


def test_dmd_in_the_multistep_class_is_the_distilled_solver(released):
    """Files of the authors' own code; Diffusers' class builds the tables and then fails at the first step."""
    stray = DISTILLED | {"_class_name": "HeliosScheduler"}
    assert SchedulerConfig.from_dict(stray) == released["distilled"]
    settings = {key: value for key, value in stray.items() if not key.startswith("_")}
    scheduler = HeliosScheduler(**settings)
    scheduler.set_timesteps(2, 0, mu=0.548072917)
    assert scheduler.timesteps.tolist() == pytest.approx(
        released["distilled"].level_schedule(0, 2, 540).timesteps, rel=1e-9
    )
    with pytest.raises(NotImplementedError):
        scheduler.step(torch.zeros(1), scheduler.timesteps[0], torch.zeros(1))


def test_defaults_are_those_of_the_class_that_wrote_the_file():
    multistep = SchedulerConfig.from_dict({"_class_name": "HeliosScheduler", "use_dynamic_shifting": True})
    distilled = SchedulerConfig.from_dict({"_class_name": "HeliosDMDScheduler", "use_dynamic_shifting": True})
    assert multistep == SchedulerConfig(solver="unipc", stages=PyramidStages(), shift=DynamicShift(kind="exponential"))
    assert distilled == SchedulerConfig(solver="distilled", stages=PyramidStages(), shift=DynamicShift(kind="linear"))
    assert HeliosScheduler().config.time_shift_type == "exponential"
    assert HeliosDMDScheduler().config.time_shift_type == "linear"


def test_size_constants_are_optional_extras():
    sizes = {"base_image_seq_len": 100, "max_image_seq_len": 5000, "base_shift": 0.4, "max_shift": 1.3}
    expected = DynamicShift(kind="exponential", base_tokens=100, max_tokens=5000, base_shift=0.4, max_shift=1.3)
    assert SchedulerConfig.from_dict(BASE | sizes).shift == expected


def test_a_static_shift_bends_the_steps_of_one_stage_and_the_borders_of_a_pyramid():
    static = {"shift": 3.0, "use_dynamic_shifting": False, "time_shift_type": "linear"}
    single, pyramid = SchedulerConfig.from_dict(BASE | static), SchedulerConfig.from_dict(MID | static)
    assert single.shift == StaticShift(shift=3.0)
    assert pyramid.shift == NoShift() and pyramid.stages == PyramidStages(table_shift=3.0)
    assert single.level_schedule(0, 2, 1).sigmas[1] == pytest.approx(3 * 0.4995 / (1 + 2 * 0.4995), rel=1e-14)


def test_one_stage_does_not_read_the_range():
    """Diffusers' class writes its default of thirds for a scheduler that was made with ``stages=1``."""
    assert SchedulerConfig.from_dict(BASE | {"stage_range": [0, 1 / 3, 2 / 3, 1]}).stages == SingleStage()


def test_unknown_keys_are_named_and_left_out(caplog):
    with caplog.at_level(logging.WARNING, logger="helios"):
        assert SchedulerConfig.from_dict(BASE | {"frobnicate": 1}) == SchedulerConfig.from_dict(BASE)
    assert "frobnicate" in caplog.text


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_files_raise_no_warning(caplog, name):
    with caplog.at_level(logging.WARNING, logger="helios"):
        SchedulerConfig.from_dict(PUBLISHED[name])
    assert not caplog.records


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "class None"),
        ({"_class_name": "UniPCMultistepScheduler"}, "UniPCMultistepScheduler"),
        (DISTILLED | {"scheduler_type": "unipc"}, "contradicts scheduler_type='unipc'"),
        (BASE | {"scheduler_type": "heun"}, "scheduler_type='heun' is unknown"),
        (BASE | {"scheduler_type": ["dmd"]}, "is unknown"),
        (BASE | {"prediction_type": "epsilon"}, "prediction_type='epsilon'"),
        (BASE | {"use_flow_sigmas": False}, "use_flow_sigmas=False"),
        (BASE | {"thresholding": True}, "thresholding=True"),
        (BASE | {"solver_order": 3}, "solver_order=3"),
        (BASE | {"solver_type": "bh1"}, "solver_type='bh1'"),
        (BASE | {"predict_x0": False}, "predict_x0=False"),
        (BASE | {"lower_order_final": False}, "lower_order_final=False"),
        (BASE | {"disable_corrector": [0]}, r"disable_corrector=\[0\]"),
        (BASE | {"shift": 3.0}, "contradicts use_dynamic_shifting"),
        (BASE | {"shift": 3.0, "use_dynamic_shifting": False}, "exponent"),
        (BASE | {"shift": "three"}, "shift='three' is not a number"),
        (BASE | {"use_dynamic_shifting": "yes"}, "true or false"),
        (BASE | {"time_shift_type": "cubic"}, "'cubic'"),
        (BASE | {"base_image_seq_len": "many"}, "base_image_seq_len='many'"),
        (MID | {"stages": 2}, "stages=2 contradicts stage_range"),
        (MID | {"stages": 0}, "stages=0"),
        (MID | {"stages": 2.5}, "stages=2.5"),
        (MID | {"stage_range": [0, 0.5, "x", 1]}, "stage_range='x'"),
        (MID | {"stage_range": None}, "stage_range=None"),
        (MID | {"gamma": 0.5}, "gamma=0.5"),
        (MID | {"num_train_timesteps": 4000}, "num_train_timesteps=4000"),
    ],
)
def test_contradictions_and_unsupported_settings_are_refused(config, message):
    with pytest.raises(InputError, match=message):
        SchedulerConfig.from_dict(config)


def test_a_missing_shift_type_is_refused_where_its_default_is_ambiguous():
    stray = {key: value for key, value in DISTILLED.items() if key != "time_shift_type"}
    with pytest.raises(InputError, match="time_shift_type is missing"):
        SchedulerConfig.from_dict(stray | {"_class_name": "HeliosScheduler"})
    assert SchedulerConfig.from_dict(stray).shift == DynamicShift(kind="linear")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "dpm", "stages": SingleStage()}, "solver 'dpm'"),
        ({"solver": "unipc", "stages": PyramidStages(), "shift": StaticShift(shift=2.0)}, "table_shift"),
        (
            {"solver": "unipc", "stages": PyramidStages(table_shift=2.0), "shift": DynamicShift(kind="linear")},
            "excludes a dynamic shift",
        ),
    ],
)
def test_settings_that_exclude_each_other_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        SchedulerConfig(**settings)


# Writing

CONFIGS = [
    SchedulerConfig(solver="unipc", stages=SingleStage(), shift=DynamicShift(kind="exponential")),
    SchedulerConfig(solver="unipc", stages=PyramidStages(), shift=DynamicShift(kind="exponential")),
    SchedulerConfig(solver="euler", stages=PyramidStages(gamma=0.25), shift=NoShift()),
    SchedulerConfig(solver="euler", stages=SingleStage(), shift=StaticShift(shift=2.5)),
    SchedulerConfig(solver="unipc", stages=PyramidStages(stage_range=(0.0, 0.4, 1.0), table_shift=3.0)),
    SchedulerConfig(solver="distilled", stages=PyramidStages(), shift=DynamicShift(kind="linear")),
    SchedulerConfig(solver="distilled", stages=PyramidStages(), shift=DynamicShift(kind="linear", base_tokens=64)),
    SchedulerConfig(solver="distilled", stages=SingleStage(), shift=NoShift()),
    SchedulerConfig(solver="unipc", stages=SingleStage(), shift=DynamicShift(kind="exponential", max_factor=7.0)),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_json_round_trip(config):
    assert SchedulerConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("config", CONFIGS)
def test_diffusers_loads_what_we_write_and_keeps_every_value(config, tmp_path):
    written = config.to_dict()
    (tmp_path / "scheduler_config.json").write_text(json.dumps(written))
    kind = HeliosDMDScheduler if config.solver == "distilled" else HeliosScheduler
    loaded = kind.from_pretrained(tmp_path)
    assert written["_class_name"] == kind.__name__
    for key, value in written.items():
        if not key.startswith("_"):
            assert loaded.config[key] == value, key
    loaded.save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "scheduler_config.json").read_text())
    assert SchedulerConfig.from_dict(again) == config


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_written_files_equal_the_published_ones(released, name):
    written = released[name].to_dict()
    assert written == {key: value for key, value in PUBLISHED[name].items() if key != "_diffusers_version"}


def test_written_settings_can_be_changed_without_changing_the_next_file(released):
    released["base"].to_dict()["disable_corrector"].append(0)
    assert released["base"].to_dict()["disable_corrector"] == []


# Schedules

STEPS = (1, 2, 3, 4, 20, 50)


def _check_tables(ours, sigmas, timesteps, rtol):
    np.testing.assert_allclose(ours.sigmas, sigmas.numpy(), rtol=rtol)
    np.testing.assert_allclose(ours.timesteps, timesteps.numpy(), rtol=rtol)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("tokens", [48, 8640])
def test_parity_of_multistep_tables(published, stages, shift, steps, tokens):
    config = SchedulerConfig(solver="unipc", stages=stages, shift=shift)
    for level in range(stages.levels):
        sigmas, timesteps = published(config).set_timesteps(level, steps, tokens)
        ours = config.level_schedule(level, steps, tokens)
        _check_tables(ours, sigmas, timesteps, 1e-12)
        given = timesteps if stages.levels == 1 else timesteps.to(torch.int64).double()
        np.testing.assert_allclose(ours.model_timesteps, given.numpy(), rtol=1e-12)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("tokens", [48, 8640])
@pytest.mark.parametrize("amplified", [False, True])
def test_parity_of_distilled_tables(published, stages, shift, steps, tokens, amplified):
    config = SchedulerConfig(solver="distilled", stages=stages, shift=shift)
    for level in range(stages.levels):
        sigmas, timesteps = published(config).set_timesteps(level, steps, tokens, amplified)
        ours = config.level_schedule(level, steps, tokens, amplified=amplified)
        # At one stage the published class keeps its grid in float32, and zeros (the final sigma) stay zeros.
        _check_tables(ours, sigmas, timesteps, 1e-12 if stages.levels > 1 else 5e-5)
        assert ours.steps == (2 * steps if amplified else steps)
        if stages.levels > 1:
            assert list(ours.model_timesteps) == timesteps.to(torch.int64).tolist()


def test_reference_numbers_of_base(released):
    schedule = released["base"].level_schedule(0, 50, 8640)
    picked = [schedule.sigmas[index] for index in (0, 1, 2, 25, 48, 49)]
    expected = [0.999853146, 0.996865509, 0.993772315, 0.871822147, 0.220986058, 0.121994752]
    assert picked == pytest.approx(expected, abs=5e-10)
    assert schedule.timesteps == pytest.approx([1000 * sigma for sigma in schedule.sigmas[:-1]])
    assert schedule.model_timesteps == schedule.timesteps


MID_SIGMAS = [0.999421693, 0.968343446, 0.608954921, 0.0891128449, 0.00172692694]


@pytest.mark.parametrize(
    ("level", "tokens", "sigmas", "timesteps"),
    [
        (0, 540, MID_SIGMAS, [998.852249, 990.912122, 899.092575, 766.279029, 743.952954]),
        (1, 540, MID_SIGMAS, [743.04938, 731.945609, 603.54171, 417.810268, 386.588646]),
        (
            2,
            2160,
            [0.99956033, 0.97575167, 0.671976948, 0.114022396, 0.00227053967],
            [385.445065, 376.297055, 259.577576, 45.1944843, 2.25602533],
        ),
    ],
)
def test_reference_numbers_of_mid(released, level, tokens, sigmas, timesteps):
    schedule = released["mid"].level_schedule(level, 20, tokens)
    assert [schedule.sigmas[index] for index in (0, 1, 10, 18, 19)] == pytest.approx(sigmas, rel=1e-8)
    assert [schedule.timesteps[index] for index in (0, 1, 10, 18, 19)] == pytest.approx(timesteps, rel=1e-8)
    assert schedule.model_timesteps[0] == float(int(timesteps[0]))


@pytest.mark.parametrize(
    ("level", "tokens", "amplified", "sigmas", "timesteps"),
    [
        (0, 540, False, [0.998176929, 0.354035138], [998.534227, 833.963564]),
        (1, 540, False, [0.998176929, 0.354035138], [742.604645, 512.462859]),
        (2, 2160, False, [0.998784149, 0.45123993], [385.146833, 174.763707]),
        (
            0,
            540,
            True,
            [0.998176929, 0.621189268, 0.354035138, 0.154818448],
            [998.534227, 902.218307, 833.963564, 783.066039],
        ),
        (
            1,
            540,
            True,
            [0.998176929, 0.621189268, 0.354035138, 0.154818448],
            [742.604645, 607.912851, 512.462859, 441.285852],
        ),
        (
            2,
            2160,
            True,
            [0.998784149, 0.711008261, 0.45123993, 0.21558017],
            [385.146833, 274.574593, 174.763707, 84.2160669],
        ),
    ],
)
def test_reference_numbers_of_distilled(released, level, tokens, amplified, sigmas, timesteps):
    schedule = released["distilled"].level_schedule(level, 2, tokens, amplified=amplified)
    assert schedule.sigmas == pytest.approx([*sigmas, 0.0], abs=5e-9)
    assert schedule.timesteps == pytest.approx(timesteps, abs=5e-7)


@given(st.integers(1, 60), st.integers(1, 30_000), st.integers(0, 2), st.sampled_from(["linear", "exponential"]))
def test_schedules_fall_to_zero_inside_their_levels_range(steps, tokens, level, kind):
    stages = PyramidStages()
    config = SchedulerConfig(solver="unipc", stages=stages, shift=DynamicShift(kind=kind))
    schedule, stage = config.level_schedule(level, steps, tokens), stages.stage(level)
    assert schedule.steps == steps and schedule.sigmas[-1] == 0.0 and schedule.sigmas[0] < 1.0
    assert stage.first_timestep >= schedule.timesteps[0] and schedule.timesteps[-1] >= stage.last_timestep
    assert all(0 <= a - b < 1 for a, b in zip(schedule.timesteps, schedule.model_timesteps))


@pytest.mark.parametrize(
    ("arguments", "amplified", "message"),
    [
        ((3, 20, 540), False, "level=3"),
        ((-1, 20, 540), False, "level=-1"),
        ((0, 0, 540), False, "steps=0"),
        ((0, 20, 0), False, "tokens=0"),
        ((0, 20, 540), True, "amplification"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(released, arguments, amplified, message):
    with pytest.raises(InputError, match=message):
        released["mid"].level_schedule(*arguments, amplified=amplified)


# Solvers


def test_every_kind_makes_its_solver(released):
    start = torch.zeros(1, 1, 1, 2, 2)
    kinds = {"unipc": UniPCSolver, "euler": EulerSolver, "distilled": DistilledSolver}
    for kind, expected in kinds.items():
        config = SchedulerConfig(solver=kind, stages=PyramidStages(), shift=DynamicShift(kind="linear"))
        assert type(config.make_solver(config.level_schedule(0, 2, 540), start)) is expected


def test_solvers_are_fresh(released):
    schedule = released["mid"].level_schedule(0, 3, 540)
    x = torch.ones(1, 1, 1, 2, 2)
    used = released["mid"].make_solver(schedule)
    used.step(0, x, x)
    torch.testing.assert_close(released["mid"].make_solver(schedule).step(0, x, x), UniPCSolver(schedule).step(0, x, x))


def test_the_distilled_solver_needs_a_start(released):
    with pytest.raises(ValueError, match="start"):
        released["distilled"].make_solver(released["distilled"].level_schedule(0, 2, 540))
