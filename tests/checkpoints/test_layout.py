"""The tensor list computed from a configuration is that of the published class."""

from math import prod

import pytest
import torch

from helios.checkpoints.layout import (
    VAE_DEFAULTS,
    Variant,
    complete_transformer_config,
    published_scheduler,
    transformer_shapes,
)
from helios.checkpoints.random import PRESETS
from helios.errors import InputError
from helios.models.transformer.precision import keeps_float32

TINY = PRESETS["tiny"].transformer_config()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"is_amplify_history": True},
        {"is_amplify_history": True, "history_scale_mode": "scalar"},
        {"cross_attn_norm": False},
        {"has_multi_term_memory_patch": False},
        {"out_channels": 8, "num_layers": 1},
    ],
)
def test_shapes_are_those_of_the_published_class(changes):
    from diffusers import HeliosTransformer3DModel

    with torch.device("meta"):
        oracle = HeliosTransformer3DModel(**(TINY | changes))
    assert transformer_shapes(TINY | changes) == {key: tuple(value.shape) for key, value in oracle.state_dict().items()}


def test_the_released_models_have_1101_tensors_and_14_billion_numbers():
    shapes = transformer_shapes({})
    assert len(shapes) == 1101
    assert sum(map(prod, shapes.values())) == 14_312_427_584
    assert sum(prod(shape) for key, shape in shapes.items() if key.startswith("blocks.7.")) == 351_394_304
    kept = sum(prod(shape) for key, shape in shapes.items() if keeps_float32(key))
    time_mlp = 256 * 5120 + 5120 + 5120 * 5120 + 5120
    assert kept - 40 * (6 * 5120 + 2 * 5120) - 2 * 5120 == time_mlp


def test_vae_defaults_are_those_of_the_published_class():
    from helios.models.vae.vae import default_config

    assumed = default_config()
    assert {key: assumed[key] for key in VAE_DEFAULTS} == VAE_DEFAULTS


@pytest.mark.parametrize("variant", list(Variant))
def test_the_published_scheduler_loads_in_diffusers_without_unknown_keys(variant):
    import inspect

    import diffusers

    config = published_scheduler(variant)
    known = inspect.signature(getattr(diffusers, variant.scheduler_class).__init__).parameters
    stray = {key for key in config if not key.startswith("_")} - set(known)
    assert stray == ({"scheduler_type"} if variant is Variant.DISTILLED else set())


def test_configurations_that_nothing_implements_are_refused():
    with pytest.raises(InputError, match="patch_size"):
        complete_transformer_config(TINY | {"patch_size": [1, 1, 1]})
    with pytest.raises(InputError, match="num_experts"):
        transformer_shapes(TINY | {"num_experts": 2})
