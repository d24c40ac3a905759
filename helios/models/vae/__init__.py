"""The Wan video VAE: whole-chunk and progressive encode and decode on Diffusers' weights."""

from helios.models.vae.vae import HeliosVAE, VAEGeometry, sample_posterior, to_uint8

__all__ = ["HeliosVAE", "VAEGeometry", "sample_posterior", "to_uint8"]
