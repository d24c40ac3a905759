"""How the conditional and the unconditional velocity become one (paper arXiv 2603.04379, section 4; CFG-Zero*, 2503.18886).

B batch, C channels, T latent frames, H W latent height and width.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from helios.errors import InputError


class Guidance(Protocol):
    """A rule for guiding the velocity. ``needs_negative`` says whether the unconditional pass is run at all."""

    needs_negative: bool

    def zeroes(self, level: int, step: int) -> bool:
        """Whether this step's velocity is zero by definition, so that the network need not run."""
        ...

    def combine(self, v_cond_BCTHW: Tensor, v_uncond_BCTHW: Tensor | None) -> Tensor:
        """The guided velocity, in the shape and dtype of the conditional one."""
        ...


@dataclass(frozen=True, kw_only=True)
class NoGuidance:
    """The conditional velocity alone. Distilled checkpoints know nothing else: guidance is distilled into them."""

    needs_negative = False

    def zeroes(self, level: int, step: int) -> bool:
        return False

    def combine(self, v_cond_BCTHW: Tensor, v_uncond_BCTHW: Tensor | None = None) -> Tensor:
        return v_cond_BCTHW


@dataclass(frozen=True, kw_only=True)
class ClassifierFree:
    """Classifier-free guidance: ``v = u + scale * (c - u)``.

    Args:
        scale: above 1; the released Base uses 5.
    """

    scale: float
    needs_negative = True

    def __post_init__(self) -> None:
        _check_scale(self.scale)

    def zeroes(self, level: int, step: int) -> bool:
        return False

    def combine(self, v_cond_BCTHW: Tensor, v_uncond_BCTHW: Tensor) -> Tensor:
        return v_uncond_BCTHW + self.scale * (v_cond_BCTHW - v_uncond_BCTHW)


@dataclass(frozen=True, kw_only=True)
class ClassifierFreeZeroStar:
    """CFG-Zero*: the unconditional velocity is first scaled onto the conditional one.

        s = <c, u> / (|u|^2 + 1e-8)   per sample, in float32
        v = s u + scale * (c - s u)

    Args:
        scale: above 1; the released Mid uses 5.
        zero_steps: how many first steps of the coarsest level have zero velocity ("zero init"). The published code
            counts so that its setting 1 zeroes two steps, in every chunk; the network is not run for them here.
    """

    scale: float
    zero_steps: int = 2
    needs_negative = True

    def __post_init__(self) -> None:
        _check_scale(self.scale)
        if self.zero_steps < 0:
            raise InputError(f"zero_steps={self.zero_steps} is negative: pass 0 to run the network at every step")

    def zeroes(self, level: int, step: int) -> bool:
        return level == 0 and step < self.zero_steps

    def combine(self, v_cond_BCTHW: Tensor, v_uncond_BCTHW: Tensor) -> Tensor:
        v_uncond_BCTHW = v_uncond_BCTHW * projection_scale(v_cond_BCTHW, v_uncond_BCTHW)
        return v_uncond_BCTHW + self.scale * (v_cond_BCTHW - v_uncond_BCTHW)


def projection_scale(v_cond_BCTHW: Tensor, v_uncond_BCTHW: Tensor) -> Tensor:
    """``<c, u> / (|u|^2 + 1e-8)`` per sample in float32, as [B, 1, 1, 1, 1] in the dtype of the conditional velocity."""
    cond, uncond = v_cond_BCTHW.float().flatten(1), v_uncond_BCTHW.float().flatten(1)
    scale_B1 = (cond * uncond).sum(1, keepdim=True) / (torch.sum(uncond**2, dim=1, keepdim=True) + 1e-8)
    return scale_B1.to(v_cond_BCTHW.dtype).view(-1, 1, 1, 1, 1)


def _check_scale(scale: float) -> None:
    if not scale > 1.0:
        raise InputError(f"guidance scale={scale} has no effect as guidance: pass more than 1, or 1 for none")
