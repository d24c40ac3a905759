"""ViCLIP-L/14 (InternVid-10M-FLT): a video tower over 8 frames and a text tower over 32 tokens.

B batch, C channels, F frames, H W pixels, L tokens, D width, E embedding.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from helios.bench.networks.clip import TowerConfig
from helios.bench.networks.vit import Transformer, causal_mask


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Sizes of the text tower."""

    vocabulary: int = 49408
    context: int = 32
    width: int = 768
    layers: int = 12
    heads: int = 12
    embedding: int = 768


@dataclass(frozen=True, kw_only=True)
class ViCLIPConfig:
    """Both towers; ``frames`` is the length of the temporal table."""

    vision: TowerConfig = field(default_factory=TowerConfig)
    text: TextConfig = field(default_factory=TextConfig)
    frames: int = 8


class VideoTower(nn.Module):
    """One class token and every frame's patches, frame after frame, through a ViT without masking."""

    def __init__(self, config: TowerConfig, frames: int):
        super().__init__()
        width, patch = config.width, config.patch
        self.conv1 = nn.Conv3d(3, width, (1, patch, patch), stride=(1, patch, patch), bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(config.patches + 1, width))
        self.temporal_positional_embedding = nn.Parameter(torch.zeros(1, frames, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, config.layers, config.heads)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, config.embedding))

    def tokens(self, pixels_BCFHW: Tensor) -> Tensor:
        """[B, 1 + F * patches, D]: class token, then patches in frame-major order, with both position tables added."""
        patches_BFLD = self.conv1(pixels_BCFHW).flatten(3).permute(0, 2, 3, 1)
        time_1FD: Tensor = self.temporal_positional_embedding
        if patches_BFLD.shape[1] == 1:
            time_1FD = time_1FD.mean(1, keepdim=True)
        patches_BFLD = patches_BFLD + self.positional_embedding[1:] + time_1FD.unsqueeze(2)
        first_D = self.class_embedding + self.positional_embedding[0]  # every frame's copy is equal: one is kept
        return torch.cat([first_D.expand(len(patches_BFLD), 1, -1), patches_BFLD.flatten(1, 2)], 1)

    def forward(self, pixels_BCFHW: Tensor) -> Tensor:
        x_BLD = self.transformer(self.ln_pre(self.tokens(pixels_BCFHW)))
        return self.ln_post(x_BLD[:, 0]) @ self.proj


class TextTower(nn.Module):
    """Causal transformer; the feature is read at the end-of-text token, which has the largest id."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.positional_embedding = nn.Parameter(torch.zeros(config.context, config.width))
        self.transformer = Transformer(config.width, config.layers, config.heads)
        self.ln_final = nn.LayerNorm(config.width)
        self.text_projection = nn.Parameter(torch.zeros(config.width, config.embedding))

    def forward(self, ids_BL: Tensor) -> Tensor:
        x_BLD = self.token_embedding(ids_BL) + self.positional_embedding
        x_BLD = self.ln_final(self.transformer(x_BLD, causal_mask(ids_BL.shape[1], x_BLD)))
        rows = torch.arange(len(ids_BL), device=ids_BL.device)
        return x_BLD[rows, ids_BL.argmax(-1)] @ self.text_projection


class ViCLIP(nn.Module):
    """Video and text embeddings in one space; ``temp`` is the trained temperature, unused for scoring."""

    def __init__(self, config: ViCLIPConfig):
        super().__init__()
        self.vision_encoder = VideoTower(config.vision, config.frames)
        self.text_encoder = TextTower(config.text)
        self.temp = nn.Parameter(torch.tensor(0.01))

    def similarity(self, pixels_BCFHW: Tensor, ids_BL: Tensor) -> Tensor:
        """Cosine of video and text, [B]."""
        return nn.functional.cosine_similarity(self.vision_encoder(pixels_BCFHW), self.text_encoder(ids_BL), dim=-1)
