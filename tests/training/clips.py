"""Small clips of random latents for tests."""

import torch

from helios.shapes import Geometry
from helios.training.clips import InMemory, LatentClip

GEOMETRY = Geometry(levels=3, spatial=4, latent_channels=4)


def clip(
    chunks: int, *, seed: int = 0, geometry: Geometry = GEOMETRY, height: int = 8, stills: bool = False
) -> LatentClip:
    """Random latents, none of them zero, [C, 9 * chunks, height, height]."""
    generator = torch.Generator().manual_seed(seed)
    channels, frames = geometry.latent_channels, chunks * geometry.chunk_latent_frames
    latents = torch.randn(channels, frames, height, height, generator=generator)
    pictures = torch.randn(2 * (chunks - 1), channels, height, height, generator=generator) if stills else None
    return LatentClip(latents_CTHW=latents, captions=(f"clip number {seed}",), stills_TCHW=pictures)


def clips(count: int = 8, *, chunks: int = 4, **kwargs) -> InMemory:
    """A data set of equal-sized random clips."""
    return InMemory(tuple(clip(chunks, seed=seed, **kwargs) for seed in range(count)))


def plain_clips(chunks: int = 1) -> InMemory:
    """One clip of constant colour (2, -2, 2, -2): easy to learn by heart."""
    latents = torch.tensor([2.0, -2.0, 2.0, -2.0])[:, None, None, None].expand(4, 9 * chunks, 8, 8)
    return InMemory((LatentClip(latents_CTHW=latents.contiguous(), captions=("a plain clip",)),))
