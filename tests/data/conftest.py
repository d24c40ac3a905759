"""A tiny checkpoint's parts, loaded once, and a data set that was prepared with it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from helios.checkpoints import inspect, load_prompt_encoder, load_vae
from helios.data import Buckets, PrepareConfig, earlier_plan, find_sources, make_plan, preparation
from tests.data.videos import write_folder

SIZE = (32, 32)
CONFIG = PrepareConfig(buckets=Buckets(sizes=(SIZE,)), shard_chunks=2)


@pytest.fixture(scope="session")
def model(tiny):
    """Info, VAE and prompt encoder of a tiny Base model."""
    info = inspect(tiny("base"))
    encoder = load_prompt_encoder(info, "cpu", torch.float32)
    return SimpleNamespace(info=info, vae=load_vae(info, "cpu"), encoder=encoder)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Three captioned videos of 2, 1 and 3 chunks."""
    return write_folder(tmp_path_factory.mktemp("videos"), {"a.mp4": 70, "b/c.mp4": 34, "d.mp4": 99})


@pytest.fixture
def make(model, monkeypatch):
    """A function that prepares a folder with the tiny model, from looking to the index."""
    monkeypatch.setattr(preparation, "load_vae", lambda info, device: model.vae)
    monkeypatch.setattr(preparation, "load_prompt_encoder", lambda info, device, dtype: model.encoder)

    def run(folder, out, *, config=CONFIG, info=model.info, **kwargs):
        changes = {key: kwargs.pop(key) for key in list(kwargs) if key in PrepareConfig.__dataclass_fields__}
        plan = make_plan(find_sources(folder), info, replace(config, **changes), earlier=earlier_plan(out))
        return preparation.prepare(plan, info, out, device="cpu", **kwargs)

    return run


@pytest.fixture
def prepared(folder, tmp_path, make):
    """The folder's data set."""
    make(folder, tmp_path / "data")
    return tmp_path / "data"
