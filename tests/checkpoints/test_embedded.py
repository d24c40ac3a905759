import os

import pytest
import torch
from safetensors.torch import load_file

from helios.checkpoints import Variant, embedded, inspect, load_transformer, resolve
from helios.checkpoints.embedded import embedded_checkpoint, write_embedded
from helios.errors import InputError


@pytest.fixture
def package(tmp_path, tiny, monkeypatch):
    """A package with three tiny models and an empty cache; the tiny models share their parts, made with one seed."""
    target = tmp_path / "assets" / "small"
    target.parent.mkdir()
    write_embedded(target, {variant: tiny(variant.value) for variant in Variant})
    monkeypatch.setattr(embedded, "EMBEDDED", target)
    monkeypatch.setenv("HELIOS_CACHE", str(tmp_path / "cache"))
    embedded._digest.cache_clear()
    yield target
    embedded._digest.cache_clear()


@pytest.mark.parametrize("variant", Variant)
def test_a_small_model_is_put_together_once(package, tiny, tmp_path, variant):
    path = resolve(f"small-{variant}")
    info = inspect(path)
    assert info.variant is variant and path.parent == tmp_path / "cache"
    stamp = (path / "model_index.json").stat().st_mtime_ns
    assert resolve(f"small-{variant}") == path and (path / "model_index.json").stat().st_mtime_ns == stamp
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [path.name]
    wanted = load_transformer(inspect(tiny(variant.value)), torch.device("cpu"), torch.float32).state_dict()
    got = load_transformer(info, torch.device("cpu"), torch.float32).state_dict()
    for name, value in wanted.items():
        assert got[name].dtype == torch.float32
        torch.testing.assert_close(got[name], value, rtol=1e-3, atol=1e-4)


def test_the_default_is_distilled(package):
    assert inspect(resolve()).variant is Variant.DISTILLED


def test_weights_are_stored_once_and_in_half_precision(package):
    files = sorted(path.relative_to(package).as_posix() for path in package.rglob("*.safetensors"))
    assert sum(name.startswith("vae/") for name in files) == 1
    assert sum("transformer/" in name for name in files) == 3
    for name in files:
        assert {value.dtype for value in load_file(package / name).values()} == {torch.float16}


def test_new_weights_replace_everything_but_the_model_card(package, tiny):
    (package / "README.md").write_text("the card")
    (package / "old.safetensors").touch()
    write_embedded(package, {variant: tiny(variant.value) for variant in Variant})
    assert (package / "README.md").read_text() == "the card" and not (package / "old.safetensors").exists()


def test_other_weights_get_another_place_in_the_cache(package, tiny):
    before = embedded_checkpoint()
    (package / "vae" / "config.json").write_text((package / "vae" / "config.json").read_text() + "\n")
    embedded._digest.cache_clear()
    assert embedded_checkpoint() != before


def test_models_that_share_nothing_are_not_shipped_together(tmp_path, tiny):
    import shutil

    other = tmp_path / "other"
    shutil.copytree(tiny("mid"), other)
    (other / "tokenizer" / "extra.json").write_text("{}")
    with pytest.raises(InputError, match="do not share their tokenizer"):
        write_embedded(tmp_path / "small", {Variant.BASE: tiny("base"), Variant.MID: other})
    assert not (tmp_path / "small").exists()


def test_a_package_without_models_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "EMBEDDED", tmp_path / "none")
    with pytest.raises(InputError, match="this installation holds no small-distilled"):
        resolve()


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_a_cache_that_cannot_be_written_is_named(package, tmp_path, monkeypatch):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    monkeypatch.setenv("HELIOS_CACHE", str(closed))
    with pytest.raises(InputError, match="set HELIOS_CACHE"):
        resolve()


def test_a_cache_below_a_file_is_named(package, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HELIOS_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot be written .*: set HELIOS_CACHE"):
        resolve()
