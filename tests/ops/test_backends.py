"""Which backend runs: ``auto`` says once what it took, for every operation there is."""

import logging

import pytest
import torch

from helios.ops import adaln, attention, backends, channel_norm, fp8_linear, gelu, linear, rms_norm, rope

X, ROWS, TABLE = torch.ones(1, 3, 8), torch.ones(1, 1, 8), torch.ones(1, 3, 2, 2)
ONES = torch.ones(3)
CALLS = {
    "attention": lambda x: attention.attention(*[x.unflatten(-1, (2, 4))] * 3),
    "channel_norm_silu": lambda x: channel_norm.channel_norm_silu_into(
        x.view(1, 3, 8, 1, 1) + 1, x.view(1, 3, 8, 1, 1), ONES
    ),
    "gated_residual": lambda x: adaln.gated_residual(x, x, ROWS, (3,)),
    "gelu_tanh": gelu.gelu_tanh,
    "layer_norm_modulate": lambda x: adaln.layer_norm_modulate(x, ROWS, ROWS, (3,), eps=1e-6),
    "fp8_linear": lambda x: fp8_linear.fp8_linear(x, *fp8_linear.quantise_rows(x[0]), None),
    "linear": lambda x: linear.linear(x, torch.ones(5, 8, dtype=x.dtype)),
    "norm_rotate": lambda x: rope.norm_rotate(x, torch.ones(8), TABLE, eps=1e-6),
    "rms_norm": lambda x: rms_norm.rms_norm(x, torch.ones(8), eps=1e-6),
    "rotate": lambda x: rope.rotate(x.unflatten(-1, (2, 4)), TABLE),
}


def test_every_operation_is_asked_below():
    assert set(CALLS) == {op for op, _ in backends._LOADERS}


@pytest.mark.parametrize("op", CALLS)
def test_auto_says_once_what_it_took(op, caplog, monkeypatch):
    """Once for each precision; a choice for training is another one."""
    monkeypatch.setattr(backends, "_LOGGED", set())

    def lines():
        return [line for line in caplog.messages if line.startswith(f"{op} on cpu in ")]

    with caplog.at_level(logging.INFO, logger=backends.__name__):
        for _ in range(3):
            CALLS[op](X)
        assert len(lines()) == 1
        CALLS[op](X.bfloat16())
        assert len(lines()) == 2
    named = {line.rpartition(" ")[2] for line in lines()}
    assert named <= set(backends.backends(op))


def test_training_takes_another_backend_and_says_so(caplog, monkeypatch):
    monkeypatch.setattr(backends, "_LOGGED", set())
    with caplog.at_level(logging.INFO, logger=backends.__name__):
        gelu.gelu_tanh(X)
        gelu.gelu_tanh(X.clone().requires_grad_())
    assert caplog.messages == [
        f"gelu_tanh on cpu in torch.float32: auto takes {name}" for name in ("sigmoid", "trained")
    ]
