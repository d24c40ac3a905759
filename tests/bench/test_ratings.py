import pytest

from helios.bench.ratings import (
    BASIC,
    CORRECTED,
    DRIFT_STEPS,
    DRIFTING,
    OFFICIAL,
    Steps,
    offline_drift,
    offline_total,
    rate_offline,
    rate_throughput,
    total_with_throughput,
)
from helios.errors import InputError

# Raw scores published with the benchmark's two reference clips.
REFERENCE = {
    "aesthetic": 0.6564263701438904,
    "motion_amplitude": 0.12899818271398544,
    "motion_smoothness": 0.9922347277689807,
    "semantic": 0.2817579507827759,
    "naturalness": 0.5,
    "drifting_aesthetic": 0.027865678071975708,
    "drifting_motion_smoothness": 0.0009624073235373065,
    "drifting_semantic": 0.006637156009674072,
    "drifting_naturalness": 0.0,
}
SHORT_TABLE = {
    "aesthetic": (0.70, 0.65, 0.60, 0.55, 0.50, 0.45, 0.40, 0.35, 0.30),
    "motion_amplitude": (0.45, 0.40, 0.35, 0.30, 0.25, 0.20, 0.15, 0.10, 0.05),
    "motion_smoothness": (0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.93, 0.92, 0.91),
    "semantic": (0.30, 0.29, 0.28, 0.27, 0.26, 0.25, 0.24, 0.23, 0.22),
    "naturalness": (0.65, 0.60, 0.55, 0.50, 0.45, 0.40, 0.30, 0.25, 0.20),
}
DRIFT_TABLE = {
    **dict.fromkeys(DRIFTING[:3], (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09)),
    "drifting_naturalness": (0.06, 0.08, 0.10, 0.12, 0.14, 0.16, 0.18, 0.20, 0.22),
}


def ratings(rules, mode):
    return {name: rules.rate(name, REFERENCE[name], mode) for name in rules.metrics(mode)}


def test_reference_ratings_and_totals():
    long = ratings(OFFICIAL, "long")
    assert [long[name] for name in (*BASIC, *DRIFTING)] == [9, 3, 10, 8, 7, 8, 10, 10, 10]
    assert OFFICIAL.total(long, "long") == 8.247
    assert OFFICIAL.total(ratings(OFFICIAL, "short"), "short") == 7.45


@pytest.mark.parametrize("metric", BASIC)
def test_every_short_edge_from_above(metric):
    for place, threshold in enumerate(SHORT_TABLE[metric]):
        assert OFFICIAL.rate(metric, threshold, "short") == 10 - place
        assert OFFICIAL.rate(metric, threshold - 1e-9, "short") == 9 - place
    assert OFFICIAL.rate(metric, 0.0, "short") == OFFICIAL.rate(metric, -1.0, "short") == 1
    assert OFFICIAL.rate(metric, 7.0, "short") == 10


@pytest.mark.parametrize("metric", DRIFTING)
def test_every_drifting_edge_from_below(metric):
    for place, threshold in enumerate(DRIFT_TABLE[metric]):
        assert OFFICIAL.rate(metric, threshold, "long") == 10 - place
        assert OFFICIAL.rate(metric, threshold + 1e-9, "long") == 9 - place
    assert OFFICIAL.rate(metric, 1.0, "long") == 1


def test_long_aesthetic_never_gives_three_or_two_and_the_corrected_table_does():
    sweep = [i / 1000 for i in range(1001)]
    assert {OFFICIAL.rate("aesthetic", value, "long") for value in sweep} == {1, 4, 5, 6, 7, 8, 9, 10}
    assert OFFICIAL.rate("aesthetic", 0.3999, "long") == 1
    assert {CORRECTED.rate("aesthetic", value, "long") for value in sweep} == set(range(1, 11))


@pytest.mark.parametrize("metric", [name for name in BASIC if name != "aesthetic"])
def test_the_other_basic_metrics_rate_long_as_short(metric):
    assert all(OFFICIAL.rate(metric, i / 1000, "long") == OFFICIAL.rate(metric, i / 1000, "short") for i in range(1001))


def test_weights_sum_as_published():
    assert sum(OFFICIAL.weights["short"].values()) == pytest.approx(1.0)
    assert sum(OFFICIAL.weights["long"].values()) == pytest.approx(0.996)
    assert sum(CORRECTED.weights["long"].values()) == pytest.approx(1.0)


def test_a_missing_metric_adds_nothing():
    assert OFFICIAL.total({"semantic": 10}, "short") == 3.5
    assert OFFICIAL.total({}, "long") == 0


@pytest.mark.parametrize(
    ("fps", "official"), [(0.5, 1), (3.2, 1), (3.2001, 2), (19.53, 7), (22.13, 7), (31.9, 10), (32, 10), (90, 10)]
)
def test_throughput_formula(fps, official):
    assert rate_throughput(fps) == official


def test_throughput_as_the_paper_table_rounds_it():
    assert [rate_throughput(fps, "paper-table") for fps in (19.53, 22.13)] == [6, 7]
    assert total_with_throughput(6.34, rate_throughput(19.53, "paper-table")) == 6.94
    assert total_with_throughput(6.18, rate_throughput(22.13, "paper-table")) == 6.88


def test_offline_drift_weighs_the_worst_statistic():
    even = dict.fromkeys(DRIFT_STEPS, 8)
    assert offline_drift(even) == 8
    assert offline_drift({**even, "hist_drift": 1}) == pytest.approx(0.5 * 7 + 0.5, abs=1e-4)
    assert offline_drift({name: 8 for name in list(DRIFT_STEPS)[1:]}) is None


def test_offline_drift_of_the_reference_clips():
    """Statistics measured on the two untouched clips, and the scores published for them in our specification."""
    clip_2 = (0.0629, 0.1745, 0.0497, 0.0000, 0.0127, 0.0596, 0.00187)
    clip_239 = (0.0439, 0.1401, 0.2149, 0.0004, 0.0721, 0.0338, 0.00048)
    for values, expected in ((clip_2, 8.57), (clip_239, 9.14)):
        assert offline_drift(rate_offline(dict(zip(DRIFT_STEPS, values)))) == pytest.approx(expected, abs=0.005)


def test_offline_total_needs_all_its_parts():
    perfect = dict.fromkeys((*DRIFT_STEPS, "all_acc", "smoothness_dis", "seam_max"), 10)
    assert offline_total(perfect) == 10
    assert offline_total({**perfect, "all_acc": 1}) == pytest.approx(6.4)
    assert offline_total({name: 10 for name in perfect if name != "all_acc"}) is None


def test_values_that_are_missing_get_no_rating():
    assert rate_offline({"flicker": None, "seam_max": 1.0, "unknown": 3.0}) == {"seam_max": 10}


def test_nonsense_is_refused():
    with pytest.raises(InputError, match="thresholds"):
        Steps((0.1, 0.2))
    with pytest.raises(InputError, match="mode='medium'"):
        OFFICIAL.metrics("medium")
    with pytest.raises(InputError, match="throughput rule"):
        rate_throughput(10, "floor")
