"""One chunk on shapes alone: the same calls as a real one, on the meta device, so that work and memory can be counted
before anything is loaded.

B batch, C channels, T latent frames, H W latent height and width, S text tokens, E text width.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from helios.conditioning.history import History
from helios.engine.approximation import ReusedHistory
from helios.models.transformer.context import HistoryContext, TextContext
from helios.models.transformer.model import HeliosTransformer3DModel
from helios.models.transformer.precision import cast
from helios.models.vae import HeliosVAE
from helios.sampling.plan import SamplingPlan

_META = torch.device("meta")


class DryRun:
    """The parts of a chunk, each callable by itself.

    Args:
        transformer_config, vae_config: of the checkpoint.
        plan: sizes, levels, guidance. Guidance doubles the batch of a step.
        batch: videos made together.
        dtype, vae_dtype: precision of the two models.
        text_tokens: what prompts are padded to.
        layers: build only that many blocks, which are all alike; None for all of them.
        approximations: names; of them ``history`` changes what is computed.
    """

    def __init__(
        self,
        transformer_config: Mapping[str, Any],
        vae_config: Mapping[str, Any],
        plan: SamplingPlan,
        *,
        batch: int = 1,
        dtype: torch.dtype = torch.float32,
        vae_dtype: torch.dtype = torch.float32,
        layers: int | None = None,
        text_tokens: int,
        approximations: Collection[str] = (),
    ) -> None:
        config = dict(transformer_config)
        config["num_layers"] = layers or config["num_layers"]
        with _META:
            self._model = cast(HeliosTransformer3DModel.from_config(config), dtype)
            self._vae = HeliosVAE.from_config(vae_config).to(dtype=vae_dtype)
        if ReusedHistory.name in approximations:
            self._model.reuse_history()
        self._plan, self._batch = plan, batch
        self._copies = 2 if plan.guidance.needs_negative else 1
        self._states_BSE = torch.empty(batch, text_tokens, config["text_dim"], dtype=dtype, device=_META)
        rows, columns = plan.geometry.latent_size(plan.height, plan.width)
        self.past = History.empty(batch, plan.anchor.window(plan.geometry), plan.geometry, rows, columns, _META)

    def encode_text(self) -> TextContext:
        """What a prompt becomes, once for as long as it lasts (for both prompts of a guided run)."""
        return self._model.encode_text(self._states_BSE).repeat(self._copies)

    def encode_history(self) -> HistoryContext:
        """What the past becomes, once per chunk."""
        plan = self._plan
        streams, positions = plan.anchor.split(self.past, plan.geometry), plan.anchor.positions(plan.geometry)
        return self._model.encode_history(streams, positions=positions).repeat(self._copies)

    def step(self, level: int, text: TextContext, history: HistoryContext) -> Tensor:
        """One network evaluation of a level."""
        x_BCTHW = torch.empty(self._plan.level_shape(self._batch * self._copies, level), device=_META)
        return self._model.velocity(x_BCTHW, torch.ones(len(x_BCTHW), device=_META), text, history)

    def decode(self) -> Tensor:
        """A chunk's pixels, all at once, as bytes."""
        return self._vae.to_uint8(self._vae.decode(self._latents()))

    def decode_early(self) -> Iterator[Tensor]:
        """A chunk's pixels, latent frame by latent frame."""
        for pixels_BCFHW in self._vae.decode_progressive(self._latents()):
            yield self._vae.to_uint8(pixels_BCFHW)

    def _latents(self) -> Tensor:
        return torch.empty(self._plan.latent_shape(self._batch), device=_META)
