"""Tiny networks for tests: every path in milliseconds."""

import torch

from helios.models.transformer.model import HeliosTransformer3DModel

TEXT_WIDTH = 12


def transformer(*, channels: int = 4, layers: int = 2, seed: int = 0) -> HeliosTransformer3DModel:
    """A transformer of two heads of width 16 with random weights, no norm weight 1 and no bias 0."""
    torch.manual_seed(seed)
    model = HeliosTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=channels,
        out_channels=channels,
        text_dim=TEXT_WIDTH,
        freq_dim=16,
        ffn_dim=48,
        num_layers=layers,
        rope_dim=(4, 6, 6),
    )
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


class HashedCaptions:
    """Text states as a fixed random function of the caption."""

    tokens = 5

    def encode(self, clips, draws, chunks=None):
        return self.encode_prompts([clip.captions[0] for clip in clips])

    def encode_prompts(self, prompts):
        rows = []
        for prompt in prompts:
            generator = torch.Generator().manual_seed(sum(map(ord, prompt)))
            rows.append(torch.randn(self.tokens, TEXT_WIDTH, generator=generator))
        return torch.stack(rows)
