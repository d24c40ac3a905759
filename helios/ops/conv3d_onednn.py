"""The ``onednn`` backend of ``conv3d``: float32 on CPUs, channels-last memory, forward and backward.

Letters: B batch, C channels, T frames, H W height and width of a frame, O output channels, N pictures.

``torch.nn.functional`` decides by tensor size whether oneDNN may run; the operator called here is oneDNN's own. It has
no gradient kernel that can be called without the same decision, so the gradients are written as convolutions too.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_FLOATS_PER_VECTOR = 8  # output channels that oneDNN computes at once with 256-bit vectors


def window_conv3d(
    window_BCTHW: Tensor, weight: Tensor, bias_O: Tensor | None, residual: Tensor | None, *, time_stride: int
) -> Tensor:
    """See ``helios.ops.conv3d.window_conv3d``."""
    window_BCTHW = window_BCTHW.contiguous(memory_format=torch.channels_last_3d)
    stride, padding = (time_stride, 1, 1), (0, weight.shape[3] // 2, weight.shape[4] // 2)
    if _records_gradients(window_BCTHW, weight, bias_O, residual):
        out = _Convolution.apply(window_BCTHW, weight, bias_O, stride, padding)
        return out if residual is None else out.add_(residual)
    if residual is not None:
        return _convolve_onto(residual, window_BCTHW, weight, bias_O, stride, padding)
    if time_stride == 1 and _half_empty(weight) and window_BCTHW.shape[-1] % 2 == 0:
        return _two_columns_at_once(window_BCTHW, weight, bias_O, padding)
    return _convolve(window_BCTHW, weight, bias_O, stride, padding)


def conv2d(x_NCHW: Tensor, weight: Tensor, bias_O: Tensor | None, *, stride: int, padding: int) -> Tensor:
    """2D convolution of pictures."""
    x_NCHW = x_NCHW.contiguous(memory_format=torch.channels_last)
    if _records_gradients(x_NCHW, weight, bias_O):
        return _Convolution.apply(x_NCHW, weight, bias_O, (stride, stride), (padding, padding))
    return _convolve(x_NCHW, weight, bias_O, (stride, stride), (padding, padding))


def upsample_conv2d(x_NCHW: Tensor, weight: Tensor, bias_O: Tensor | None) -> Tensor:
    """Doubling and a 3 x 3 convolution as one transposed convolution by 4 x 4 at stride 2: 4/9 of the work.

    Doubling is itself a transposed convolution by a 2 x 2 kernel of ones; the two kernels convolve to one of 4 x 4.
    """
    x_NCHW = x_NCHW.contiguous(memory_format=torch.channels_last)
    flipped = weight.flip(2, 3).transpose(0, 1)
    shifted = [F.pad(flipped, (left, 1 - left, top, 1 - top)) for left in (0, 1) for top in (0, 1)]
    kernel = torch.stack(shifted).sum(0)
    return F.conv_transpose2d(x_NCHW, kernel, bias_O, stride=2, padding=1)


def _records_gradients(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple, padding: tuple) -> Tensor:
    return torch.ops.aten.mkldnn_convolution(x, weight, bias, padding, stride, (1,) * len(stride), 1)


def _convolve_onto(
    residual: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple, padding: tuple
) -> Tensor:
    """``residual + conv(x)`` in the memory of ``residual``: no second tensor of that size is touched."""
    if not residual.is_contiguous(memory_format=torch.channels_last_3d):
        return _convolve(x, weight, bias, stride, padding).add_(residual)
    accumulate = torch.ops.mkldnn._convolution_pointwise_.binary
    return accumulate(residual, x, weight, bias, padding, stride, (1, 1, 1), 1, "add", None, None, [], None)


def _half_empty(weight: Tensor) -> bool:
    return weight.shape[4] == 3 and 2 * weight.shape[0] <= _FLOATS_PER_VECTOR


def _two_columns_at_once(window_BCTHW: Tensor, weight: Tensor, bias_O: Tensor | None, padding: tuple) -> Tensor:
    """Few output channels (RGB) leave most of a vector empty: compute two neighbouring columns as 2 * O channels.

    The kernel grows from 3 to 4 columns and moves by 2. In channels-last memory the result needs no rearranging.
    """
    pair = torch.cat([F.pad(weight, (0, 1)), F.pad(weight, (1, 0))])
    bias = None if bias_O is None else bias_O.repeat(2)
    out = _convolve(window_BCTHW, pair, bias, (1, 1, 2), padding).permute(0, 2, 3, 4, 1)
    return out.reshape(*out.shape[:3], 2 * out.shape[3], weight.shape[0]).permute(0, 4, 1, 2, 3)


class _Convolution(torch.autograd.Function):
    """oneDNN convolution of 2D or 3D inputs whose gradients run in oneDNN as well. Not twice differentiable."""

    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding):
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.has_bias = stride, padding, bias is not None
        return _convolve(x, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        layout = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
        grad = grad.contiguous(memory_format=layout)
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_x = _grad_input(grad, x, weight, ctx.stride, ctx.padding) if need_x else None
        grad_weight = _grad_weight(grad, x, weight, ctx.stride, ctx.padding) if need_weight else None
        grad_bias = grad.sum([0, *range(2, grad.dim())]) if need_bias and ctx.has_bias else None
        return grad_x, grad_weight, grad_bias, None, None


def _grad_input(grad: Tensor, x: Tensor, weight: Tensor, stride: tuple, padding: tuple) -> Tensor:
    """At stride 1: the gradient convolved by the mirrored kernel, which is faster than oneDNN's own backward."""
    if any(step != 1 for step in stride):
        return _backward(grad, x, weight, stride, padding, (True, False, False))[0]
    axes = tuple(range(2, weight.dim()))
    mirrored = weight.flip(axes).transpose(0, 1).contiguous()
    full = tuple(weight.shape[axis] - 1 - pad for axis, pad in zip(axes, padding, strict=True))
    return _convolve(grad, mirrored, None, stride, full)


def _grad_weight(grad: Tensor, x: Tensor, weight: Tensor, stride: tuple, padding: tuple) -> Tensor:
    """One clip at a time would miss oneDNN: its frames are a batch of pictures, one 2D gradient per kernel frame."""
    if x.dim() == 4 or x.shape[0] > 1:
        return _backward(grad, x, weight, stride, padding, (False, True, False))[1]
    frames, grads = x[0].transpose(0, 1), grad[0].transpose(0, 1)
    span = (grads.shape[0] - 1) * stride[0] + 1
    taps = [
        _backward(
            grads, frames[t : t + span : stride[0]], weight[:, :, t], stride[1:], padding[1:], (False, True, False)
        )[1]
        for t in range(weight.shape[2])
    ]
    return torch.stack(taps, dim=2)


def _backward(grad: Tensor, x: Tensor, weight: Tensor, stride: tuple, padding: tuple, mask: tuple):
    ones, zeros = (1,) * len(stride), (0,) * len(stride)
    return torch.ops.aten.convolution_backward(
        grad, x, weight, [weight.shape[0]], stride, padding, ones, False, zeros, 1, mask
    )
