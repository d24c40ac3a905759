"""The Helios transformer: denoises one chunk of latents, given text and a compressed history.

Its outer face is Diffusers' (class name, configuration keys, weight names, ``forward``), so checkpoints, pipelines,
LoRA and quantisers fit; the mathematics is our own, arranged so that nothing constant is computed twice: text once per
prompt, history once per chunk (paper arXiv 2603.04379, section 3).

B batch, C channels, T latent frames, H W latent height and width; L video tokens, S text tokens, E width of the text
encoder, D model width, R runs of tokens that share a modulation row, P rotated pairs.
"""

from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import FromOriginalModelMixin, PeftAdapterMixin
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import apply_lora_scale
from torch import Tensor, nn

from helios.errors import InputError
from helios.models.transformer.block import HeliosOutputNorm, HeliosTransformerBlock
from helios.models.transformer.config import PATCH, QK_NORM, TransformerConfig
from helios.models.transformer.context import HistoryContext, HistoryLatents, KeptKeys, TextContext
from helios.models.transformer.embedding import TimeTextEmbedding
from helios.models.transformer.layers import Linear, patch_conv
from helios.models.transformer.layout import TokenLayout
from helios.models.transformer.patches import LONG_POOL, MID_POOL, patchify, pooled, unpatchify
from helios.models.transformer.precision import KEPT_IN_FLOAT32, cast
from helios.models.transformer.rotary import Frames, Positions, Rotary, RotaryTables
from helios.ops.backends import load_kernel


class HeliosTransformer3DModel(ModelMixin, ConfigMixin, PeftAdapterMixin, FromOriginalModelMixin, CacheMixin):
    """Velocity (noise - x0) of a noisy chunk of latents.

    A run encodes its text once (:meth:`encode_text`), its history once per chunk (:meth:`encode_history`), and calls
    :meth:`velocity` once per step. :meth:`forward` does all three and has the signature of Diffusers' class.
    The arguments are those of :class:`TransformerConfig`.
    """

    _supports_gradient_checkpointing = True
    _skip_layerwise_casting_patterns = [
        "patch_embedding",
        "patch_short",
        "patch_mid",
        "patch_long",
        "condition_embedder",
        "norm",
    ]
    _no_split_modules = ["HeliosTransformerBlock", "HeliosOutputNorm"]
    _repeated_blocks = ["HeliosTransformerBlock"]
    _keep_in_fp32_modules = list(KEPT_IN_FLOAT32)
    _keys_to_ignore_on_load_unexpected = ["norm_added_q"]

    @register_to_config
    def __init__(
        self,
        patch_size: tuple[int, ...] = PATCH,
        num_attention_heads: int = 40,
        attention_head_dim: int = 128,
        in_channels: int = 16,
        out_channels: int | None = 16,
        text_dim: int = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 13824,
        num_layers: int = 40,
        cross_attn_norm: bool = True,
        qk_norm: str | None = QK_NORM,
        eps: float = 1e-6,
        added_kv_proj_dim: int | None = None,
        rope_dim: tuple[int, ...] = (44, 42, 42),
        rope_theta: float = 10000.0,
        guidance_cross_attn: bool = True,
        zero_history_timestep: bool = True,
        has_multi_term_memory_patch: bool = True,
        is_amplify_history: bool = False,
        history_scale_mode: str = "per_head",
    ) -> None:
        super().__init__()
        config = self.settings = TransformerConfig.from_dict(dict(self.config))
        width, channels, patch = config.width, config.in_channels, PATCH
        self.patch_embedding = patch_conv(channels, width, patch)
        if config.has_multi_term_memory_patch:
            self.patch_short = patch_conv(channels, width, patch)
            self.patch_mid = patch_conv(channels, width, pooled(patch, MID_POOL))
            self.patch_long = patch_conv(channels, width, pooled(patch, LONG_POOL))
        self.condition_embedder = TimeTextEmbedding(
            width=width, frequencies=config.freq_dim, text_width=config.text_dim
        )
        self.blocks = nn.ModuleList([HeliosTransformerBlock(config) for _ in range(config.num_layers)])
        self.norm_out = HeliosOutputNorm(config)
        self.proj_out = Linear(width, config.latent_channels_out * prod(patch))
        self.gradient_checkpointing = False
        self.approximations: tuple[str, ...] = ()
        self._reuses_history = False
        self._rotary = RotaryTables(tuple(config.rope_dim), config.rope_theta)

    def cast(self, dtype: torch.dtype) -> "HeliosTransformer3DModel":
        """Cast the weights in place, keeping in float32 what the published models keep there."""
        return cast(self, dtype)

    def fuse_projections(self) -> None:
        """Compute queries, keys and values of self attention as one matrix product, for inference.

        Weight names and memory stay as they are. Call it where the model will run: moving or casting the model
        afterwards undoes it (and nothing else).
        """
        for block in self.blocks:
            block.attn1.fuse_projections()

    def reuse_history(self) -> None:
        """Keep the history's keys and values of a chunk's first step for its other steps. Approximate: history tokens
        attend to the noisy ones, and would be others at every step. Packed and trained calls compute them as before.
        """
        self._reuses_history = True

    def set_attention_backend(self, backend: str) -> None:
        """Choose the attention kernel of every block by name; see :func:`helios.ops.attention.attention`.

        Raises: InputError when there is no such backend here.
        """
        if backend != "auto":
            load_kernel("attention", backend)
        for block in self.blocks:
            block.attn1.attention_backend = block.attn2.attention_backend = backend

    def reset_attention_backend(self) -> None:
        """Back to ``auto``."""
        self.set_attention_backend("auto")

    def encode_text(self, text_BSE: Tensor, *, keys: bool = True) -> TextContext:
        """Encode prompts, once for as long as they last.

        Args:
            text_BSE: text-encoder states, zero beyond each prompt's end.
            keys: make every block's cross-attention keys and values now. Without, each block makes its own at every
                call, inside its own module call: for training with checkpointing or sharding by block.
        """
        projected_BSD = self.condition_embedder.text(text_BSE.to(self._weight_dtype))
        made = tuple(block.attn2.text_keys(projected_BSD) for block in self.blocks) if keys else ()
        return TextContext(projected_BSD=projected_BSD, keys=made)

    def encode_history(self, history: HistoryLatents, positions: Positions | None = None) -> HistoryContext:
        """Encode the clean past, once per chunk.

        Args:
            history: the three streams, at full resolution whatever the level of the chunk.
            positions: time positions of the streams and of the chunk; the published numbering if None.
        Raises: InputError when the model has no history patches, or a size does not fit the patch.
        """
        if not self.settings.has_multi_term_memory_patch:
            raise InputError("this model was built without history patches: call velocity with history=None")
        positions = positions or history.positions()
        _check_multiple(history.short_BCTHW)
        short_BLD, (_, rows, columns) = patchify(self.patch_short, self._cast(history.short_BCTHW), PATCH)
        table = partial(self._rotary.stream, height=rows, width=columns, device=short_BLD.device)
        tokens, tables = [short_BLD], [table(positions.short)]
        for name, pool in (("mid", MID_POOL), ("long", LONG_POOL)):
            latents_BCTHW = getattr(history, f"{name}_BCTHW")
            if latents_BCTHW is not None:
                conv = getattr(self, f"patch_{name}")
                tokens.insert(0, patchify(conv, self._cast(latents_BCTHW), pooled(PATCH, pool))[0])
                tables.insert(0, table(getattr(positions, name), pool=pool))
        return HistoryContext(
            tokens_BLD=torch.cat(tokens, dim=1),
            rotary=self._rotary.join(tables),
            modulation_16D=self._history_modulation(short_BLD),
            noisy_frames=positions.noisy,
            kept=tuple(KeptKeys() for _ in self.blocks) if self._reuses_history else (),
        )

    def _history_modulation(self, tokens_BLD: Tensor) -> Tensor | None:
        if not self.settings.zero_history_timestep:
            return None
        zero_1 = torch.zeros(1, device=tokens_BLD.device)
        return self.condition_embedder.time(zero_1, tokens_BLD.dtype)[1]

    def velocity(
        self,
        x_BCTHW: Tensor,
        timestep_B: Tensor,
        text: TextContext,
        history: HistoryContext | None,
        *,
        frames: Frames | None = None,
    ) -> Tensor:
        """Velocity of one noisy chunk, [B, C, T, H, W] in the dtype of the transformer.

        Args:
            x_BCTHW: noisy latents, of any pyramid level; cast to the dtype of the transformer.
            timestep_B: 0 (data) to 1000 (noise), one per sample; fractions count.
            text: encoded prompts of the same batch.
            history: encoded history of the same batch, or None for a model without a past.
            frames: time positions of the chunk; by default what the history says, or 0, 1, ... without history.
        Raises: InputError when sizes, batches or positions do not fit each other.
        """
        return self.packed_velocity([x_BCTHW], [timestep_B], text, history, frames=frames)[0]

    def packed_velocity(
        self,
        xs: list[Tensor],
        timesteps: list[Tensor],
        text: TextContext,
        history: HistoryContext | None,
        *,
        frames: Frames | None = None,
    ) -> list[Tensor]:
        """Velocities of several noisy chunks, for example pyramid levels, in one pass.

        Every chunk gets its own copy of the history and attends within itself (block-diagonal attention), so the
        result equals one call of :meth:`velocity` per chunk.

        Args:
            xs: noisy latents [B, C, T, H_j, W_j].
            timesteps: one [B] per chunk.
            text, history, frames: as in :meth:`velocity`; shared by all chunks.
        """
        streams = [self._noisy_stream(x, history, frames) for x in xs]
        _check_batches(xs, text, history)
        kept = () if history is None or len(xs) > 1 or torch.is_grad_enabled() else history.kept
        if history is not None and kept and history.is_kept:
            history = None
        layout = TokenLayout(0 if history is None else history.tokens_BLD.shape[1], tuple(s.length for s in streams))
        tokens, tables = ([], []) if history is None else ([history.tokens_BLD], [history.rotary])
        y_BLD = _cat([part for stream in streams for part in (*tokens, stream.tokens_BLD)])
        table = self._rotary.join([part for stream in streams for part in (*tables, stream.rotary)]).table_BLP2

        embedded_BRD, modulation_BR6D = self._time_rows(timesteps, layout, history, y_BLD)
        for index, block in enumerate(self.blocks):
            last = index == len(self.blocks) - 1
            keys = kept[index] if kept else None
            y_BLD = self._run(block, y_BLD, text.of_block(index), modulation_BR6D, table, layout, last, keys)
        y_BLD = self.proj_out(self.norm_out(y_BLD, embedded_BRD, layout.noisy))
        parts = y_BLD.split(layout.noisy, dim=1)
        return [unpatchify(part, stream.grid, PATCH) for part, stream in zip(parts, streams)]

    def _run(self, block: nn.Module, *inputs) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(block, *inputs)
        return block(*inputs)

    def _noisy_stream(self, x_BCTHW: Tensor, history: HistoryContext | None, frames: Frames | None) -> "_NoisyStream":
        _check_multiple(x_BCTHW)
        tokens_BLD, grid = patchify(self.patch_embedding, self._cast(x_BCTHW), PATCH)
        if frames is None:
            frames = tuple(range(grid[0])) if history is None else _first_frames(history.noisy_frames, grid[0])
        rotary = self._rotary.stream(frames, grid[1], grid[2], tokens_BLD.device)
        return _NoisyStream(tokens_BLD, grid, rotary)

    def _time_rows(
        self, timesteps: list[Tensor], layout: TokenLayout, history: HistoryContext | None, y_BLD: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(e of each segment [B, J, D], p of each run [B, R, 6, D])."""
        batch, device = y_BLD.shape[0], y_BLD.device
        steps_JB = torch.stack([t.to(device).reshape(-1).expand(batch) for t in timesteps])
        embedded, modulation = self.condition_embedder.time(steps_JB.flatten(), y_BLD.dtype)
        embedded_BJD = embedded.unflatten(0, steps_JB.shape).transpose(0, 1)
        modulation_BJ6D = modulation.unflatten(0, steps_JB.shape).transpose(0, 1)
        past = None if history is None or history.modulation_16D is None else history.modulation_16D[:, None]
        return embedded_BJD, layout.rows(past, list(modulation_BJ6D.split(1, dim=1)))

    @property
    def _weight_dtype(self) -> torch.dtype:
        return self.patch_embedding.weight.dtype

    def _cast(self, latents_BCTHW: Tensor) -> Tensor:
        return latents_BCTHW.to(self._weight_dtype)

    @apply_lora_scale("attention_kwargs")
    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        indices_hidden_states: Tensor | None = None,
        indices_latents_history_short: Tensor | None = None,
        indices_latents_history_mid: Tensor | None = None,
        indices_latents_history_long: Tensor | None = None,
        latents_history_short: Tensor | None = None,
        latents_history_mid: Tensor | None = None,
        latents_history_long: Tensor | None = None,
        return_dict: bool = True,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """One call that encodes text and history and predicts, for callers that speak Diffusers.

        Args:
            hidden_states: noisy latents [B, C, T, H, W].
            timestep: [B].
            encoder_hidden_states: text-encoder states [B, S, E].
            indices_hidden_states: time positions [1 or B, T] of the chunk; 0, 1, ... if None.
            indices_latents_history_short, indices_latents_history_mid, indices_latents_history_long: time positions of
                the streams; a stream without positions is left out.
            latents_history_short, latents_history_mid, latents_history_long: history at full resolution.
            return_dict: False returns a tuple.
            attention_kwargs: ``scale`` scales a LoRA; nothing else is known.
        Returns: ``sample`` [B, C, T, H, W] in the dtype of the transformer.
        """
        unknown = sorted(set(attention_kwargs or {}) - {"scale"})
        if unknown:
            raise InputError(f"attention_kwargs={unknown} would be ignored: only 'scale' (of a LoRA) is known")
        streams = _Streams(
            long=_stream(latents_history_long, indices_latents_history_long),
            mid=_stream(latents_history_mid, indices_latents_history_mid),
            short=_stream(latents_history_short, indices_latents_history_short),
        )
        frames = indices_hidden_states
        if frames is None:
            frames = tuple(range(hidden_states.shape[2]))
        text = self.encode_text(encoder_hidden_states, keys=False)
        sample = self.velocity(hidden_states, timestep, text, streams.encode(self, frames), frames=frames)
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)


@dataclass(frozen=True)
class _NoisyStream:
    """Patch tokens of one noisy chunk, their grid and their rotary table."""

    tokens_BLD: Tensor
    grid: tuple[int, int, int]
    rotary: Rotary

    @property
    def length(self) -> int:
        return self.tokens_BLD.shape[1]


@dataclass(frozen=True)
class _Indices:
    """Time positions as ``forward`` is given them."""

    long: Tensor | None
    mid: Tensor | None
    short: Tensor
    noisy: Frames


@dataclass(frozen=True)
class _Streams:
    """History as ``forward`` is given it: (latents, time positions) of each stream, or None."""

    long: tuple[Tensor, Tensor] | None
    mid: tuple[Tensor, Tensor] | None
    short: tuple[Tensor, Tensor] | None

    def encode(self, model: HeliosTransformer3DModel, noisy: Frames) -> HistoryContext | None:
        if self.short is None:
            if self.mid or self.long:
                raise InputError("mid or long history without short history has no token grid: pass the short one too")
            return None
        (long, long_at), (mid, mid_at), (short, short_at) = (
            s or (None, None) for s in (self.long, self.mid, self.short)
        )
        latents = HistoryLatents(long_BCTHW=long, mid_BCTHW=mid, short_BCTHW=short)
        return model.encode_history(latents, _Indices(long=long_at, mid=mid_at, short=short_at, noisy=noisy))


def _stream(latents_BCTHW: Tensor | None, indices: Tensor | None) -> tuple[Tensor, Tensor] | None:
    return None if latents_BCTHW is None or indices is None else (latents_BCTHW, indices)


def _first_frames(frames: Frames, count: int) -> Frames:
    if isinstance(frames, Tensor) or len(frames) == count:
        return frames
    if len(frames) < count:
        raise InputError(
            f"a chunk of {count} latent frames has positions for {len(frames)}: pass frames= or positions="
        )
    return frames[:count]


def _check_multiple(latents_BCTHW: Tensor) -> None:
    height, width = latents_BCTHW.shape[3:]
    if height % PATCH[1] or width % PATCH[2]:
        raise InputError(f"latents of {height}x{width} do not divide into patches: both sides must be even")


def _check_batches(xs: list[Tensor], text: TextContext, history: HistoryContext | None) -> None:
    batches = {x.shape[0] for x in xs} | {text.batch} | ({history.tokens_BLD.shape[0]} if history else set())
    if len(batches) > 1:
        raise InputError(f"latents, text and history have batches {sorted(batches)}: repeat() the smaller ones")


def _cat(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
