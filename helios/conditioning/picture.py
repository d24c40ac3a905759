"""Image and video inputs as a starting history (image-to-video, video-to-video).

An image becomes the anchor and, repeated for one chunk and encoded, the newest latent. A video is cut into chunks from
its end, each encoded on its own; its first frame is the anchor. Both are noised a little, because a perfectly clean
past freezes the motion; one control, ``motion``, scales all those noise ranges together.

B batch, C channels, F pixel frames, T latent frames, H W height and width (pixels for F, latent for T).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from helios.conditioning.history import AnchorPolicy, History
from helios.errors import InputError
from helios.models.vae import HeliosVAE
from helios.noise import Address, NoiseSource, Purpose
from helios.shapes import Geometry

_RELEASED_SIGMA = (0.111, 0.135)


@dataclass(frozen=True, kw_only=True)
class Motion:
    """How much noise the given picture gets, which is how freely the video may move away from it.

    Args:
        amount: 1 is the released range of sigma, 0.111 to 0.135; 0 keeps the picture exactly; 2 doubles the range.
            Anchor and history are scaled together (the published code moves only half of them with its image range).
    """

    amount: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.amount * _RELEASED_SIGMA[1] <= 1:
            raise InputError(f"motion={self.amount:g} is out of range: use 0 (keep the picture) to 7 (nearly free)")

    @property
    def sigmas(self) -> tuple[float, float]:
        """Lowest and highest sigma of the uniform draw."""
        return self.amount * _RELEASED_SIGMA[0], self.amount * _RELEASED_SIGMA[1]


def history_from_image(
    vae: HeliosVAE,
    image_BCHW: Tensor,
    noise: NoiseSource,
    *,
    geometry: Geometry,
    anchor: AnchorPolicy,
    motion: Motion = Motion(),
) -> History:
    """The past of a video that begins with an image.

    Args:
        image_BCHW: RGB in [-1, 1] at the size of the video; one image per video.
    """
    frames_BCFHW = image_BCHW[:, :, None]
    repeated_BCFHW = frames_BCFHW.expand(-1, -1, geometry.chunk_frames, -1, -1)
    anchor_BCTHW = _encode(vae, frames_BCFHW, noise, Address(Purpose.ANCHOR_POSTERIOR), geometry)
    newest_BCTHW = _encode(vae, repeated_BCFHW, noise, Address(Purpose.HISTORY_POSTERIOR), geometry)[:, :, -1:]
    anchor_BCTHW = _noised(anchor_BCTHW, noise, motion, Purpose.ANCHOR_SIGMA, Purpose.ANCHOR_NOISE)
    newest_BCTHW = _noised(newest_BCTHW, noise, motion, Purpose.HISTORY_SIGMA, Purpose.HISTORY_NOISE)
    return _empty_like(anchor_BCTHW, geometry, anchor).append(newest_BCTHW).with_anchor(anchor_BCTHW)


def history_from_video(
    vae: HeliosVAE,
    first_BCHW: Tensor,
    chunks_BCFHW: Sequence[Tensor],
    noise: NoiseSource,
    *,
    geometry: Geometry,
    anchor: AnchorPolicy,
    motion: Motion = Motion(),
    skipped: int = 0,
) -> History:
    """The past of a video that goes on from another one.

    Args:
        first_BCHW: its very first frame, RGB in [-1, 1] at the size of the video.
        chunks_BCFHW: its last whole chunks of frames, oldest first; see :func:`last_chunks`.
        skipped: whole chunks before those, which have left the history window. They are not needed, but their random
            numbers are drawn, because the published order of draws counts them.
    """
    addresses = [Address(Purpose.HISTORY_POSTERIOR, chunk=index) for index in range(skipped + len(chunks_BCFHW))]
    shape = _latent_shape(chunks_BCFHW[0], geometry)
    anchor_BCTHW = _encode(vae, first_BCHW[:, :, None], noise, Address(Purpose.ANCHOR_POSTERIOR), geometry)
    posterior = [noise.normal(address, shape) for address in addresses]
    anchor_BCTHW = _noised(anchor_BCTHW, noise, motion, Purpose.ANCHOR_SIGMA, Purpose.ANCHOR_NOISE)
    history = _empty_like(anchor_BCTHW, geometry, anchor).with_anchor(anchor_BCTHW)
    for index, posterior_BCTHW in enumerate(posterior):
        latents_BCTHW = posterior_BCTHW.to(first_BCHW.device)
        if index >= skipped:
            latents_BCTHW = vae.encode(chunks_BCFHW[index - skipped], latents_BCTHW)
        latents_BCTHW = _noised(latents_BCTHW, noise, motion, Purpose.HISTORY_SIGMA, Purpose.HISTORY_NOISE, index)
        history = history.append(latents_BCTHW) if index >= skipped else history
    return history


def chunks_in_window(geometry: Geometry, anchor: AnchorPolicy) -> int:
    """How many whole chunks of a given video can still be seen in the history window (3 in the released models)."""
    return -(-anchor.window(geometry) // geometry.chunk_latent_frames)


def last_chunks(video_BCFHW: Tensor, geometry: Geometry) -> tuple[Tensor, ...]:
    """Whole chunks of frames aligned to the end of a video, oldest first.

    Raises: InputError when the video is shorter than one chunk.
    """
    frames, per_chunk = video_BCFHW.shape[2], geometry.chunk_frames
    count = frames // per_chunk
    if count == 0:
        raise InputError(f"the video has {frames} frame(s) at this frame rate: give it at least {per_chunk}")
    return video_BCFHW[:, :, frames - count * per_chunk :].split(per_chunk, dim=2)


def _encode(vae: HeliosVAE, pixels_BCFHW: Tensor, noise: NoiseSource, address: Address, geometry: Geometry) -> Tensor:
    posterior_BCTHW = noise.normal(address, _latent_shape(pixels_BCFHW, geometry))
    return vae.encode(pixels_BCFHW, posterior_BCTHW.to(pixels_BCFHW.device))


def _latent_shape(pixels_BCFHW: Tensor, geometry: Geometry) -> tuple[int, ...]:
    batch, _, frames, height, width = pixels_BCFHW.shape
    return batch, geometry.latent_channels, geometry.latent_frames(frames), *geometry.latent_size(height, width)


def _noised(
    latents_BCTHW: Tensor, noise: NoiseSource, motion: Motion, sigma: Purpose, normal: Purpose, chunk: int = 0
) -> Tensor:
    """``sigma * noise + (1 - sigma) * latents`` with one sigma per latent frame."""
    if motion.amount == 0:
        return latents_BCTHW
    frames = latents_BCTHW.shape[2]
    sigma_BT = noise.uniform(Address(sigma, chunk=chunk), frames, *motion.sigmas).to(latents_BCTHW.device)
    noise_BCTHW = noise.normal(Address(normal, chunk=chunk), tuple(latents_BCTHW.shape)).to(latents_BCTHW.device)
    sigma_B1T11 = sigma_BT[:, None, :, None, None]
    return sigma_B1T11 * noise_BCTHW + (1 - sigma_B1T11) * latents_BCTHW


def _empty_like(anchor_BCTHW: Tensor, geometry: Geometry, policy: AnchorPolicy) -> History:
    batch, _, _, rows, columns = anchor_BCTHW.shape
    return History.empty(batch, policy.window(geometry), geometry, rows, columns, anchor_BCTHW.device)


def to_signed(frames_FHWC: Tensor) -> Tensor:
    """uint8 RGB frames [F, H, W, 3] as [1, 3, F, H, W] float32 in [-1, 1]."""
    return frames_FHWC.permute(3, 0, 1, 2)[None].to(torch.float32) / 127.5 - 1.0
