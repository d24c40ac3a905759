"""Training a small video VAE of the Wan family: the graph is the one that encodes and decodes in generation.

B batch, C channels, F pixel frames, T latent frames, H W height and width in pixels.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from helios.errors import InputError
from helios.models.vae import HeliosVAE
from helios.models.vae.vae import sample_posterior
from helios.schedulers.renoise import downsample_mean
from helios.training.clips import PixelClip
from helios.training.methods.base import checked_share
from helios.training.network import Float32, Precision
from helios.training.player import Player
from helios.training.seeds import Draws, Purpose


@dataclass(frozen=True, kw_only=True)
class VaeLoss:
    """``|e| + square * e^2 + edges * |grad e| + motion * |de/dt| + kl * KL`` of the error ``e``, means over all numbers.

    The square rules while errors are large, the absolute value when they are small. Differences between neighbouring
    pixels and frames stand in for a perceptual loss, whose network cannot be trained from here: plain L1 leaves edges
    soft and static.

    Args:
        square: weight of the squared error.
        edges: weight of spatial differences.
        motion: weight of differences between frames.
        kl: weight of the divergence from the standard normal, per latent number. Small: the latents' scale is set
            afterwards by their measured statistics.
    """

    square: float = 3.0
    edges: float = 0.25
    motion: float = 0.25
    kl: float = 1e-5

    def __post_init__(self) -> None:
        if min(self.square, self.edges, self.motion, self.kl) < 0:
            raise InputError(
                f"loss weights square={self.square}, edges={self.edges}, motion={self.motion}, kl={self.kl} must not "
                "be negative"
            )

    def __call__(
        self, wanted_BCFHW: Tensor, got_BCFHW: Tensor, mean: Tensor, log_variance: Tensor
    ) -> dict[str, Tensor]:
        """Every term and their weighted sum ``loss``, in float32."""
        error = got_BCFHW.float() - wanted_BCFHW.float()
        edges = error.diff(dim=3).abs().mean() + error.diff(dim=4).abs().mean()
        motion = error.diff(dim=2).abs().mean() if error.shape[2] > 1 else error.new_zeros(())
        l1, kl = error.abs().mean(), divergence(mean.float(), log_variance.float())
        loss = l1 + self.square * error.square().mean() + self.edges * edges + self.motion * motion + self.kl * kl
        return {"loss": loss, "l1": l1, "edges": edges, "motion": motion, "kl": kl}


@dataclass(frozen=True, kw_only=True)
class Whole:
    """The whole window of a clip."""

    def cut(self, frames_FHWC: Tensor, generator) -> Tensor:
        """The window itself."""
        return frames_FHWC


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A random part of the window: the convolutions learn as much from it, for less.

    Args:
        frames: pixel frames, temporal factor times a whole number, plus 1.
        size: height and width in pixels.
    """

    frames: int = 17
    size: int = 32

    def cut(self, frames_FHWC: Tensor, generator) -> Tensor:
        """One part, placed by a NumPy generator.

        Raises: InputError when the window is smaller.
        """
        count, height, width = frames_FHWC.shape[:3]
        if count < self.frames or min(height, width) < self.size:
            raise InputError(
                f"a window of {count} frames of {height}x{width} is smaller than the crop of {self.frames} frames "
                f"of {self.size}x{self.size}: lower the crop"
            )
        t, y, x = (
            int(generator.integers(room + 1)) for room in (count - self.frames, height - self.size, width - self.size)
        )
        return frames_FHWC[t : t + self.frames, y : y + self.size, x : x + self.size]


class VaeTraining:
    """Reconstruct windows of video through a sampled latent.

    In a share of the steps latents and pictures are halved between encoder and decoder: what the mean of four latents
    decodes to should be the mean of the pixels (scale equivariance; Kouzelis et al. 2025, Skorokhodov et al. 2025). The
    pyramid halves latents in just this way, and such latents are learnt in far fewer steps.

    Args:
        player: its module is ``vae.module``.
        vae: the VAE in training.
        loss: what a reconstruction costs.
        view: whole windows or crops.
        halved: that share.
        precision: of the convolutions.
    """

    def __init__(
        self,
        player: Player,
        vae: HeliosVAE,
        loss: VaeLoss = VaeLoss(),
        view: Whole | Crop = Whole(),
        halved: float = 0.0,
        precision: Precision = Float32(),
    ):
        self.players = (player,)
        self.vae, self.loss, self.view, self.precision = vae, loss, view, precision
        self.halved = checked_share(halved=halved)

    def turns(self, step: int) -> tuple[str, ...]:
        """The VAE moves in every step."""
        return (self.players[0].name,)

    def backward(self, player: str, items: Sequence[PixelClip], draws: Draws, scale: float) -> dict[str, Tensor]:
        """See :class:`helios.training.methods.base.Method`."""
        generators = draws.generators(Purpose.CROP)
        frames = [self.view.cut(item.frames_FHWC, generator) for item, generator in zip(items, generators)]
        pixels_BCFHW = to_signed(torch.stack(frames)).to(self.vae.device)
        with self.precision.context(self.vae.device):
            mean, log_variance = self.vae.encode_moments(pixels_BCFHW)
            noise = draws.normal(Purpose.POSTERIOR, *mean.shape[1:]).to(mean)
            latents_BCTHW = sample_posterior(mean, log_variance, noise)
            if draws.synchronous(Purpose.COARSE).random() < self.halved:
                latents_BCTHW, pixels_BCFHW = downsample_mean(latents_BCTHW), downsample_mean(pixels_BCFHW)
            rebuilt_BCFHW = self.vae.decode_raw(latents_BCTHW)
        terms = self.loss(pixels_BCFHW, rebuilt_BCFHW, mean, log_variance)
        (terms["loss"] * scale).backward()
        return {name: term.detach() for name, term in terms.items()}


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) per number: ``0.5 * (mean^2 + variance - 1 - log_variance)``, its mean."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def to_signed(frames_BFHWC: Tensor) -> Tensor:
    """uint8 RGB [B, F, H, W, 3] as [B, 3, F, H, W] float32 in [-1, 1]."""
    return frames_BFHWC.permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0


@torch.no_grad()
def set_latent_statistics(vae: HeliosVAE, windows: Iterable[Tensor]) -> None:
    """Measure mean and standard deviation of every latent channel and write them into the VAE's configuration.

    Encoded clips are then normalised with them, in float32 throughout (the published encoder rounds them to bfloat16).
    Frames of one window are encoded as in generation, so the single-frame latents count with their share.

    Args:
        windows: uint8 [B, F, H, W, 3] batches of whole windows.
    Raises: InputError when there are no windows.
    """
    count, total, squares = 0, 0.0, 0.0
    for frames_BFHWC in windows:
        mean, log_variance = vae.encode_moments(to_signed(frames_BFHWC).to(vae.device))
        mean, variance = mean.double(), log_variance.double().exp()
        count += mean.numel() // mean.shape[1]
        total = total + mean.sum((0, 2, 3, 4))
        squares = squares + (mean.square() + variance).sum((0, 2, 3, 4))
    if count == 0:
        raise InputError("there are no windows to measure the latents on: pass at least one batch")
    center = total / count
    spread = (squares / count - center.square()).clamp(min=1e-12).sqrt()
    vae.module.register_to_config(latents_mean=center.tolist(), latents_std=spread.tolist())
