"""The Wan video VAE: pixels to normalised latents and back, a whole chunk at a time.

Letters: B batch, C channels, F pixel frames, T latent frames, H W height and width (of latents, unless pixels are meant).

Weights and configuration are those of Diffusers' ``AutoencoderKLWan``; encoding and decoding are our own. Diffusers
walks a chunk latent by latent with cached frames; the convolutions being causal, one pass over the whole chunk is the
same mathematics.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from helios.errors import InputError
from helios.models.vae import coder
from helios.models.vae.memory import NoMemory, StreamMemory
from helios.ops.backends import preferring

LOG_VARIANCE_RANGE = (-30.0, 20.0)


@dataclass(frozen=True, kw_only=True)
class VAEGeometry:
    """Sizes that a VAE's layers imply.

    Args:
        spatial: pixels per latent along height and width.
        temporal: pixel frames per latent frame after the first.
        latent_channels: channels of a latent.
    """

    spatial: int = 8
    temporal: int = 4
    latent_channels: int = 16

    @property
    def z_dim(self) -> int:
        """Diffusers' name for ``latent_channels``."""
        return self.latent_channels

    def latent_frames(self, pixel_frames: int) -> int:
        return (pixel_frames - 1) // self.temporal + 1

    def pixel_frames(self, latent_frames: int) -> int:
        return (latent_frames - 1) * self.temporal + 1


class HeliosVAE:
    """Encode and decode with the weights of an ``AutoencoderKLWan``.

    :meth:`encode`, :meth:`decode` and :meth:`decode_progressive` never record gradients;
    :meth:`encode_moments` and :meth:`decode_raw` are the same graphs for training.

    Args:
        module: the loaded Diffusers model. It stays the owner of the weights: train ``vae.module``, save it with
            ``vae.module.save_pretrained``; nothing derived from the weights is kept here.
    Attributes:
        backends: what decoding prefers, by operation (:func:`helios.ops.backends.preferring`); empty at first.
    Raises: InputError for a VAE outside the Wan 2.1 family, or whose scale factors contradict its layers.
    """

    def __init__(self, module: Any):
        self.module = module
        self.geometry = geometry_of(module.config)
        self.backends: dict[str, str] = {}
        self._statistics_on: dict[torch.device, tuple] = {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], state: Mapping[str, Tensor] | None = None) -> Self:
        """Build from a ``vae/config.json`` and, where given, its tensors (all of them; PyTorch refuses a partial set)."""
        from diffusers import AutoencoderKLWan

        geometry_of({**default_config(), **config})
        module = AutoencoderKLWan.from_config(dict(config)).eval()
        if state is not None:
            module.load_state_dict(state)
        return cls(module)

    @property
    def config(self) -> Mapping[str, Any]:
        """The Diffusers configuration."""
        return self.module.config

    @property
    def device(self) -> torch.device:
        return self.module.quant_conv.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.module.quant_conv.weight.dtype

    def to(self, *args, **kwargs) -> Self:
        """Move or cast the weights, as ``nn.Module.to``; returns this object."""
        nn.Module.to(self.module, *args, **kwargs)  # Diffusers' own adds a warning about an empty list
        return self

    @torch.no_grad()
    def encode(
        self,
        pixels_BCFHW: Tensor,
        sample_noise_BCTHW: Tensor | None = None,
        *,
        latents_per_part: int | None = None,
    ) -> Tensor:
        """Normalised latents of a clip, with fresh causal state.

        Args:
            pixels_BCFHW: in [-1, 1]; F = temporal * m + 1 frames, height and width multiples of ``geometry.spatial``.
            sample_noise_BCTHW: standard normal draw in the latents' shape: the posterior's sample is
                ``mean + std * noise``. None takes the mean.
            latents_per_part: encode that many latent frames at a time, for less memory; None for all of them.
        Returns: [B, C, T, H, W], float32.
        Raises: InputError for shapes the VAE cannot take.
        """
        if latents_per_part is None:
            mean, log_variance = self.encode_moments(pixels_BCFHW)
        else:
            mean, log_variance = self._moments_in_parts(pixels_BCFHW, latents_per_part)
        latents = mean.float()
        if sample_noise_BCTHW is not None:
            self._check_noise(sample_noise_BCTHW, latents)
            latents = sample_posterior(latents, log_variance.float(), sample_noise_BCTHW.to(latents))
        return self.normalize(latents)

    def encode_moments(self, pixels_BCFHW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (clamped to [-30, 20]) of the posterior, not normalised, with gradients."""
        self._check_pixels(pixels_BCFHW)
        return mean_and_log_variance(coder.encode(self.module, pixels_BCFHW.to(self.device, self.dtype), NoMemory()))

    def _moments_in_parts(self, pixels_BCFHW: Tensor, latents_per_part: int) -> tuple[Tensor, Tensor]:
        self._check_pixels(pixels_BCFHW)
        check_part(latents_per_part)
        memory, moments = StreamMemory(), []
        frames_per_part = self.geometry.temporal * latents_per_part
        first = self.geometry.pixel_frames(latents_per_part)
        parts = [pixels_BCFHW[:, :, :first], *pixels_BCFHW[:, :, first:].split(frames_per_part, dim=2)]
        for part in parts:
            if part.shape[2] > 0:  # splitting nothing gives one empty part
                moments.append(coder.encode(self.module, part.to(self.device, self.dtype), memory))
                memory.finish_part()
        return mean_and_log_variance(torch.cat(moments, dim=2))

    @torch.no_grad()
    def decode(self, latents_BCTHW: Tensor, *, latents_per_part: int | None = None) -> Tensor:
        """Pixels of a chunk, all at once, with fresh causal state.

        Args:
            latents_BCTHW: normalised latents; T latent frames become ``temporal * (T - 1) + 1`` pixel frames.
            latents_per_part: decode that many latent frames at a time, for less memory; None for all of them.
        Returns: [B, 3, F, 8 H, 8 W] for the released spatial factor of 8, clamped to [-1, 1], in the weights' precision.
        Raises: InputError for shapes the VAE cannot take.
        """
        if latents_per_part is not None:
            return torch.cat(list(self.decode_progressive(latents_BCTHW, latents_per_part=latents_per_part)), dim=2)
        self._check_latents(latents_BCTHW)
        return self.decode_raw(self.denormalize(latents_BCTHW)).clamp_(-1.0, 1.0)

    def decode_raw(self, latents_BCTHW: Tensor) -> Tensor:
        """Pixels, not clamped, of latents in the VAE's own scale (not normalised), with gradients."""
        self._check_latents(latents_BCTHW)
        with preferring(self.backends):
            return coder.decode(self.module, latents_BCTHW.to(self.device, self.dtype), NoMemory())

    def decode_progressive(self, latents_BCTHW: Tensor, *, latents_per_part: int = 1) -> Iterator[Tensor]:
        """Pixels of a chunk in parts, each as soon as it is ready; together they equal :meth:`decode`.

        Args:
            latents_BCTHW: normalised latents of one chunk.
            latents_per_part: latent frames decoded at a time; the first part holds ``temporal * (n - 1) + 1`` frames,
                the later ones ``temporal * n``. Few latents show the first frame early and need little memory.
        """
        self._check_latents(latents_BCTHW)
        check_part(latents_per_part)
        return self._parts(latents_BCTHW, latents_per_part)

    def _parts(self, latents_BCTHW: Tensor, latents_per_part: int) -> Iterator[Tensor]:
        memory = StreamMemory()
        for part in latents_BCTHW.split(latents_per_part, dim=2):
            with torch.no_grad(), preferring(self.backends):
                latents = self.denormalize(part).to(self.device, self.dtype)
                pixels = coder.decode(self.module, latents, memory).clamp(-1.0, 1.0)
            memory.finish_part()
            yield pixels

    @staticmethod
    def to_uint8(pixels_BCFHW: Tensor) -> Tensor:
        """See :func:`to_uint8`."""
        return to_uint8(pixels_BCFHW)

    def normalize(self, latents_BCTHW: Tensor) -> Tensor:
        """``(latents - mean) / std`` with the configuration's statistics per channel, in float32."""
        mean, inverse_std = self._statistics(latents_BCTHW.device)
        return (latents_BCTHW.float() - mean) * inverse_std

    def denormalize(self, latents_BCTHW: Tensor) -> Tensor:
        """Inverse of :meth:`normalize`, in float32."""
        mean, inverse_std = self._statistics(latents_BCTHW.device)
        return latents_BCTHW.float() / inverse_std + mean

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and inverse standard deviation, copied to a device once per value (training measures them anew)."""
        values = tuple(self.config["latents_mean"]), tuple(self.config["latents_std"])
        if self._statistics_on.get(device, (None,))[0] != values:
            with torch.inference_mode(False):  # they may meet gradients later
                mean, std = (torch.tensor(value).view(1, -1, 1, 1, 1) for value in values)
                self._statistics_on[device] = values, mean.to(device), (1.0 / std).to(device)
        return self._statistics_on[device][1:]

    def _check_pixels(self, pixels: Tensor) -> None:
        spatial, temporal = self.geometry.spatial, self.geometry.temporal
        if pixels.dim() != 5 or pixels.shape[1] != self.config["in_channels"]:
            wanted = f"[batch, {self.config['in_channels']}, frames, height, width]"
            raise InputError(f"pixels of shape {tuple(pixels.shape)} cannot be encoded: pass {wanted}")
        frames, height, width = pixels.shape[2:]
        if frames < 1 or (frames - 1) % temporal:
            fitting = max(frames - 1, 0) // temporal * temporal + 1
            raise InputError(f"{frames} frames cannot be encoded: pass {temporal} * m + 1, for example {fitting}")
        if min(height, width) < 1 or height % spatial or width % spatial:
            raise InputError(f"{height}x{width} frames cannot be encoded: both sides must be multiples of {spatial}")

    def _check_latents(self, latents: Tensor) -> None:
        channels = self.geometry.latent_channels
        if latents.dim() != 5 or latents.shape[1] != channels or 0 in latents.shape:
            wanted = f"[batch, {channels}, frames, height, width]"
            raise InputError(f"latents of shape {tuple(latents.shape)} cannot be decoded: pass {wanted}")

    def _check_noise(self, noise: Tensor, latents: Tensor) -> None:
        if noise.shape != latents.shape:
            raise InputError(f"sample noise of shape {tuple(noise.shape)} does not fit: draw {tuple(latents.shape)}")


def check_part(latents_per_part: int) -> None:
    """Refuse parts that hold nothing."""
    if latents_per_part < 1:
        raise InputError(f"latents_per_part={latents_per_part} leaves nothing to do: use 1 or more")


def mean_and_log_variance(moments: Tensor) -> tuple[Tensor, Tensor]:
    """The two halves of the encoder's channels; the log-variance is clamped to [-30, 20]."""
    mean, log_variance = moments.chunk(2, dim=1)
    return mean, log_variance.clamp(*LOG_VARIANCE_RANGE)


def sample_posterior(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """``mean + exp(log_variance / 2) * noise``."""
    return mean + torch.exp(0.5 * log_variance) * noise


def to_uint8(pixels_BCFHW: Tensor) -> Tensor:
    """Pixels in [-1, 1] as bytes, on their device: -1 is 0, 1 is 255, rounded to the nearest (ties to even).

    Returns: [B, F, H, W, 3] uint8; values outside the range are clamped.
    """
    scaled = pixels_BCFHW.float().mul(0.5).add_(0.5).clamp_(0.0, 1.0).mul_(255.0).round_()
    return scaled.to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous()


def geometry_of(config: Mapping[str, Any]) -> VAEGeometry:
    """The sizes implied by a VAE configuration.

    Raises: InputError when the configuration is not of the Wan 2.1 family or contradicts itself.
    """
    if "temperal_downsample" not in config:
        raise InputError(f"{config.get('_class_name', 'this VAE')} is not an AutoencoderKLWan: use a Wan 2.1 VAE")
    for name in ("is_residual", "patch_size", "attn_scales"):
        if config[name]:
            raise InputError(f"this VAE has {name}={config[name]!r}: only the Wan 2.1 family without it is supported")
    halvings, times = len(config["dim_mult"]) - 1, config["temperal_downsample"]
    if len(times) != halvings:
        raise InputError(f"this VAE has {len(times)} temperal_downsample entries: its dim_mult needs {halvings}")
    geometry = VAEGeometry(spatial=2**halvings, temporal=2 ** sum(map(bool, times)), latent_channels=config["z_dim"])
    for name, value in (("scale_factor_spatial", geometry.spatial), ("scale_factor_temporal", geometry.temporal)):
        if config[name] != value:
            raise InputError(
                f"this VAE says {name}={config[name]} but its layers give {value}: correct its config.json"
            )
    for name in ("latents_mean", "latents_std"):
        if len(config[name]) != geometry.latent_channels:
            count = len(config[name])
            raise InputError(
                f"this VAE has {count} {name} entries: give one for each of its {config['z_dim']} channels"
            )
    return geometry


def default_config() -> dict[str, Any]:
    """What ``AutoencoderKLWan`` assumes for absent configuration keys."""
    import inspect

    from diffusers import AutoencoderKLWan

    parameters = inspect.signature(AutoencoderKLWan.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
