"""Casting that keeps what must stay in float32."""

import torch
from torch import nn

KEPT_IN_FLOAT32 = ("time_embedder", "scale_shift_table", "norm1", "norm2", "norm3", "history_key_scale")


def keeps_float32(name: str) -> bool:
    """Whether a parameter of that name stays in float32 in a half-precision model."""
    return not set(KEPT_IN_FLOAT32).isdisjoint(name.split("."))


def cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Cast the floating-point parameters of a transformer in place, except those that stay in float32.

    A plain ``model.to(dtype)`` would lower the exceptions too. Returns: the model.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.float32 if keeps_float32(name) else dtype)
    return model
