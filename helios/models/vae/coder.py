"""Encoder and decoder of the Wan VAE over a whole chunk, or over the parts of one.

Letters: B batch, C channels, F pixel frames, T latent frames, H W height and width (of pixels or latents, by name).
"""

from torch import Tensor

from helios.models.vae.blocks import Weights, causal_conv, downsample, mid_block, norm_conv, residual_block, upsample
from helios.models.vae.memory import CausalMemory
from helios.ops.conv3d import window_conv3d


def encode(vae: Weights, pixels_BCFHW: Tensor, memory: CausalMemory) -> Tensor:
    """Posterior parameters [B, 2 * latent channels, T, H, W]: means, then log-variances (not clamped)."""
    encoder = vae.encoder
    x = causal_conv(encoder.conv_in, pixels_BCFHW, memory)
    for block in encoder.down_blocks:
        x = downsample(block, x, memory) if hasattr(block, "resample") else residual_block(block, x, memory)
    x = head(encoder, mid_block(encoder.mid_block, x, memory), memory)
    return window_conv3d(x, vae.quant_conv.weight, vae.quant_conv.bias)


def decode(vae: Weights, latents_BCTHW: Tensor, memory: CausalMemory) -> Tensor:
    """Pixels [B, 3, F, H, W], not clamped; ``latents`` are the VAE's own, not the normalised ones."""
    decoder = vae.decoder
    x = window_conv3d(latents_BCTHW, vae.post_quant_conv.weight, vae.post_quant_conv.bias)
    x = mid_block(decoder.mid_block, causal_conv(decoder.conv_in, x, memory), memory)
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            x = residual_block(resnet, x, memory)
        if block.upsamplers is not None:
            x = upsample(block.upsamplers[0], x, memory)
    return head(decoder, x, memory)


def head(coder: Weights, x: Tensor, memory: CausalMemory) -> Tensor:
    """Norm, SiLU and the last convolution of the encoder or the decoder."""
    return norm_conv(coder.norm_out, coder.conv_out, x, memory)
