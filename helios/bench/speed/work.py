"""How much arithmetic a chunk is: counted from the model on shapes alone, nothing is computed.

B batch, C channels, T latent frames, H W latent height and width, S text tokens, E text width.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from helios.conditioning.history import History
from helios.models.transformer.model import HeliosTransformer3DModel
from helios.models.vae import HeliosVAE
from helios.sampling.plan import SamplingPlan

_META = torch.device("meta")


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
    def total(self) -> float:
        return self.history + sum(self.levels) + self.decode


@torch.no_grad()
def count_chunk(
    transformer_config: Mapping[str, Any], vae_config: Mapping[str, Any], plan: SamplingPlan, *, text_tokens: int = 512
) -> ChunkWork:
    """Count the operations of a chunk of ``plan`` on a model with these configurations."""
    with _META:
        model = HeliosTransformer3DModel.from_config(dict(transformer_config))
        vae = HeliosVAE.from_config(vae_config)
    width = transformer_config["text_dim"]
    kept: dict[str, Any] = {}
    text = _flops(lambda: kept.update(text=model.encode_text(torch.empty(1, text_tokens, width, device=_META))))
    rows, columns = plan.geometry.latent_size(plan.height, plan.width)
    past = History.empty(1, plan.anchor.window(plan.geometry), plan.geometry, rows, columns, _META)
    streams, positions = plan.anchor.split(past, plan.geometry), plan.anchor.positions(plan.geometry)
    history = _flops(lambda: kept.update(history=model.encode_history(streams, positions=positions)))
    passes = 2 if plan.guidance.needs_negative else 1
    levels = []
    for level in range(plan.geometry.levels):
        x_BCTHW = torch.empty(plan.level_shape(1, level), device=_META)
        once = _flops(lambda x=x_BCTHW: model.velocity(x, torch.ones(1, device=_META), kept["text"], kept["history"]))
        levels.append(once * plan.steps[level] * passes)
    decode = _flops(lambda: vae.decode(torch.empty(plan.latent_shape(1), device=_META)))
    return ChunkWork(history=history, levels=tuple(levels), decode=decode, text=text)


def _flops(call: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())
