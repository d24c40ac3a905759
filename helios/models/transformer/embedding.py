"""Timestep and text embeddings.

B batch, S text tokens, E width of the text encoder, D model width, Q width of the sinusoid.
"""

from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helios.models.transformer.layers import Linear
from helios.ops.gelu import gelu_tanh


class TimeEmbedder(nn.Module):
    """linear, SiLU, linear on the sinusoid of the timestep; kept in float32 when the model is loaded in half."""

    def __init__(self, frequencies: int, width: int):
        super().__init__()
        self.linear_1 = Linear(frequencies, width)
        self.linear_2 = Linear(width, width)

    def forward(self, sinusoid_BQ: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(sinusoid_BQ.to(self.linear_1.weight.dtype))))


class TextEmbedder(nn.Module):
    """linear, tanh GELU, linear from the text encoder's width to the model's."""

    def __init__(self, text_width: int, width: int):
        super().__init__()
        self.linear_1 = Linear(text_width, width)
        self.linear_2 = Linear(width, width)

    def forward(self, text_BSE: Tensor) -> Tensor:
        return self.linear_2(gelu_tanh(self.linear_1(text_BSE)))


class TimeTextEmbedding(nn.Module):
    """What turns a timestep into modulation rows and text encodings into tokens."""

    def __init__(self, *, width: int, frequencies: int, text_width: int):
        super().__init__()
        self.frequencies = frequencies
        self.time_embedder = TimeEmbedder(frequencies, width)
        self.time_proj = Linear(width, 6 * width)
        self.text_embedder = TextEmbedder(text_width, width)

    def time(self, timestep_B: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(e [B, D], p [B, 6, D]): the time embedding, and its projection to six modulation vectors.

        Args:
            timestep_B: 0 to 1000, any real dtype; fractions count.
            dtype: of the tokens; e is rounded to it before the projection.
        """
        embedded_BD = self.time_embedder(sinusoid(timestep_B, self.frequencies)).to(dtype)
        return embedded_BD, self.time_proj(F.silu(embedded_BD)).unflatten(-1, (6, -1))

    def text(self, text_BSE: Tensor) -> Tensor:
        """[B, S, D] text tokens. Padded rows (zeros) are projected like any other and stay attended."""
        return self.text_embedder(text_BSE)


def sinusoid(timestep_B: Tensor, width: int) -> Tensor:
    """[cos(t f_j) | sin(t f_j)] with f_j = 10000^(-j / half), j = 0 .. half - 1. Returns: [B, width] float32."""
    half = width // 2
    exponent = torch.arange(half, dtype=torch.float32, device=timestep_B.device) * -log(10000.0) / half
    angle_BQ = timestep_B.float()[:, None] * exponent.exp()
    return torch.cat([angle_BQ.cos(), angle_BQ.sin()], dim=-1)
