"""The tensor list computed from a configuration is that of the published class."""

from math import prod

import pytest
import torch

from helios.checkpoints.layout import (
    TRANSFORMER_DEFAULTS,
    Variant,
    complete_transformer_config,
    published_scheduler,
    stays_float32,
    transformer_shapes,
)
from helios.checkpoints.random import PRESETS
from helios.errors import InputError

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
    kept = [key for key in shapes if stays_float32(key) and not key.startswith("condition_embedder")]
    assert all("scale_shift_table" in key or "norm2" in key for key in kept)
    assert not stays_float32("blocks.0.attn1.norm_q.weight") and stays_float32("blocks.0.norm2.bias")


def test_defaults_are_those_of_the_published_class():
    import inspect

    from diffusers import HeliosTransformer3DModel

    parameters = inspect.signature(HeliosTransformer3DModel.__init__).parameters
    defaults = {name: value.default for name, value in parameters.items() if name != "self"}
    listed = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    assert listed == TRANSFORMER_DEFAULTS


@pytest.mark.parametrize("variant", list(Variant))
def test_the_published_scheduler_loads_in_diffusers_without_unknown_keys(variant):
    import inspect

    import diffusers

    config = published_scheduler(variant)
    known = inspect.signature(getattr(diffusers, variant.scheduler_class).__init__).parameters
    stray = {key for key in config if not key.startswith("_")} - set(known)
    assert stray == ({"scheduler_type"} if variant is Variant.DISTILLED else set())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": [1, 1, 1]}, r"patch_size=\[1, 1, 1\] is not supported: Helios transformers use \[1, 2, 2\]"),
        ({"added_kv_proj_dim": 64}, "added_kv_proj_dim=64 has no effect in Helios: set it to null"),
        ({"rope_dim": [8, 6, 4]}, "does not fit attention_head_dim=20: use three even widths that sum to it"),
        ({"rope_dim": [8, 7, 5]}, "does not fit attention_head_dim=20: use three even widths that sum to it"),
        ({"history_scale_mode": "both"}, "history_scale_mode='both' is unknown: use 'per_head' or 'scalar'"),
        ({"freq_dim": 63}, "freq_dim=63 is odd"),
        ({"num_experts": 2}, "unknown key 'num_experts'"),
    ],
)
def test_configurations_that_nothing_implements_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        complete_transformer_config(TINY | changes)
