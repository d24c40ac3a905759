import logging

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from helios.errors import InputError
from helios.ops import conv3d
from helios.ops.conv3d import causal_conv3d, frame_conv2d, open_window, upsample_conv2d, window_conv3d

FAST = ["native", pytest.param("onednn", marks=pytest.mark.skipif(not conv3d.onednn_available(), reason="no oneDNN"))]
# batch, channels, output channels, frames, height, width, kernel: odd sizes, one pixel, one frame, RGB out, 1x1x1, time only
CASES = [
    (1, 8, 8, 5, 6, 10, (3, 3, 3)),
    (2, 3, 5, 4, 7, 3, (3, 3, 3)),
    (1, 8, 3, 3, 4, 6, (3, 3, 3)),
    (2, 8, 3, 2, 5, 8, (3, 3, 3)),
    (1, 7, 4, 2, 3, 5, (3, 3, 3)),
    (1, 4, 6, 1, 1, 1, (3, 3, 3)),
    (1, 5, 9, 3, 2, 3, (1, 1, 1)),
    (3, 6, 2, 4, 3, 2, (3, 1, 1)),
    (1, 6, 4, 5, 3, 2, (3, 1, 1)),
]


def draw(case, seed=0):
    batch, channels, out, frames, height, width, kernel = case
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, channels, frames, height, width, generator=generator)
    weight = (
        torch.randn(out, channels, *kernel, generator=generator) / (channels * kernel[0] * kernel[1] * kernel[2]) ** 0.5
    )
    return x, weight, torch.randn(out, generator=generator)


def causal_definition(x, weight, bias):
    frames, height, width = (size - 1 for size in weight.shape[2:])
    padded = F.pad(x, (width // 2, width // 2, height // 2, height // 2, frames, 0))
    return F.conv3d(padded, weight, bias)


@pytest.mark.parametrize("backend", ["reference", "auto", *FAST])
@pytest.mark.parametrize("case", CASES)
def test_causal_convolution_equals_explicit_padding(case, backend):
    x, weight, bias = draw(case)
    expected = causal_definition(x, weight, bias)
    torch.testing.assert_close(causal_conv3d(x, weight, bias, backend=backend), expected, rtol=0, atol=5e-6)
    without_bias = causal_conv3d(x, weight, backend=backend)
    torch.testing.assert_close(without_bias, causal_definition(x, weight, None), rtol=0, atol=5e-6)


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize("case", CASES)
def test_a_stream_handing_over_its_past_equals_the_whole(case, backend):
    x, weight, bias = draw(case)
    past_frames = weight.shape[2] - 1
    whole = causal_conv3d(x, weight, bias, backend=backend)
    parts, past = [], None
    for part in x.split(1, dim=2):
        window = open_window(part, past_frames, past)
        parts.append(window_conv3d(window, weight, bias, backend=backend))
        past = window[:, :, 1:].clone() if past_frames else None
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, rtol=0, atol=5e-6)


def gradients(tensors, forward):
    leaves = [t.clone().requires_grad_(True) for t in tensors]
    out = forward(*leaves)
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(7))).sum().backward()
    return [out.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("time_stride", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_the_reference(case, time_stride, backend):
    x, weight, bias = draw(case)
    window = open_window(x, weight.shape[2] - 1)

    def run(name):
        return gradients((window, weight, bias), lambda *t: window_conv3d(*t, time_stride=time_stride, backend=name))

    for ours, expected in zip(run(backend), run("reference"), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", FAST)
def test_a_gradient_is_only_computed_where_it_is_asked_for(backend):
    x, weight, bias = draw(CASES[0])
    weight.requires_grad_(True)
    window_conv3d(open_window(x, 2), weight, bias, backend=backend).sum().backward()
    assert weight.grad is not None and x.grad is None and bias.grad is None


@pytest.mark.parametrize("record", [False, True])
@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_residual_is_added(backend, record):
    x, weight, bias = draw(CASES[0])
    residual = torch.randn(1, 8, 5, 6, 10)
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        given_residual = residual.clone(memory_format=layout)
        weight.requires_grad_(record)
        out = window_conv3d(open_window(x, 2), weight, bias, residual=given_residual, backend=backend)
        assert out.requires_grad == record
        torch.testing.assert_close(out, causal_definition(x, weight, bias) + residual, rtol=0, atol=5e-6)


def test_residual_keeps_its_gradient():
    x, weight, bias = draw(CASES[0])
    window, residual = open_window(x, 2), torch.randn(1, 8, 5, 6, 10)
    ours = gradients((window, residual), lambda w, r: window_conv3d(w, weight, bias, residual=r))
    expected = gradients((window, residual), lambda w, r: F.conv3d(w, weight, bias, padding=(0, 1, 1)) + r)
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, None), (1, 1, None), (3, 2, 0)])
@pytest.mark.parametrize("batch", [1, 2])
def test_frame_convolution_treats_every_frame_alike(batch, kernel, stride, padding, backend):
    x, weight, bias = draw((batch, 5, 6, 3, 7, 4, (1, kernel, kernel)))
    weight = weight[:, :, 0]
    pad = kernel // 2 if padding is None else padding
    expected = [F.conv2d(frame, weight, bias, stride, pad) for frame in x.unbind(2)]
    out = frame_conv2d(x, weight, bias, stride=stride, padding=padding, backend=backend)
    torch.testing.assert_close(out, torch.stack(expected, dim=2), rtol=0, atol=5e-6)


@pytest.mark.parametrize("backend", ["reference", *FAST])
@settings(max_examples=20, deadline=None)
@given(
    batch=st.integers(1, 2),
    channels=st.integers(1, 9),
    out=st.integers(1, 9),
    frames=st.integers(1, 3),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
)
def test_upsampling_convolution_equals_doubling_then_convolving(backend, batch, channels, out, frames, height, width):
    x, weight, bias = draw((batch, channels, out, frames, height, width, (1, 3, 3)))
    weight = weight[:, :, 0]

    def definition(x, weight, bias):
        doubled = x.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
        return torch.stack([F.conv2d(frame, weight, bias, padding=1) for frame in doubled.unbind(2)], dim=2)

    ours = gradients((x, weight, bias), lambda *t: upsample_conv2d(*t, backend=backend))
    for mine, theirs in zip(ours, gradients((x, weight, bias), definition), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_half_precision_on_cpu_is_computed_once_in_float32():
    x, weight, bias = (t.bfloat16() for t in draw(CASES[0]))
    expected = causal_definition(x.float(), weight.float(), bias.float())
    out = causal_conv3d(x, weight, bias)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, rtol=8e-3, atol=1e-3)
    if conv3d.onednn_available():
        assert torch.equal(causal_conv3d(x, weight, bias, backend="onednn"), expected.bfloat16())


def test_output_keeps_channels_last_memory():
    x, weight, bias = draw(CASES[0])
    out = causal_conv3d(x, weight, bias)
    assert out.is_contiguous(memory_format=torch.channels_last_3d)


def test_shapes_without_data():
    x, weight, bias = (t.to("meta") for t in draw(CASES[2]))
    assert causal_conv3d(x, weight, bias).shape == (1, 3, 3, 4, 6)


def test_a_backend_that_is_unknown_or_cannot_run_is_refused(monkeypatch):
    x, weight, bias = draw(CASES[0])
    with pytest.raises(InputError, match="backend='cudnn' does not exist: use one of auto, reference, native, onednn"):
        causal_conv3d(x, weight, bias, backend="cudnn")
    with pytest.raises(InputError, match="cannot take torch.float64 on cpu here: use auto or native"):
        causal_conv3d(x.double(), weight.double(), backend="onednn")
    with pytest.raises(InputError, match="cannot take torch.float32 on meta"):
        causal_conv3d(x.to("meta"), weight.to("meta"), backend="onednn")
    monkeypatch.setattr(conv3d, "onednn_available", lambda: False)
    with pytest.raises(InputError, match="backend='onednn' cannot take torch.float32 on cpu here"):
        frame_conv2d(x, weight[:, :, 0], bias, backend="onednn")
    torch.testing.assert_close(causal_conv3d(x, weight, bias), causal_definition(x, weight, bias))


def test_auto_says_once_what_it_chose(caplog):
    x, weight, bias = draw(CASES[0])
    conv3d._announce.cache_clear()
    with caplog.at_level(logging.INFO, logger="helios.ops.conv3d"):
        causal_conv3d(x, weight, bias)
        causal_conv3d(x, weight, bias)
    assert len(caplog.records) == 1 and "backend" in caplog.text
