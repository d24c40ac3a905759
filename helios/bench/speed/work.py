"""How much arithmetic a chunk is: counted from the model on shapes alone, nothing is computed.

Counted is what accelerators do. Of the backends for the CPU only one does less: it doubles frames and convolves them with
4/9 of the products (``helios.ops.conv3d_onednn.upsample_conv2d``), 5 % less for the whole released decoder.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from helios.engine.dry_run import DryRun
from helios.sampling.plan import SamplingPlan


@dataclass(frozen=True, kw_only=True)
class ChunkWork:
    """Floating-point operations of one steady chunk (not the first), batch 1.

    Attributes:
        history: encoding the past, once per chunk.
        levels: all steps of each level, guidance passes included.
        decode: the VAE.
        text: keys and values of the prompt, once per prompt and so not part of ``total``.
    """

    history: float
    levels: tuple[float, ...]
    decode: float
    text: float

    @property
    def denoise(self) -> float:
        """The transformer's share."""
        return self.history + sum(self.levels)

    @property
    def total(self) -> float:
        return self.denoise + self.decode


@torch.no_grad()
def count_chunk(
    transformer_config: Mapping[str, Any],
    vae_config: Mapping[str, Any],
    plan: SamplingPlan,
    *,
    text_tokens: int,
    approximations: Collection[str] = (),
) -> ChunkWork:
    """Count the operations of a chunk of ``plan`` on a model with these configurations, made approximate by these."""
    dry = DryRun(transformer_config, vae_config, plan, text_tokens=text_tokens, approximations=approximations)
    kept: dict[str, Any] = {}
    text = _flops(lambda: kept.update(text=dry.encode_text()))
    history = _flops(lambda: kept.update(history=dry.encode_history()))
    first = _flops(partial(dry.step, 0, **kept))  # of the chunk: with a reused history, the only one that computes it
    later = [_flops(partial(dry.step, level, **kept)) for level in range(plan.geometry.levels)]
    coarsest, *finer = (flops * steps for flops, steps in zip(later, plan.steps))
    levels = (first - later[0] + coarsest, *finer)
    return ChunkWork(history=history, levels=levels, decode=_flops(dry.decode), text=text)


def _flops(call: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())
