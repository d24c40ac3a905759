"""Optimisers, learning-rate schedules and gradient clipping."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from helios.errors import InputError
from helios.training.muon import Muon


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

    def build(self, trainables: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of float32 parameters.

        Raises: ValueError for parameters in half precision, whose small updates would be lost.
        """
        parameters = _masters(trainables)
        return torch.optim.AdamW(
            parameters,
            lr=self.lr,
            betas=self.betas,
            weight_decay=self.weight_decay,
            eps=self.eps,
            fused=True if _plain(parameters) else None,
        )

    def set_rate(self, optimizer: torch.optim.Optimizer, update: int, total: int) -> float:
        """Set the rate of an update from the *current* configuration, whatever a checkpoint's optimiser held."""
        rate = self.lr * self.schedule.factor(update, total)
        for group in optimizer.param_groups:
            group["lr"], group["betas"], group["eps"] = rate, self.betas, self.eps
            group["weight_decay"] = self.weight_decay
        return rate


@dataclass(frozen=True, kw_only=True)
class MuonConfig:
    """Muon for matrices and convolutions, AdamW for everything else: embeddings, norms, biases, tables.

    From nothing it needs about half the steps of AdamW on the toy world.

    Args:
        lr: peak rate of Muon, about 100 times that of AdamW.
        momentum: of Muon.
        weight_decay: of the matrices, times the rate.
        rest: the rest's optimiser; its schedule and clip are not used.
        clip: largest norm of the whole gradient.
        schedule: of both rates over updates.
    """

    lr: float = 0.015
    momentum: float = 0.95
    weight_decay: float = 0.0
    rest: OptimConfig = OptimConfig(lr=2e-3, betas=(0.9, 0.99), weight_decay=0.0)
    clip: float = 1.0
    schedule: Constant | Cosine = Constant()

    def __post_init__(self) -> None:
        if not (self.lr > 0 and self.clip > 0 and 0 <= self.momentum < 1 and self.weight_decay >= 0):
            raise InputError(
                f"lr={self.lr} and clip={self.clip} must be above 0, momentum={self.momentum} from 0 to below 1 and "
                f"weight_decay={self.weight_decay} not below 0"
            )

    def build(self, trainables: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of float32 parameters.

        Raises: ValueError for parameters in half precision; InputError for parameters split over ranks.
        """
        parameters = _masters(trainables)
        if any(isinstance(parameter, DTensor) for parameter in parameters):
            raise InputError("Muon works on whole matrices: set parallel=replicated, or optim=OptimConfig for AdamW")
        return Muon(trainables, self.rest.build)

    def set_rate(self, optimizer: torch.optim.Optimizer, update: int, total: int) -> float:
        """See :meth:`OptimConfig.set_rate`; returns Muon's rate."""
        factor = self.schedule.factor(update, total)
        matrices, rest = optimizer.param_groups
        matrices |= {"lr": self.lr * factor, "momentum": self.momentum, "weight_decay": self.weight_decay}
        rest |= {"lr": self.rest.lr * factor, "betas": self.rest.betas, "weight_decay": self.rest.weight_decay}
        return self.lr * factor


AnyOptim = OptimConfig | MuonConfig


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


def _masters(trainables: Mapping[str, nn.Parameter]) -> list[nn.Parameter]:
    parameters = list(trainables.values())
    lowered = [p.dtype for p in parameters if p.dtype not in (torch.float32, torch.float64)]
    if lowered:
        raise ValueError(f"trainable parameters are {lowered[0]}: keep float32 masters")
    return parameters


def _plain(parameters: list[nn.Parameter]) -> bool:
    return all(not isinstance(p, DTensor) and p.device.type == "cpu" for p in parameters)


def _value(scalar: Tensor) -> float:
    return float(scalar.full_tensor() if isinstance(scalar, DTensor) else scalar)
