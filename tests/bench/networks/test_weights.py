import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from helios.bench.metrics.base import Unavailable
from helios.bench.networks import weights
from helios.bench.networks.weights import (
    ALL_FILES,
    AMT_S,
    NoWeights,
    WeightFolder,
    WeightHub,
    convert_to_safetensors,
    doctor,
    load_strictly,
    read_state,
)
from helios.errors import InputError


@pytest.fixture
def state():
    return {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(2)}


def test_pickles_safetensors_and_nested_states_read_alike(tmp_path, state):
    torch.save(state, tmp_path / "flat.pth")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "nested.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "a.safetensors")
    for name in ("flat.pth", "nested.pth", "old.pth", "a.safetensors"):
        found = read_state(tmp_path / name, key="state_dict")
        assert all(torch.equal(found[key], state[key]) for key in state)


def test_code_in_a_pickle_is_not_run(tmp_path):
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (open, (str(ran), "w"))

    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match=r"evil\.pth: cannot be read"):
        read_state(tmp_path / "evil.pth")
    assert not ran.exists()


def test_other_torchscript_archives_are_refused(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "code.pt"))
    with pytest.raises(InputError, match="holds code"):
        read_state(tmp_path / "code.pt")


def test_the_published_archive_is_opened_by_its_hash(tmp_path, monkeypatch):
    import dataclasses

    path = tmp_path / "ViT-L-14.pt"
    torch.jit.script(nn.Linear(2, 2)).save(str(path))
    known = dataclasses.replace(weights.AESTHETIC_TOWER, sha256=weights.sha256(path))
    monkeypatch.setattr(weights, "AESTHETIC_TOWER", known)
    assert set(read_state(path)) == {"weight", "bias"}


@pytest.mark.parametrize("content", [b"", b"garbage" * 40, b"PK\x03\x04 not really a zip"])
def test_damaged_files_are_named(tmp_path, content):
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            read_state(tmp_path / name)


def test_a_truncated_checkpoint_is_named(tmp_path, state):
    torch.save({"w": torch.randn(200, 200)}, tmp_path / "a.pth")
    data = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"a\.pth"):
        read_state(tmp_path / "a.pth")


def test_something_else_in_a_pickle(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "numbers.pth")
    for name in ("list.pth", "numbers.pth"):
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            read_state(tmp_path / name, key="model")


def test_loading_is_strict(state):
    def empty():
        with torch.device("meta"):
            return nn.Linear(3, 2)

    loaded = load_strictly(empty(), state, "linear.pth")
    assert torch.equal(loaded.weight, state["weight"]) and not loaded.weight.requires_grad and not loaded.training
    with pytest.raises(InputError, match=r"linear\.pth.*1 missing \(first bias\), 1 unexpected \(first extra\)"):
        load_strictly(empty(), {"weight": state["weight"], "extra": state["bias"]}, "linear.pth")
    with pytest.raises(InputError, match=r"1 misshapen \(first weight\)"):
        load_strictly(empty(), {**state, "weight": torch.zeros(3, 2)}, "linear.pth")


def test_a_folder_may_be_flat_or_like_the_bundle(tmp_path):
    (tmp_path / "amt-s.pth").write_bytes(b"x")
    assert WeightFolder(path=tmp_path).find(AMT_S).name == "amt-s.pth"
    (tmp_path / "amt_model").mkdir()
    (tmp_path / "amt_model" / "amt-s.pth").write_bytes(b"y")
    assert WeightFolder(path=tmp_path).find(AMT_S).parent.name == "amt_model"


def test_what_is_not_there_is_unavailable(tmp_path, monkeypatch):
    for store in (NoWeights(), WeightFolder(path=tmp_path)):
        with pytest.raises(Unavailable, match=r"AMT-S.*amt_model/amt-s\.pth"):
            store.find(AMT_S)
    with pytest.raises(InputError, match="not a folder"):
        WeightFolder(path=tmp_path / "absent")

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(Unavailable, match="could not be fetched"):
        WeightHub().find(AMT_S)


def test_the_hub_is_asked_for_the_bundles_path(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *a, **k: asked.append((a, k)) or str(tmp_path / "f"))
    WeightHub().find(AMT_S)
    assert asked == [(("BestWishYsh/HeliosBench-Weights", "amt_model/amt-s.pth"), {"revision": None})]


def test_doctor_lists_every_file(tmp_path):
    (tmp_path / "ViT-L-14.pt").write_bytes(b"not it")
    lines = {line.file.paths[0]: line for line in doctor(WeightFolder(path=tmp_path))}
    assert len(lines) == len(ALL_FILES)
    tower = lines["aesthetic_model/ViT-L-14.pt"]
    assert tower.sha256 and "differs from the published b8cca3fd" in tower.problem
    assert lines["amt_model/amt-s.pth"].path is None and "needs AMT-S" in lines["amt_model/amt-s.pth"].problem


def test_conversion_to_safetensors(tmp_path, state):
    torch.save({"model": state}, tmp_path / "a.pth")
    path = convert_to_safetensors(tmp_path / "a.pth", tmp_path / "a.safetensors", key="model")
    assert torch.equal(read_state(path)["weight"], state["weight"])
