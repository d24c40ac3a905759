"""Easy Anti-Drifting: the history is damaged in training, so that a slightly wrong one does no harm at sampling time
(paper arXiv 2603.04379, section on frame-aware corruption).

Three damages: noise, loss of detail (down and up again), wrong exposure (saturation). Latents that are missing stay
exactly zero. The anchor is noised and blurred but never changes its colours: it is the colour reference.

B batch, C channels, T latent frames, H W latent height and width.
"""

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from helios.errors import InputError
from helios.training.sample import Past
from helios.training.seeds import Draws, Purpose

_MODES = ("exposure", "noise", "downsample", "clean")


class Corruption(Protocol):
    """Damages a past."""

    def apply(self, past: Past, draws: Draws) -> Past:
        """The damaged past; missing latents are exactly zero."""
        ...


@dataclass(frozen=True, kw_only=True)
class NoCorruption:
    """The past as it is."""

    def apply(self, past: Past, draws: Draws) -> Past:
        """See :class:`Corruption`."""
        return past.masked()


@dataclass(frozen=True, kw_only=True)
class Damage:
    """How strong the damages are; the defaults are the published bounds.

    Args:
        max_sigma: noise is ``sigma * noise + (1 - sigma) * x`` with sigma uniform up to this, one per latent frame.
        min_scale: downsampling to a factor between this and 1 of height and width, and back.
        darker, brighter: ranges of the exposure factor f in ``m + (x - m) * f``, m the mean over channels; one of the
            two ranges is chosen with equal chance.
    """

    max_sigma: float = 1 / 3
    min_scale: float = 0.9
    darker: tuple[float, float] = (0.3, 0.999)
    brighter: tuple[float, float] = (1.001, 1.7)

    def __post_init__(self) -> None:
        if not (0 <= self.max_sigma <= 1 and 0 < self.min_scale <= 1):
            raise InputError(f"max_sigma={self.max_sigma}, min_scale={self.min_scale}: both must lie in 0 to 1")

    def exposure_factor(self, generator: np.random.Generator) -> float:
        """One factor from the two ranges."""
        low, high = self.darker if generator.random() < 0.5 else self.brighter
        return float(generator.uniform(low, high))

    def scale_factor(self, generator: np.random.Generator) -> float:
        """One factor of height and width."""
        return float(generator.uniform(self.min_scale, 1.0))


@dataclass(frozen=True, kw_only=True)
class PerLatentCorruption:
    """One independent decision per latent frame and sample; the damages exclude each other (the paper's table).

    Args:
        exposure, noise, downsample, clean: shares that add up to 1. The anchor's exposure share is left clean.
        damage: their bounds.
    """

    exposure: float = 0.0
    noise: float = 0.8
    downsample: float = 0.1
    clean: float = 0.1
    damage: Damage = Damage()

    def __post_init__(self) -> None:
        shares = (self.exposure, self.noise, self.downsample, self.clean)
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise InputError(f"corruption shares {shares} add up to {sum(shares):g}: they must add up to 1")

    def apply(self, past: Past, draws: Draws) -> Past:
        """See :class:`Corruption`."""
        frames_BCTHW = torch.cat([past.anchor_BCTHW, past.window_BCTHW], dim=2)
        modes_BT = self.modes(draws, frames_BCTHW.shape[2])
        modes_BT[:, 0][modes_BT[:, 0] == _MODES.index("exposure")] = _MODES.index("clean")
        frames_BCTHW = _noised(frames_BCTHW, draws, self.damage.max_sigma, modes_BT == _MODES.index("noise"))
        frames_BCTHW = self._blurred(frames_BCTHW, draws, modes_BT == _MODES.index("downsample"))
        frames_BCTHW = self._exposed(frames_BCTHW, draws, modes_BT == _MODES.index("exposure"))
        return _put_back(past, frames_BCTHW)

    def modes(self, draws: Draws, frames: int) -> Tensor:
        """[B, T] index of the damage: 0 exposure, 1 noise, 2 downsample, 3 clean."""
        borders = torch.tensor([self.exposure, self.noise, self.downsample], dtype=torch.float64).cumsum(0)
        return (draws.uniform(Purpose.CORRUPTION_MODE, frames)[..., None] >= borders).sum(-1)

    def _blurred(self, frames_BCTHW: Tensor, draws: Draws, chosen_BT: Tensor) -> Tensor:
        """Frames that round to the same small size are resized together."""
        if not chosen_BT.any():
            return frames_BCTHW
        height, width = frames_BCTHW.shape[3:]
        scale_BT = self.damage.min_scale + draws.uniform(Purpose.DOWNSAMPLE, chosen_BT.shape[1]) * (
            1 - self.damage.min_scale
        )
        pictures_BTCHW = frames_BCTHW.transpose(1, 2).clone()
        sizes = torch.stack([(scale_BT * height).round(), (scale_BT * width).round()], dim=-1).long()
        for size in sizes[chosen_BT].unique(dim=0):
            group_BT = chosen_BT & (sizes == size).all(-1)
            pictures_BTCHW[group_BT] = _down_and_up(pictures_BTCHW[group_BT], tuple(size.tolist()))
        return pictures_BTCHW.transpose(1, 2)

    def _exposed(self, frames_BCTHW: Tensor, draws: Draws, chosen_BT: Tensor) -> Tensor:
        if not chosen_BT.any():
            return frames_BCTHW
        generators = draws.generators(Purpose.SATURATION)
        factors = [[self.damage.exposure_factor(g) for _ in range(chosen_BT.shape[1])] for g in generators]
        return _expose(frames_BCTHW, torch.where(chosen_BT, torch.tensor(factors), 1.0).to(frames_BCTHW))


@dataclass(frozen=True, kw_only=True)
class PerBatchCorruption:
    """The published code's noise and blur: one mode for the whole micro-batch.

    Args:
        mode: "noise", or "random" for noise or blur.
        clean: share of micro-batches that stay as they are, in either mode.
        noise: share of noise among the others in mode "random" (8/9 gives the paper's 0.8 / 0.1 / 0.1).
        damage: the bounds.
    """

    mode: Literal["noise", "random"] = "random"
    clean: float = 0.1
    noise: float = 0.9
    damage: Damage = Damage()

    def __post_init__(self) -> None:
        if not (0 <= self.clean <= 1 and 0 <= self.noise <= 1):
            raise InputError(f"clean={self.clean}, noise={self.noise}: both are shares, use 0 to 1")

    def apply(self, past: Past, draws: Draws) -> Past:
        """See :class:`Corruption`."""
        frames_BCTHW = torch.cat([past.anchor_BCTHW, past.window_BCTHW], dim=2)
        mode = self.chosen(draws)
        if mode == "noise":
            everywhere_BT = torch.ones(len(frames_BCTHW), frames_BCTHW.shape[2], dtype=torch.bool)
            frames_BCTHW = _noised(frames_BCTHW, draws, self.damage.max_sigma, everywhere_BT)
        if mode == "downsample":
            frames_BCTHW = self._blurred(frames_BCTHW, draws.together(Purpose.DOWNSAMPLE))
        return _put_back(past, frames_BCTHW)

    def chosen(self, draws: Draws) -> str:
        """The micro-batch's mode: clean, noise or downsample (a single categorical draw)."""
        noise = (1 - self.clean) * (1.0 if self.mode == "noise" else self.noise)
        u = draws.together(Purpose.CORRUPTION_MODE).random()
        return "clean" if u < self.clean else "noise" if u < self.clean + noise else "downsample"

    def _blurred(self, frames_BCTHW: Tensor, generator: np.random.Generator) -> Tensor:
        height, width = frames_BCTHW.shape[3:]
        blurred = []
        for segment_BCTHW in frames_BCTHW.split([1, *_segments(frames_BCTHW.shape[2] - 1)], dim=2):
            factor = self.damage.scale_factor(generator)
            pictures = segment_BCTHW.transpose(1, 2).flatten(0, 1)
            pictures = _down_and_up(pictures, (round(factor * height), round(factor * width)))
            blurred.append(pictures.unflatten(0, (-1, segment_BCTHW.shape[2])).transpose(1, 2))
        return torch.cat(blurred, dim=2)


@dataclass(frozen=True, kw_only=True)
class Saturation:
    """Wrong exposure of the window, one decision per segment and micro-batch, as in the published code.

    Args:
        clean: share of segments that stay as they are.
        damage: the bounds.
    """

    clean: float = 0.1
    damage: Damage = Damage()

    def apply(self, past: Past, draws: Draws) -> Past:
        """See :class:`Corruption`."""
        generator = draws.together(Purpose.SATURATION)
        factors_T: list[float] = []
        for frames in _segments(past.window_BCTHW.shape[2]):
            changed = generator.random() >= self.clean
            factors_T += [self.damage.exposure_factor(generator) if changed else 1.0] * frames
        factors_BT = torch.tensor(factors_T).expand(len(past.window_BCTHW), -1)
        return replace(past, window_BCTHW=_expose(past.window_BCTHW, factors_BT.to(past.window_BCTHW))).masked()


@dataclass(frozen=True, kw_only=True)
class Stacked:
    """Several corruptions, one after the other, for example noise and then saturation."""

    parts: "tuple[PerLatentCorruption | PerBatchCorruption | Saturation, ...]" = (PerBatchCorruption(), Saturation())

    def apply(self, past: Past, draws: Draws) -> Past:
        """See :class:`Corruption`."""
        for part in self.parts:
            past = part.apply(past, draws)
        return past


AnyCorruption = NoCorruption | PerLatentCorruption | PerBatchCorruption | Saturation | Stacked


def _segments(frames: int) -> tuple[int, ...]:
    """The published windows, oldest first: 19 latents are {1 oldest, next 9, following 2, newest 7}."""
    newest = min(7, frames)
    before = min(2, frames - newest)
    oldest = min(1, frames - newest - before)
    return tuple(n for n in (oldest, frames - newest - before - oldest, before, newest) if n)


def _noised(frames_BCTHW: Tensor, draws: Draws, max_sigma: float, chosen_BT: Tensor) -> Tensor:
    """One sigma per latent frame, noise fresh per latent."""
    channels, frames, height, width = frames_BCTHW.shape[1:]
    sigma_BT = draws.uniform(Purpose.CORRUPTION_SIGMA, frames).float() * max_sigma * chosen_BT
    noise = draws.normal(Purpose.CORRUPTION_NOISE, channels, frames, height, width).to(frames_BCTHW)
    sigma = sigma_BT[:, None, :, None, None].to(frames_BCTHW)
    return sigma * noise + (1 - sigma) * frames_BCTHW


def _down_and_up(pictures_NCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with antialiasing, there and back. Contiguous: the published code crashed on slices."""
    full = pictures_NCHW.shape[2:]
    small = F.interpolate(pictures_NCHW.contiguous(), size=size, mode="bilinear", antialias=True)
    return F.interpolate(small, size=full, mode="bilinear", antialias=True)


def _expose(frames_BCTHW: Tensor, factor_BT: Tensor) -> Tensor:
    """Spread around the mean over channels times a factor; a factor of 1 leaves every bit alone."""
    mean_B1THW, factor_B1T11 = frames_BCTHW.mean(dim=1, keepdim=True), factor_BT[:, None, :, None, None]
    exposed = mean_B1THW + (frames_BCTHW - mean_B1THW) * factor_B1T11
    return torch.where(factor_B1T11 == 1, frames_BCTHW, exposed)


def _put_back(past: Past, frames_BCTHW: Tensor) -> Past:
    return replace(past, anchor_BCTHW=frames_BCTHW[:, :, :1], window_BCTHW=frames_BCTHW[:, :, 1:]).masked()
