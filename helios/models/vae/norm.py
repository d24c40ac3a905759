"""RMS norm over the channels of each pixel, with or without SiLU after it.

Letters: B batch, C channels, T frames, H W height and width.
"""

import torch.nn.functional as F
from torch import Tensor


def rms_norm(x_BCTHW: Tensor, gamma: Tensor) -> Tensor:
    """``gamma * x / rms(x)``, the mean square taken over the channels (float32 statistics for half precision).

    ``gamma`` has C elements in any shape. A pixel of zeros stays zero.
    """
    unit = F.normalize(x_BCTHW.float(), dim=1).to(x_BCTHW.dtype)
    return unit * (x_BCTHW.shape[1] ** 0.5 * gamma.view(1, -1, 1, 1, 1))


def rms_norm_silu(x_BCTHW: Tensor, gamma: Tensor) -> Tensor:
    """SiLU of :func:`rms_norm`."""
    return F.silu(rms_norm(x_BCTHW, gamma))
