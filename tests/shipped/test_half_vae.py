"""What bfloat16 costs the pixels of the shipped VAE."""

import torch

from helios.bench.speed.precision import decode_psnr
from helios.bench.toy import heldout_clips
from helios.checkpoints import inspect, load_vae, resolve

LEAST_DB = 40.0


def test_a_bfloat16_decode_stays_close_to_float32():
    """On latents of the toy world: 60 dB were measured (docs/performance.md); 40 is what a viewer could begin to see."""
    info = inspect(resolve("small-distilled"))
    exact, half = load_vae(info, "cpu"), load_vae(info, "cpu", torch.bfloat16)
    frames_FHWC = torch.from_numpy(heldout_clips(1).chunk(0, 0))
    latents_BCTHW = exact.encode(frames_FHWC.permute(3, 0, 1, 2)[None] / 127.5 - 1)
    assert LEAST_DB <= decode_psnr(exact, half, latents_BCTHW) < 90
    assert decode_psnr(exact, exact, latents_BCTHW) == float("inf")
