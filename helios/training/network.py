"""The transformer as training calls it: cheap matrix products inside, float32 outside.

B batch, C channels, T latent frames, H W latent height and width, S text tokens, E width of the text encoder.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from helios.models.transformer.context import HistoryContext, HistoryLatents, TextContext
from helios.shapes import FramePositions


@dataclass(frozen=True, kw_only=True)
class Float32:
    """Everything in the precision of the weights."""

    def context(self, device: torch.device) -> AbstractContextManager:
        """Around every forward pass."""
        return nullcontext()


@dataclass(frozen=True, kw_only=True)
class Bfloat16:
    """Autocast: matrix products in bfloat16, float32 master weights, losses and accumulations."""

    def context(self, device: torch.device) -> AbstractContextManager:
        """Around every forward pass."""
        return torch.autocast(device.type, torch.bfloat16)


@dataclass(frozen=True, kw_only=True)
class BfloatWhereFast:
    """Autocast to bfloat16 on accelerators and on CPUs with units for it, float32 on other CPUs.

    Without such units a bfloat16 product takes 10 to 50 times as long as a float32 one.
    """

    def context(self, device: torch.device) -> AbstractContextManager:
        """Around every forward pass."""
        fast = device.type != "cpu" or cpu_multiplies_bfloat16()
        return torch.autocast(device.type, torch.bfloat16) if fast else nullcontext()


Precision = Float32 | Bfloat16 | BfloatWhereFast


@cache
def cpu_multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for products of bfloat16 (AVX-512 BF16, AMX, or Arm's)."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set()
    return not flags.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})


@dataclass(frozen=True, kw_only=True)
class Network:
    """A transformer under a precision. It is a denoiser for :mod:`helios.sampling`, so rollouts train through it.

    Args:
        module: the transformer.
        precision: of its matrix products.
        works_on: its device while it works, where its weights are elsewhere in between; None for where they are.
    """

    module: nn.Module
    precision: Precision = Float32()
    works_on: torch.device | None = None

    @property
    def device(self) -> torch.device:
        return self.works_on or next(self.module.parameters()).device

    def encode_text(self, text_BSE: Tensor) -> TextContext:
        """Projected text; every block makes its own keys, inside its own call (checkpointing, sharding)."""
        with self.precision.context(self.device):
            return self.module.encode_text(text_BSE.to(self.device), keys=False)

    def encode_history(self, history: HistoryLatents, positions: FramePositions | None = None) -> HistoryContext:
        """See the transformer's own."""
        with self.precision.context(self.device):
            return self.module.encode_history(history, positions=positions)

    def velocity(
        self,
        x_BCTHW: Tensor,
        timestep_B: Tensor,
        text: TextContext,
        history: HistoryContext | None,
        *,
        frames: tuple[int, ...] | None = None,
    ) -> Tensor:
        """Velocity of one noisy chunk, or of the frames of it at the time positions ``frames``, float32."""
        with self.precision.context(self.device):
            return self.module.velocity(x_BCTHW, timestep_B, text, history, frames=frames).float()

    def packed_velocity(
        self,
        xs: list[Tensor],
        timesteps: list[Tensor],
        text: TextContext,
        history: HistoryContext | None,
        *,
        frames: tuple[int, ...] | None = None,
    ) -> list[Tensor]:
        """Velocities of several chunks in one pass, float32."""
        with self.precision.context(self.device):
            velocities = self.module.packed_velocity(xs, timesteps, text, history, frames=frames)
        return [v.float() for v in velocities]
