"""The transformer blocks that CLIP and ViCLIP share, with OpenAI's parameter names.

B batch, L tokens, D width, N heads.
"""

import torch
from torch import Tensor, nn


class QuickGELU(nn.Module):
    """``x * sigmoid(1.702 x)``, the activation of OpenAI's CLIP."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Mlp(nn.Module):
    """Two linear layers, four times as wide inside; keys ``c_fc`` and ``c_proj``."""

    def __init__(self, width: int):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.gelu = QuickGELU()
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.c_proj(self.gelu(self.c_fc(x_BLD)))


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(self, x_BLD: Tensor, mask_LL: Tensor | None) -> Tensor:
        y_BLD = self.ln_1(x_BLD)
        x_BLD = x_BLD + self.attn(y_BLD, y_BLD, y_BLD, attn_mask=mask_LL, need_weights=False)[0]
        return x_BLD + self.mlp(self.ln_2(x_BLD))


class Transformer(nn.Module):
    """A stack of blocks; keys ``resblocks.N``."""

    def __init__(self, width: int, layers: int, heads: int):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads) for _ in range(layers))

    def forward(self, x_BLD: Tensor, mask_LL: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x_BLD = block(x_BLD, mask_LL)
        return x_BLD


def causal_mask(length: int, like: Tensor) -> Tensor:
    """[L, L] additive mask: minus infinity above the diagonal."""
    return torch.full((length, length), float("-inf"), device=like.device, dtype=like.dtype).triu(1)
