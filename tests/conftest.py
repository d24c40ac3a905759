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
def compiler():
    """Skips a test that compiles where no C++ compiler is installed."""
    from helios.engine.acceleration import require_compiler
    from helios.errors import InputError

    try:
        require_compiler()
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture
def no_compiler():
    """A machine without a C++ compiler."""
    import torch._inductor.config

    with torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")}):
        yield


@pytest.fixture(scope="session")
def helios_of(tiny):
    """A function from variant name to a loaded Helios on the CPU in float32."""
    from helios import Helios

    return cache(lambda variant: Helios.from_pretrained(tiny(variant), device="cpu", dtype="float32"))
