"""What a VAE in half precision costs the pixels.

B batch, C channels, T latent frames, F pixel frames, H W height and width.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from helios.checkpoints import load_vae
from helios.checkpoints.synthetic import SyntheticInfo
from helios.engine.approximation import psnr
from helios.engine.pipeline import Helios
from helios.engine.prepare import Prepared
from helios.models.vae import HeliosVAE


def decode_psnr(exact: HeliosVAE, other: HeliosVAE, latents_BCTHW: Tensor) -> float:
    """Peak signal-to-noise ratio of another VAE's decode of a chunk to an exact one's, in decibels.

    Infinite for equal pixels.

    Args:
        exact, other: of the same configuration.
        latents_BCTHW: normalised latents of one chunk.
    """
    expected_BCFHW, found_BCFHW = (vae.decode(latents_BCTHW).float().cpu() for vae in (exact, other))
    return psnr(expected_BCFHW.numpy() / 2, found_BCFHW.numpy() / 2)


def vae_psnr(helios: Helios, prepared: Prepared) -> float | None:
    """:func:`decode_psnr` of a model's VAE to the float32 one, on the first chunk of a run; None when it is float32."""
    if helios.vae.dtype == torch.float32:
        return None
    request, decoding = replace(prepared.request, num_frames=1), _Keeping()
    for _ in helios.open(replace(prepared, request=request), decoding=decoding):
        pass
    return decode_psnr(_float32_vae(helios), helios.vae, decoding.latents_BCTHW)


class _Keeping:
    """Decodes whole chunks and keeps the latents of the last one."""

    latents_BCTHW: Tensor

    def pieces(self, vae: HeliosVAE, latents_BCTHW: Tensor) -> Iterator[Tensor]:
        self.latents_BCTHW = latents_BCTHW
        yield vae.decode(latents_BCTHW)


def _float32_vae(helios: Helios) -> HeliosVAE:
    """As in the checkpoint; a model without files draws other weights in another precision, so its own are widened."""
    if isinstance(helios.info, SyntheticInfo):
        return HeliosVAE(copy.deepcopy(helios.vae.module).float())
    return load_vae(helios.info, helios.vae.device)
