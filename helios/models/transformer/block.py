"""One transformer block, and the norm before the output projection.

B batch, L video tokens, S text tokens, D width, R runs (modulation rows), P rotated pairs.
"""

import torch
from torch import Tensor, nn

from helios.models.transformer.attention import CrossAttention, SelfAttention, TextKeys
from helios.models.transformer.config import TransformerConfig
from helios.models.transformer.context import KeptKeys
from helios.models.transformer.layers import FeedForward, LayerNorm32
from helios.models.transformer.layout import TokenLayout
from helios.ops.adaln import gated_residual, layer_norm_modulate


class HeliosTransformerBlock(nn.Module):
    """Self attention, cross attention to the text, feed-forward; the first and the last modulated and gated by time."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        width, heads, eps = config.width, config.num_attention_heads, config.eps
        gains = {"per_head": heads, "scalar": 1}[config.history_scale_mode] if config.is_amplify_history else 0
        self.eps = eps
        self.text_for_noisy_only = config.guidance_cross_attn
        self.attn1 = SelfAttention(width, heads, eps, gains=gains)
        self.attn2 = CrossAttention(width, heads, eps)
        self.norm2 = LayerNorm32(width, eps=eps) if config.cross_attn_norm else nn.Identity()
        self.ffn = FeedForward(width, config.ffn_dim)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, width) / width**0.5)

    def forward(
        self,
        y_BLD: Tensor,
        text: Tensor | TextKeys,
        modulation_BR6D: Tensor,
        table_BLP2: Tensor,
        layout: TokenLayout,
        noisy_only: bool = False,
        kept: KeptKeys | None = None,
    ) -> Tensor:
        """The tokens after this block.

        Args:
            y_BLD: tokens of all segments, in the order of ``layout``.
            text: projected text [B, S, D], or this block's keys and values made from it.
            modulation_BR6D: time projection p of each run.
            table_BLP2: rotary table of the tokens.
            layout: the runs of the sequence.
            noisy_only: return the noisy tokens alone. Right in the last block, whose history rows nobody reads.
            kept: as in :meth:`SelfAttention.forward`.
        """
        modulation = self.scale_shift_table[:, None] + modulation_BR6D.float()
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.unbind(2)
        x_BLD = layer_norm_modulate(y_BLD, shift1, scale1, layout.runs, eps=self.eps)
        attended_BLD = self.attn1(x_BLD, table_BLP2, layout, noisy_only, kept)
        if noisy_only:
            y_BLD = layout.noisy_tokens(y_BLD)
            gate1, shift2, scale2, gate2 = (layout.noisy_rows(row) for row in (gate1, shift2, scale2, gate2))
            layout = layout.without_history
        y_BLD = gated_residual(y_BLD, attended_BLD, gate1, layout.runs)
        y_BLD = self._attend_to_text(y_BLD, text, layout)
        x_BLD = layer_norm_modulate(y_BLD, shift2, scale2, layout.runs, eps=self.eps)
        return gated_residual(y_BLD, self.ffn(x_BLD), gate2, layout.runs)

    def _attend_to_text(self, y_BLD: Tensor, text: Tensor | TextKeys, layout: TokenLayout) -> Tensor:
        keys = self.attn2.text_keys(text) if isinstance(text, Tensor) else text
        if not self.text_for_noisy_only:
            return y_BLD + self.attn2(self.norm2(y_BLD), keys)
        return layout.add_to_noisy(y_BLD, self.attn2(self.norm2(layout.noisy_tokens(y_BLD)), keys))


class HeliosOutputNorm(nn.Module):
    """LayerNorm and modulation of the noisy tokens by the time embedding e (not by its projection p)."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.eps = config.eps
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, config.width) / config.width**0.5)

    def forward(self, y_BLD: Tensor, embedded_BRD: Tensor, runs: tuple[int, ...]) -> Tensor:
        shift, scale = (self.scale_shift_table[:, None] + embedded_BRD.float()[:, :, None]).unbind(2)
        return layer_norm_modulate(y_BLD, shift, scale, runs, eps=self.eps)
