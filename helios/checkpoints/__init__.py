"""Checkpoints: find, check, load and write directories in the Diffusers layout."""

from helios.checkpoints.export import save, save_transformer, save_vae
from helios.checkpoints.hub import DownloadError, resolve
from helios.checkpoints.info import CheckpointInfo, inspect
from helios.checkpoints.layout import Variant, transformer_shapes
from helios.checkpoints.load import load_prompt_encoder, load_state, load_text_encoder, load_transformer, load_vae
from helios.checkpoints.presets import Preset
from helios.checkpoints.random import write_random_checkpoint
from helios.checkpoints.report import LoadReport
from helios.checkpoints.synthetic import is_synthetic, synthetic_info

__all__ = [
    "CheckpointInfo",
    "DownloadError",
    "LoadReport",
    "Preset",
    "Variant",
    "inspect",
    "is_synthetic",
    "load_prompt_encoder",
    "load_state",
    "load_text_encoder",
    "load_transformer",
    "load_vae",
    "resolve",
    "save",
    "save_transformer",
    "save_vae",
    "synthetic_info",
    "transformer_shapes",
    "write_random_checkpoint",
]
