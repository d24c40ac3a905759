"""One device, the same weights on many, or weights split over many.

A gradient is reduced once per update, after every backward pass of the update, because a turn may have several (one
per level, per endpoint term, per critic loss): an engine that steps at each of them changes the method.
"""

import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from helios.errors import InputError
from helios.training.player import Player

_BUCKET_NUMBERS = 1 << 26
_PATIENCE = timedelta(hours=2)
"""How long ranks wait for one that writes a checkpoint or exports a model of tens of gigabytes."""


class Parallel(Protocol):
    """Where the ranks of a run are and what they share."""

    rank: int
    world: int

    def place(self, player: Player) -> None:
        """Make the weights of a network equal on all ranks, or split them."""
        ...

    def reduce(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients over the ranks."""
        ...

    def mean(self, values: Tensor) -> Tensor:
        """The average of a small vector over the ranks, equal on all of them."""
        ...


@dataclass(frozen=True)
class OneDevice:
    """No process group at all."""

    rank: int = 0
    world: int = 1

    def place(self, player: Player) -> None:
        """Nothing to do."""

    def reduce(self, parameters: Iterable[nn.Parameter]) -> None:
        """Nothing to do."""

    def mean(self, values: Tensor) -> Tensor:
        """The values themselves."""
        return values


class Replicated:
    """Data parallelism: every rank holds all weights. Start it with ``torchrun``.

    Gradients are averaged in large flat buckets after the last backward pass, so any number of passes, unused
    parameters and checkpointing work without hooks.
    """

    def __init__(self) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self._device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")

    def place(self, player: Player) -> None:
        """Send rank 0's trained weights to all, for adapters begin at random; frozen ones come from the same files."""
        for parameter in player.trainables.values():
            dist.broadcast(parameter.detach(), src=0)

    def reduce(self, parameters: Iterable[nn.Parameter]) -> None:
        """See :class:`Parallel`. A parameter without a gradient on some rank counts as zero there; one without on all
        ranks stays without, for an optimiser moves what has a gradient of zeros.
        """
        parameters = self._reached([p for p in parameters if not isinstance(p, DTensor)])
        for bucket in _buckets(parameters):
            flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in bucket])
            dist.all_reduce(flat)
            flat /= self.world
            for parameter, part in zip(bucket, flat.split([p.numel() for p in bucket])):
                parameter.grad = part.view_as(parameter)

    def _reached(self, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
        has = torch.tensor([float(parameter.grad is not None) for parameter in parameters])
        return list(itertools.compress(parameters, self.mean(has).gt(0).tolist()))

    def mean(self, values: Tensor) -> Tensor:
        """See :class:`Parallel`."""
        values = values.to(self._device)
        dist.all_reduce(values)
        return values.cpu() / self.world


class Sharded(Replicated):
    """FSDP2: the blocks' weights, gradients and optimiser state are split over the ranks; the rest is replicated.

    The blocks hold 98 % of the 14B model. Frozen and trained parameters may share a block.
    """

    def __init__(self) -> None:
        super().__init__()
        self._mesh = init_device_mesh(self._device.type, (self.world,))

    def place(self, player: Player) -> None:
        """Broadcast, then split every transformer block.

        Raises: InputError for a network without ``blocks``.
        """
        super().place(player)
        stacks = [m.blocks for m in player.module.modules() if isinstance(getattr(m, "blocks", None), nn.ModuleList)]
        if not stacks:
            raise InputError(f"the {player.name} has no blocks to split: train it with parallel=replicated")
        for block in stacks[0]:
            if not isinstance(next(block.parameters()), DTensor):  # critic and teacher may share their blocks
                fully_shard(block, mesh=self._mesh)
        player.refresh()


def connect(kind: str) -> Parallel:
    """The parallel run that ``torchrun`` started, or one device outside of it.

    Args:
        kind: "replicated" or "sharded".
    Raises: InputError for another kind.
    """
    if kind not in ("replicated", "sharded"):
        raise InputError(f"parallel={kind!r} is unknown: use replicated or sharded")
    if "WORLD_SIZE" not in os.environ:
        return OneDevice()
    if not dist.is_initialized():
        dist.init_process_group(timeout=_PATIENCE)
    return Sharded() if kind == "sharded" else Replicated()


def disconnect() -> None:
    """End the process group, once every rank is done: one that leaves early aborts the others' last exchange.

    A rank that failed must not call this: it would wait for ranks that wait for it.
    """
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def whole(tensor: Tensor, *, keep: bool = True) -> Tensor:
    """The full value of a parameter, split or not, on the host. Every rank has to call it.

    Args:
        keep: False on ranks that only take part in joining split values: what they get is on the meta device.
    """
    joined = (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()
    return joined.to("cpu" if keep else "meta")


def like(value: Tensor, pattern: Tensor) -> Tensor:
    """A full value on the device, and with the split, of ``pattern``."""
    value = value.to(pattern.device, pattern.dtype)
    return distribute_tensor(value, pattern.device_mesh, pattern.placements) if isinstance(pattern, DTensor) else value


def _buckets(parameters: list[nn.Parameter]) -> Iterable[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        full = sum(p.numel() for p in bucket) + parameter.numel() > _BUCKET_NUMBERS
        if bucket and (full or (bucket[0].dtype, bucket[0].device) != (parameter.dtype, parameter.device)):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket
