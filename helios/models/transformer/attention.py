"""Self attention over history and noisy tokens, and cross attention to the text.

B batch, L video tokens, S text tokens, D width, N heads, K head width, P rotated pairs (K / 2).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from helios.models.transformer.layers import Linear
from helios.models.transformer.layout import TokenLayout
from helios.ops.attention import attention
from helios.ops.backends import needs_grad
from helios.ops.linear import linear
from helios.ops.rms_norm import rms_norm
from helios.ops.rope import norm_rotate

if TYPE_CHECKING:
    from helios.models.transformer.context import KeptKeys

TextKeys = tuple[Tensor, Tensor]
MAX_HISTORY_GAIN = 10.0


@dataclass(frozen=True)
class FusedProjections:
    """Weights of queries, keys and values in one tensor, in that order, each of width D."""

    weight_3DxD: Tensor
    bias_3D: Tensor

    @staticmethod
    def of(layers: tuple[Linear, ...]) -> "FusedProjections":
        """Copy the layers' weights side by side and make the layers views of the copy."""
        fused = FusedProjections(
            torch.cat([layer.weight.data for layer in layers]), torch.cat([layer.bias.data for layer in layers])
        )
        for layer, weight, bias in zip(layers, fused.weight_3DxD.chunk(3), fused.bias_3D.chunk(3)):
            layer.weight.data, layer.bias.data = weight, bias
        return fused

    def holds(self, *layers: nn.Module) -> bool:
        """Whether the layers still are views of these tensors: no adapter around them, not moved, not replaced."""
        if any(type(layer) is not Linear for layer in layers):
            return False
        if torch.compiler.is_compiling():  # addresses are not for a tracer; nothing moves under a compiled block
            return True
        own = (*self.weight_3DxD.chunk(3), *self.bias_3D.chunk(3))
        theirs = (*(layer.weight for layer in layers), *(layer.bias for layer in layers))
        return all(a.data_ptr() == b.data_ptr() and a.dtype == b.dtype for a, b in zip(own, theirs))

    def all(self, x_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values."""
        return linear(x_BLD, self.weight_3DxD, self.bias_3D).chunk(3, dim=-1)

    def query(self, x_BLD: Tensor) -> Tensor:
        """Queries alone."""
        return linear(x_BLD, self.weight_3DxD.chunk(3)[0], self.bias_3D.chunk(3)[0])

    def key_value(self, x_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values."""
        width = x_BLD.shape[-1]
        return linear(x_BLD, self.weight_3DxD[width:], self.bias_3D[width:]).chunk(2, dim=-1)


class Attention(nn.Module):
    """Projections and norms that both kinds share. Queries and keys are normalised over the whole width."""

    def __init__(self, width: int, heads: int, eps: float):
        super().__init__()
        self.heads, self.eps = heads, eps
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
        k_BSD = rms_norm(self.to_k(text_BSD), self.norm_k.weight, eps=self.eps)
        return self._split(k_BSD), self._split(self.to_v(text_BSD))

    def forward(self, x_BLD: Tensor, keys: TextKeys) -> Tensor:
        q_BLD = rms_norm(self.to_q(x_BLD), self.norm_q.weight, eps=self.eps)
        return self._out(attention(self._split(q_BLD), *keys, backend=self.attention_backend))


class SelfAttention(Attention):
    """Bidirectional attention over [history | noisy], rotated; optionally with a learned gain on history keys."""

    def __init__(self, width: int, heads: int, eps: float, *, gains: int = 0):
        """Build the layer; ``gains`` is the number of history gains: 0 for none, 1, or one per head."""
        super().__init__(width, heads, eps)
        self.history_key_scale = nn.Parameter(torch.ones(gains)) if gains else None
        self._fused: FusedProjections | None = None

    @torch.no_grad()
    def fuse_projections(self) -> None:
        """Lay the weights of queries, keys and values side by side, so that one matrix product serves all three.

        Their names, values and memory stay: the three weights become views of one tensor. It serves inference; where
        an adapter wraps a projection, or gradients are wanted, the three are called as before.
        """
        layers = (self.to_q, self.to_k, self.to_v)
        if all(type(layer) is Linear for layer in layers):
            self._fused = FusedProjections.of(layers)

    def split_projections(self) -> None:
        """Take :meth:`fuse_projections` back where a projection has been replaced: its old weights are freed."""
        if any(type(layer) is not Linear for layer in (self.to_q, self.to_k, self.to_v)):
            self._fused = None

    def forward(
        self,
        x_BLD: Tensor,
        table_BLP2: Tensor,
        layout: TokenLayout,
        noisy_only: bool = False,
        kept: "KeptKeys | None" = None,
    ) -> Tensor:
        """Attend within each segment of the layout.

        Args:
            x_BLD: modulated tokens of all segments.
            table_BLP2: rotary table of the same tokens.
            layout: the runs of the sequence.
            noisy_only: answer for the noisy tokens alone; history then gives keys and values only.
            kept: keys and values of the history for the other steps of its chunk: taken from it where the layout has no
                history, else put into it. For one segment.
        """
        table_of_q = layout.noisy_tokens(table_BLP2) if noisy_only else table_BLP2
        q_BLD, k_BLD, v_BLD = self._project(x_BLD, layout, noisy_only)
        gain_LN = self._history_gain(layout)
        q_BLNK = norm_rotate(q_BLD, self.norm_q.weight, table_of_q, eps=self.eps)
        k_BSNK = norm_rotate(k_BLD, self.norm_k.weight, table_BLP2, eps=self.eps, gain_LN=gain_LN)
        v_BSNK = self._split(v_BLD)
        if kept is not None:
            k_BSNK, v_BSNK = kept.complete(k_BSNK, v_BSNK, layout.history)
        heads_BLNK = attention(
            q_BLNK,
            k_BSNK,
            v_BSNK,
            q_lengths=layout.noisy if noisy_only else layout.lengths,
            kv_lengths=layout.lengths,
            backend=self.attention_backend,
        )
        return self._out(heads_BLNK)

    def _project(self, x_BLD: Tensor, layout: TokenLayout, noisy_only: bool) -> tuple[Tensor, Tensor, Tensor]:
        x_of_q = layout.noisy_tokens(x_BLD) if noisy_only else x_BLD
        fused = self._fused
        if fused is None or needs_grad(x_BLD, self.to_q.weight) or not fused.holds(self.to_q, self.to_k, self.to_v):
            return self.to_q(x_of_q), self.to_k(x_BLD), self.to_v(x_BLD)
        if noisy_only:
            return fused.query(x_of_q), *fused.key_value(x_BLD)
        return fused.all(x_BLD)

    def _history_gain(self, layout: TokenLayout) -> Tensor | None:
        """[L, N]: 1 + 9 sigmoid(s) for keys of history tokens, 1 for the others; None where the model has no gain."""
        if self.history_key_scale is None or layout.history == 0:
            return None
        gain = 1.0 + torch.sigmoid(self.history_key_scale.float()) * (MAX_HISTORY_GAIN - 1.0)
        return layout.history_gain(gain.expand(self.heads))
