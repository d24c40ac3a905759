"""Windows of frames to latents, pictures for image-to-video, captions to text states.

C channels, F pixel frames, T latent frames, H W height and width (latent unless pixels), S text tokens, E width of the
text encoder.
"""

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from helios.conditioning.picture import to_signed
from helios.data.sources import Source
from helios.models.text_encoder import PromptEncoder
from helios.models.vae import HeliosVAE
from helios.noise import Address, AddressedNoise, Purpose
from helios.shapes import Geometry

_WINDOW, _REPEATED = 0, 1


@dataclass(frozen=True, kw_only=True)
class WindowEncoder:
    """Encodes windows one by one, each with fresh causal state, sampling from the posterior.

    Random numbers are addressed by the seed, the name of the video and the window's place in it, so a window has the
    same latents whatever was encoded before it.

    Args:
        vae: in float32, as published (its statistics always are).
        geometry: of the checkpoint.
        seed: of the posterior's samples.
        latents_per_part: latent frames encoded at a time, for less memory; None for all of them.
    """

    vae: HeliosVAE
    geometry: Geometry
    seed: int
    latents_per_part: int | None = None

    def latents(self, window_FHWC: np.ndarray, source: Source, window: int) -> Tensor:
        """Normalised latents of a window, [C, T, H, W] float32 on the host.

        Args:
            window_FHWC: uint8.
            source: the video.
            window: number of the window in it.
        """
        return self._encode(window_FHWC, source, Address(Purpose.HISTORY_POSTERIOR, window, _WINDOW))

    def still(self, frame_HWC: np.ndarray, source: Source, window: int) -> Tensor:
        """What an image-to-video request makes of a window's last frame: [2, C, H, W], anchor and newest.

        The anchor is the picture encoded alone, the newest latent the last one of the picture held for a whole chunk.
        """
        held_FHWC = np.broadcast_to(frame_HWC, (self.geometry.chunk_frames, *frame_HWC.shape))
        anchor = self._encode(frame_HWC[None], source, Address(Purpose.ANCHOR_POSTERIOR, window, _WINDOW))
        newest = self._encode(held_FHWC, source, Address(Purpose.HISTORY_POSTERIOR, window, _REPEATED))
        return torch.stack([anchor[:, 0], newest[:, -1]])

    def _encode(self, frames_FHWC: np.ndarray, source: Source, address: Address) -> Tensor:
        device, geometry = self.vae.device, self.geometry
        frames, height, width = frames_FHWC.shape[:3]
        latent_size = geometry.latent_size(height, width)
        shape = (1, geometry.latent_channels, geometry.latent_frames(frames), *latent_size)
        noise_BCTHW = AddressedNoise((video_seed(self.seed, source),)).normal(address, shape)
        pixels_BCFHW = to_signed(torch.from_numpy(np.ascontiguousarray(frames_FHWC)).to(device))
        latents_BCTHW = self.vae.encode(pixels_BCFHW, noise_BCTHW.to(device), latents_per_part=self.latents_per_part)
        return latents_BCTHW[0].cpu()


def video_seed(seed: int, source: Source) -> int:
    """The 64-bit seed of a video's random numbers: from the run's seed, the file's name and its cut."""
    text = f"{seed} {source.file} {source.cut}"
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def text_states(encoder: PromptEncoder, caption: str, dtype: torch.dtype) -> Tensor:
    """States of one caption up to its end mark, [S, E] on the host."""
    return encoder.encode([caption])[0, : encoder.check(caption)].to("cpu", dtype).contiguous()
