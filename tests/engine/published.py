"""Diffusers' own pipelines as the oracle: loading them, and mending what keeps them from running on a CPU."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

SIZE = {"height": 64, "width": 128}
STEPS = {"base": (4,), "mid": (3, 3, 3), "distilled": (2, 2, 2)}
GUIDANCE = {"base": 5.0, "mid": 5.0, "distilled": 1.0}


def load_published(folder: Path, variant: str):
    """The Diffusers pipeline of a variant, quiet."""
    from diffusers import HeliosPipeline, HeliosPyramidPipeline
    from diffusers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    pipeline = (HeliosPipeline if variant == "base" else HeliosPyramidPipeline).from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def arguments(variant: str, *, seed: int, num_frames: int, steps: tuple[int, ...] | None = None, **more) -> dict:
    """Call arguments of the Diffusers pipeline for a run that Helios repeats."""
    steps = steps or STEPS[variant]
    call = {"num_frames": num_frames, "guidance_scale": GUIDANCE[variant], "output_type": "np", **SIZE, **more}
    call["generator"] = torch.Generator().manual_seed(seed)
    if variant == "base":
        return {**call, "num_inference_steps": steps[0]}
    call["pyramid_num_inference_steps_list"] = list(steps)
    if variant == "distilled":
        call.setdefault("is_amplify_first_chunk", True)
    return call


@contextmanager
def float64_cholesky():
    """Let the published block noise run on a CPU at gamma = 1/3, where its float32 covariance is singular (Q1)."""
    original = torch.linalg.cholesky

    def factor(matrix, **options):
        identity, ones = torch.eye(4, dtype=torch.float64), torch.ones(4, 4, dtype=torch.float64)
        gamma = 1 / 3
        expected = (1 + gamma) * identity - gamma * ones + 1e-8 * identity
        assert torch.allclose(matrix.double(), expected, atol=1e-6)
        return original(expected).to(matrix.dtype)

    torch.linalg.cholesky = factor
    try:
        yield
    finally:
        torch.linalg.cholesky = original


def run_published(pipeline, call: dict) -> np.ndarray:
    """Frames [F, H, W, 3] in [0, 1]."""
    with torch.no_grad(), float64_cholesky():
        return pipeline(**call).frames[0]


def picture(seed: int = 0, height: int = 64, width: int = 128) -> np.ndarray:
    """A random image [H, W, 3] uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def clip(frames: int, seed: int = 1, height: int = 64, width: int = 128) -> np.ndarray:
    """A random clip [F, H, W, 3] uint8."""
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def as_pictures(frames: np.ndarray) -> list[Image.Image]:
    return [Image.fromarray(frame) for frame in frames]
