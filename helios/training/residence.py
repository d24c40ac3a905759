"""Which of several large networks is on the device: all of them, or one at a time.

Distillation needs the student and the scores in turn. Frozen weights never change, so leaving the device copies nothing
back: the parameter is bound to its copy on the host again. Trained parameters, their gradients and the optimiser stay
on the device throughout.
"""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn


class Residence(Protocol):
    """Where networks are while another one works."""

    def bring(self, module: nn.Module) -> None:
        """Make a network ready to run forward, or backward through a graph it has made."""
        ...


class Resident:
    """Every network stays where it is."""

    def bring(self, module: nn.Module) -> None:
        """Nothing to do."""


class OneAtATime:
    """The network that works is on the device, the frozen weights of the others are on the host.

    A graph that is waiting for its backward pass keeps working only if its network reads its weights again there, which
    is what checkpointing does: bring the network back before, and train with recomputation on.

    Args:
        modules: the networks that take turns; they begin on the host.
        device: where they work.
    """

    def __init__(self, modules: Iterable[nn.Module], device: torch.device):
        self._device = device
        self._hosts = {id(module): _frozen_on_host(module, device) for module in modules}
        self._here: int | None = None

    def bring(self, module: nn.Module) -> None:
        """See :class:`Residence`."""
        if self._here == id(module):
            return
        if self._here is not None:
            for parameter, host in self._hosts[self._here]:
                parameter.data = host
        for parameter, host in self._hosts[id(module)]:
            parameter.data = host.to(self._device, non_blocking=True, copy=True)
        self._here = id(module)


def _frozen_on_host(module: nn.Module, device: torch.device) -> list[tuple[nn.Parameter, Tensor]]:
    """(parameter, its host copy) of every frozen weight; the trained ones go to the device for good."""
    kept = []
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(device)
            continue
        host = parameter.data.to("cpu")
        host = host.pin_memory() if device.type != "cpu" else host
        parameter.data = host
        kept.append((parameter, host))
    for buffer_owner in module.modules():
        for name, buffer in buffer_owner.named_buffers(recurse=False):
            setattr(buffer_owner, name, buffer.to(device))
    return kept
