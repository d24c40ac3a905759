"""Self attention over history and noisy tokens, and cross attention to the text.

B batch, L video tokens, S text tokens, D width, N heads, K head width, P rotated pairs (K / 2).
"""

import torch
from torch import Tensor, nn

from helios.models.transformer.layers import Linear
from helios.models.transformer.layout import TokenLayout
from helios.ops.attention import attention
from helios.ops.rms_norm import rms_norm
from helios.ops.rope import norm_rotate

TextKeys = tuple[Tensor, Tensor]
MAX_HISTORY_GAIN = 10.0


class Attention(nn.Module):
    """Projections and norms that both kinds share. Queries and keys are normalised over the whole width."""

    def __init__(self, width: int, heads: int, eps: float):
        super().__init__()
        self.heads = heads
        self.attention_backend = "auto"
        self.to_q = Linear(width, width)
        self.to_k = Linear(width, width)
        self.to_v = Linear(width, width)
        self.to_out = nn.ModuleList([Linear(width, width)])
        self.norm_q = nn.RMSNorm(width, eps=eps)
        self.norm_k = nn.RMSNorm(width, eps=eps)

    def _split(self, x_BLD: Tensor) -> Tensor:
        return x_BLD.unflatten(-1, (self.heads, -1))

    def _out(self, heads_BLNK: Tensor) -> Tensor:
        return self.to_out[0](heads_BLNK.flatten(2))


class CrossAttention(Attention):
    """Video tokens attend to text tokens. No rotation, no mask: padded text rows are attended."""

    def text_keys(self, text_BSD: Tensor) -> TextKeys:
        """Keys and values [B, S, N, K] of projected text; they depend on nothing but the prompt."""
        k_BSD = rms_norm(self.to_k(text_BSD), self.norm_k.weight, eps=self.norm_k.eps)
        return self._split(k_BSD), self._split(self.to_v(text_BSD))

    def forward(self, x_BLD: Tensor, keys: TextKeys) -> Tensor:
        q_BLD = rms_norm(self.to_q(x_BLD), self.norm_q.weight, eps=self.norm_q.eps)
        return self._out(attention(self._split(q_BLD), *keys, backend=self.attention_backend))


class SelfAttention(Attention):
    """Bidirectional attention over [history | noisy], rotated; optionally with a learned gain on history keys."""

    def __init__(self, width: int, heads: int, eps: float, *, gains: int = 0):
        """Build the layer; ``gains`` is the number of history gains: 0 for none, 1, or one per head."""
        super().__init__(width, heads, eps)
        self.history_key_scale = nn.Parameter(torch.ones(gains)) if gains else None

    def forward(self, x_BLD: Tensor, table_BLP2: Tensor, layout: TokenLayout, noisy_only: bool = False) -> Tensor:
        """Attend within each segment of the layout.

        Args:
            x_BLD: modulated tokens of all segments.
            table_BLP2: rotary table of the same tokens.
            layout: the runs of the sequence.
            noisy_only: answer for the noisy tokens alone; history then gives keys and values only.
        """
        queries = layout.noisy_tokens if noisy_only else lambda y: y
        eps, gain_LN = self.norm_q.eps, self._history_gain(layout)
        q_BLNK = norm_rotate(self.to_q(queries(x_BLD)), self.norm_q.weight, queries(table_BLP2), eps=eps)
        k_BLNK = norm_rotate(self.to_k(x_BLD), self.norm_k.weight, table_BLP2, eps=eps, gain_LN=gain_LN)
        heads_BLNK = attention(
            q_BLNK,
            k_BLNK,
            self._split(self.to_v(x_BLD)),
            q_lengths=layout.noisy if noisy_only else layout.lengths,
            kv_lengths=layout.lengths,
            backend=self.attention_backend,
        )
        return self._out(heads_BLNK)

    def _history_gain(self, layout: TokenLayout) -> Tensor | None:
        """[L, N]: 1 + 9 sigmoid(s) for keys of history tokens, 1 for the others; None where the model has no gain."""
        if self.history_key_scale is None or layout.history == 0:
            return None
        gain = 1.0 + torch.sigmoid(self.history_key_scale.float()) * (MAX_HISTORY_GAIN - 1.0)
        return layout.history_gain(gain.expand(self.heads))
