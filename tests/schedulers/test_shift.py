import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helios.errors import InputError
from helios.schedulers.shift import DynamicShift, NoShift, StaticShift, shift_sigma
from helios.shapes import Geometry

sigmas = st.floats(0.0, 1.0)
factors = st.floats(0.05, 50.0)


@given(sigmas, factors)
def test_shift_is_undone_by_the_inverse_factor(sigma, factor):
    assert shift_sigma(shift_sigma(sigma, factor), 1 / factor) == pytest.approx(sigma, abs=1e-12)


@given(sigmas, sigmas, factors)
def test_shift_keeps_the_order(a, b, factor):
    low, high = sorted((a, b))
    if high - low > 1e-9:
        assert shift_sigma(low, factor) < shift_sigma(high, factor)


@given(factors)
def test_shift_keeps_both_ends(factor):
    assert shift_sigma(0.0, factor) == 0.0
    assert shift_sigma(1.0, factor) == pytest.approx(1.0, abs=1e-15)


@given(st.floats(1e-6, 1.0), factors)
def test_shift_is_the_published_formula(sigma, factor):
    assert shift_sigma(sigma, factor) == pytest.approx(factor / (factor + 1 / sigma - 1), rel=1e-12)


@given(st.floats(0.01, 0.99), st.floats(1.01, 50.0))
def test_a_factor_above_one_leans_towards_noise_and_below_one_towards_data(sigma, factor):
    assert shift_sigma(sigma, factor) > sigma > shift_sigma(sigma, 1 / factor)


def test_a_tensor_is_shifted_like_its_entries():
    sigma_B = torch.tensor([0.0, 0.1, 0.5, 1.0])
    expected = [shift_sigma(value, 1.9192) for value in sigma_B.tolist()]
    assert shift_sigma(sigma_B, 1.9192).dtype == torch.float32
    assert torch.allclose(shift_sigma(sigma_B, 1.9192), torch.tensor(expected), atol=1e-7)


@pytest.mark.parametrize(
    ("level", "tokens", "linear", "exponential"),
    [(0, 540, 0.548072917, 1.7299), (1, 2160, 0.822291667, 2.2757), (2, 8640, 1.919166667, 6.815276705)],
)
def test_factors_of_the_released_sizes(level, tokens, linear, exponential):
    """Conformance checks T5, T6 and T19 (the first half)."""
    assert Geometry(levels=3).noisy_tokens(384, 640, level) == tokens
    assert DynamicShift(kind="linear").factor(tokens) == pytest.approx(linear, abs=1e-9)
    assert DynamicShift(kind="exponential").factor(tokens) == pytest.approx(exponential, rel=3e-5)


def test_the_linear_shift_leans_towards_data_at_the_two_small_levels_only():
    leans = [DynamicShift(kind="linear").factor(tokens) > 1 for tokens in (540, 2160, 8640)]
    assert leans == [False, False, True]


@pytest.mark.parametrize(("tau", "expected"), [(0.02, 38), (0.25, 390), (0.5, 657), (0.727, 836), (0.9, 945)])
def test_score_times_of_distillation(tau, expected):
    """Conformance check T22: the full-resolution linear shift applied to the draw of the score's time."""
    factor = DynamicShift(kind="linear").factor(8640)
    assert round(1000 * shift_sigma(tau, factor)) == expected


@given(st.integers(1, 200_000))
def test_the_ceiling_of_the_exponential_factor_is_off_unless_asked_for(tokens):
    free, clamped = DynamicShift(kind="exponential"), DynamicShift(kind="exponential", max_factor=7.0)
    assert free.factor(tokens) == math.exp(free.mu(tokens))
    assert clamped.factor(tokens) == min(free.factor(tokens), 7.0)


def test_the_ceiling_does_not_touch_the_released_size_and_does_touch_a_larger_one():
    free, clamped = DynamicShift(kind="exponential"), DynamicShift(kind="exponential", max_factor=7.0)
    assert clamped.factor(8640) == free.factor(8640)
    assert clamped.factor(20_000) == 7.0 < free.factor(20_000)


def test_mu_goes_through_both_given_sizes():
    shift = DynamicShift(kind="linear", base_tokens=100, max_tokens=300, base_shift=0.2, max_shift=1.0)
    assert [shift.mu(tokens) for tokens in (100, 200, 300)] == pytest.approx([0.2, 0.6, 1.0])


def test_no_shift_and_static_shift_do_not_look_at_the_size():
    assert {NoShift().factor(tokens) for tokens in (1, 10_000)} == {1.0}
    assert {StaticShift(shift=3.0).factor(tokens) for tokens in (1, 10_000)} == {3.0}


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_static_shift_must_be_positive(value):
    with pytest.raises(InputError, match="positive"):
        StaticShift(shift=value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "cubic"}, "'cubic' is unknown"),
        ({"kind": "linear", "base_tokens": 9, "max_tokens": 9}, "two different sizes"),
        ({"kind": "linear", "max_factor": 7.0}, "exponential kind"),
        ({"kind": "exponential", "max_factor": 0.0}, "positive"),
    ],
)
def test_contradicting_constants_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        DynamicShift(**settings)


def test_a_linear_factor_that_is_not_positive_is_refused():
    with pytest.raises(InputError, match="larger size"):
        DynamicShift(kind="linear", base_shift=-3.0).factor(256)


def test_no_tokens_are_refused():
    with pytest.raises(InputError, match="tokens=0"):
        DynamicShift(kind="linear").factor(0)
