"""Shared fixtures: one tiny random checkpoint per variant, and Helios loaded from it."""

import os
from functools import cache
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

torch.set_num_threads(int(os.environ.get("HELIOS_TEST_THREADS", "1")))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A function from variant name (base, mid, distilled) to the folder of a tiny random checkpoint."""
    from helios.checkpoints.layout import Variant
    from helios.checkpoints.random import write_random_checkpoint

    root = tmp_path_factory.mktemp("checkpoints")

    @cache
    def folder(variant: str) -> Path:
        write_random_checkpoint(root / variant, Variant(variant))
        return root / variant

    return folder


@pytest.fixture(scope="session")
def helios_of(tiny):
    """A function from variant name to a loaded Helios on the CPU in float32."""
    from helios import Helios

    return cache(lambda variant: Helios.from_pretrained(tiny(variant), device="cpu", dtype="float32"))
