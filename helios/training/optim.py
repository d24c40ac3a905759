"""Optimiser, learning-rate schedule and gradient clipping."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from helios.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Constant:
    """The full rate, reached linearly over ``warmup`` updates."""

    warmup: int = 0

    def factor(self, update: int, total: int) -> float:
        """What the rate is multiplied by at update number ``update`` (from 0) of ``total``."""
        return min(1.0, (update + 1) / self.warmup) if self.warmup else 1.0


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Linear warm-up, then half a cosine down to ``floor``; ``floor`` from there on.

    Args:
        warmup: updates with a rising rate.
        floor: of the rate, as a fraction.
        updates: where the floor is reached; None for the end of the run.
    """

    warmup: int = 0
    floor: float = 0.1
    updates: int | None = None

    def __post_init__(self) -> None:
        if self.warmup < 0 or (self.updates is not None and self.updates <= self.warmup):
            raise InputError(f"warmup={self.warmup} must be less than the schedule's updates={self.updates}")

    def factor(self, update: int, total: int) -> float:
        """What the rate is multiplied by at update number ``update`` (from 0) of ``total``."""
        if update < self.warmup:
            return (update + 1) / self.warmup
        done = min(1.0, (update - self.warmup) / max(1, (self.updates or total) - self.warmup))
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW, its schedule and the clip of the gradient's norm.

    Args:
        lr: peak learning rate.
        betas, weight_decay, eps: of AdamW.
        clip: largest norm of the whole gradient. The published stage 3 is configured with 10 and, under its engine
            file, most likely ran with 1.
        schedule: the learning rate over updates.
    """

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    eps: float = 1e-8
    clip: float = 1.0
    schedule: Constant | Cosine = Constant()

    def __post_init__(self) -> None:
        if not (self.lr > 0 and self.clip > 0 and self.eps > 0 and self.weight_decay >= 0):
            raise InputError(
                f"lr={self.lr}, clip={self.clip}, eps={self.eps} must be above 0 and weight_decay not below"
            )

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
        """The optimiser of float32 parameters.

        Raises: ValueError for parameters in half precision, whose small updates would be lost.
        """
        parameters = list(parameters)
        lowered = [p.dtype for p in parameters if p.dtype not in (torch.float32, torch.float64)]
        if lowered:
            raise ValueError(f"trainable parameters are {lowered[0]}: keep float32 masters")
        plain = all(not isinstance(p, DTensor) and p.device.type == "cpu" for p in parameters)
        return torch.optim.AdamW(
            parameters,
            lr=self.lr,
            betas=self.betas,
            weight_decay=self.weight_decay,
            eps=self.eps,
            fused=True if plain else None,
        )


def set_rate(optimizer: torch.optim.Optimizer, config: OptimConfig, update: int, total: int) -> float:
    """Set the rate of an update from the *current* configuration, whatever a checkpoint's optimiser held."""
    rate = config.lr * config.schedule.factor(update, total)
    for group in optimizer.param_groups:
        group["lr"], group["betas"], group["eps"] = rate, config.betas, config.eps
        group["weight_decay"] = config.weight_decay
    return rate


def gradient_norm(parameters: Iterable[nn.Parameter]) -> float:
    """Norm of the whole gradient in float32, over sharded and replicated parameters alike."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    squares = [
        torch.nn.utils.get_total_norm(group).float() ** 2
        for group in (
            [g for g in gradients if isinstance(g, DTensor)],
            [g for g in gradients if not isinstance(g, DTensor)],
        )
        if group
    ]
    return math.sqrt(sum(_value(square) for square in squares))


def clip_gradients(parameters: Iterable[nn.Parameter], norm: float, clip: float) -> float:
    """Scale the gradients so that their norm is at most ``clip``; returns the factor that was applied."""
    factor = min(1.0, clip / (norm + 1e-6))
    if factor < 1.0:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(factor)
    return factor


def _value(scalar: Tensor) -> float:
    return float(scalar.full_tensor() if isinstance(scalar, DTensor) else scalar)
