"""Attention: backends equal the formula, packed segments equal separate calls, missing packages are said."""

import logging

import pytest
import torch

from helios.errors import InputError
from helios.ops import backends as registry
from helios.ops.attention import attention


def qkv(batch=2, queries=5, keys=7, heads=3, width=8, dtype=torch.float32):
    torch.manual_seed(queries * 10 + keys)
    return [torch.randn(batch, n, heads, width).to(dtype) for n in (queries, keys, keys)]


@pytest.mark.parametrize("backend", ["auto", "sdpa"])
@pytest.mark.parametrize("shape", [dict(queries=1, keys=1), dict(), dict(queries=33, keys=65, heads=1, width=20)])  # noqa: C408
def test_equals_the_formula_forward_and_backward(shape, backend):
    tensors = [t.requires_grad_() for t in qkv(**shape)]
    results = []
    for name in (backend, "reference"):
        out = attention(*tensors, backend=name)
        results.append((out, *torch.autograd.grad(out.square().sum(), tensors)))
    for ours, expected in zip(*results):
        torch.testing.assert_close(ours, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
def test_packed_segments_do_not_see_each_other(backend):
    q, k, v = qkv(queries=9, keys=12)
    packed = attention(q, k, v, q_lengths=(2, 4, 3), kv_lengths=(5, 4, 3), backend=backend)
    parts = zip(q.split((2, 4, 3), 1), k.split((5, 4, 3), 1), v.split((5, 4, 3), 1))
    expected = torch.cat([attention(*part, backend=backend) for part in parts], dim=1)
    torch.testing.assert_close(packed, expected)


def test_keys_of_another_dtype_take_the_dtype_of_the_queries():
    q, k, v = qkv(dtype=torch.bfloat16)
    assert attention(q, k.float(), v).dtype == torch.bfloat16


@pytest.mark.parametrize(("backend", "package"), [("flash3", "flash_attn_interface"), ("flash4", "flash_attn")])
def test_a_missing_package_asked_for_by_name_is_an_error(backend, package, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(InputError, match="not installed.*backend='auto'"):
        attention(*qkv(), backend=backend)


def test_an_unknown_backend_lists_the_known_ones():
    with pytest.raises(InputError, match="'flsh'.*auto or one of cudnn, flash3, flash4, reference, sdpa"):
        attention(*qkv(), backend="flsh")


@pytest.mark.parametrize("extra", [(), (None,)])
def test_a_flash_kernel_is_called_with_our_layout(extra, monkeypatch):
    class FlashPackage:
        @staticmethod
        def flash_attn_func(q, k, v):
            out = attention(q, k, v, backend="reference")
            return (out, *extra) if extra else out

    monkeypatch.setitem(__import__("sys").modules, "flash_attn_interface", FlashPackage)
    monkeypatch.setattr(registry, "_LOADED", {})
    q, k, v = qkv()
    torch.testing.assert_close(attention(q, k, v, backend="flash3"), attention(q, k, v))


def test_auto_says_once_what_it_took(caplog, monkeypatch):
    monkeypatch.setattr(registry, "_LOGGED", set())
    with caplog.at_level(logging.INFO, logger="helios.ops.backends"):
        attention(*qkv())
        attention(*qkv())
    assert [r.getMessage() for r in caplog.records] == ["attention on cpu in torch.float32: auto takes sdpa"]
