import pytest
import torch

from helios.conditioning.guidance import ClassifierFree, ClassifierFreeZeroStar, NoGuidance, projection_scale
from helios.errors import InputError


@pytest.fixture
def velocities():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 2, 4, 4, generator=generator) for _ in range(2)]


def test_no_guidance_is_the_conditional_velocity(velocities):
    cond, _ = velocities
    assert NoGuidance().combine(cond, None) is cond
    assert not NoGuidance().needs_negative


def test_classifier_free_leads_away_from_the_unconditional(velocities):
    cond, uncond = velocities
    torch.testing.assert_close(ClassifierFree(scale=3.0).combine(cond, uncond), uncond + 3 * (cond - uncond))


def test_zero_star_projects_the_unconditional_velocity_per_sample(velocities):
    cond, uncond = velocities
    scale = projection_scale(cond, uncond)
    residual = (cond - scale * uncond).flatten(1)
    assert scale.shape == (2, 1, 1, 1, 1)
    torch.testing.assert_close((residual * uncond.flatten(1)).sum(1), torch.zeros(2), atol=1e-4, rtol=0)
    expected = scale * uncond + 5 * (cond - scale * uncond)
    torch.testing.assert_close(ClassifierFreeZeroStar(scale=5.0).combine(cond, uncond), expected)


def test_zero_star_of_a_scaled_pair_is_the_conditional_velocity(velocities):
    cond, _ = velocities
    torch.testing.assert_close(ClassifierFreeZeroStar(scale=7.0).combine(cond, 2 * cond), cond, atol=1e-5, rtol=1e-5)


def test_zero_init_covers_the_first_steps_of_the_coarsest_level():
    guidance = ClassifierFreeZeroStar(scale=5.0, zero_steps=2)
    assert [guidance.zeroes(0, step) for step in range(4)] == [True, True, False, False]
    assert not guidance.zeroes(1, 0)
    assert not ClassifierFreeZeroStar(scale=5.0, zero_steps=0).zeroes(0, 0)


@pytest.mark.parametrize("scale", [1.0, 0.5, -2.0, float("nan")])
def test_scales_without_effect_are_refused(scale):
    for kind in (ClassifierFree, ClassifierFreeZeroStar):
        with pytest.raises(InputError, match="has no effect"):
            kind(scale=scale)


def test_projection_is_computed_in_float32():
    cond, uncond = torch.full((1, 16, 9, 16, 16), 3.0, dtype=torch.bfloat16), torch.full((1, 16, 9, 16, 16), 1.5)
    scale = projection_scale(cond, uncond.bfloat16())
    assert scale.dtype == torch.bfloat16 and scale.item() == 2.0
