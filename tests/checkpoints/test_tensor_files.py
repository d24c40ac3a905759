"""Safetensors headers, shard indexes and sharded writing."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from helios.checkpoints.tensor_files import read_header, read_headers, read_json, weight_files, write_tensors
from helios.errors import InputError

TENSORS = {
    "a.weight": torch.arange(12.0).view(3, 4),
    "b": torch.ones(5, dtype=torch.bfloat16),
    "c": torch.zeros((), dtype=torch.int64),
    "d": torch.zeros(0, 3),
}


@pytest.fixture
def file(tmp_path):
    save_file(TENSORS, tmp_path / "w.safetensors", metadata={"format": "pt"})
    return tmp_path / "w.safetensors"


def test_a_header_says_where_every_tensor_lies(file):
    entries, content = read_header(file), file.read_bytes()
    assert {name: (entry.shape, entry.dtype) for name, entry in entries.items()} == {
        name: (tuple(tensor.shape), tensor.dtype) for name, tensor in TENSORS.items()
    }
    entry = entries["a.weight"]
    assert content[entry.offset : entry.offset + entry.size] == TENSORS["a.weight"].numpy().tobytes()


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 1))
def test_a_file_cut_anywhere_is_refused_by_name(tmp_path_factory, share):
    whole = tmp_path_factory.mktemp("cut") / "whole.safetensors"
    save_file(TENSORS, whole)
    content = whole.read_bytes()
    cut = whole.with_name("cut.safetensors")
    cut.write_bytes(content[: int(share * (len(content) - 1))])
    with pytest.raises(InputError, match=r"cut\.safetensors' (is|cannot)") as refusal:
        read_header(cut)
    assert "download it again" in str(refusal.value)


def test_a_truncated_file_says_how_much_is_there(file):
    total = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(
        InputError, match=rf"w.safetensors' is truncated, it has {total - 7} of {total} bytes: download"
    ):
        read_header(file)


@pytest.mark.parametrize(
    "content",
    [
        b"not a safetensors file at all" * 10,
        (8).to_bytes(8, "little") + b"[1, 2  ]",
        (2).to_bytes(8, "little") + b"{x",
        (48).to_bytes(8, "little") + b'{"a":{"dtype":"F99","shape":[],"data_offsets":[]}}'[:48],
    ],
)
def test_damaged_files_are_refused(tmp_path, content):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(content)
    with pytest.raises(InputError, match="damaged.safetensors' is "):
        read_header(damaged)


def test_a_byte_range_that_does_not_match_the_shape_is_refused(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}).encode()
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(InputError, match="is not a safetensors file or is damaged: download it again"):
        read_header(wrong)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot read '.*gone.safetensors' \(No such file or directory\)"):
        read_header(tmp_path / "gone.safetensors")


def test_writing_and_reading_shards(tmp_path):
    tensors = {f"t{index}": torch.full((100,), float(index)) for index in range(7)}
    files = write_tensors(tmp_path, "model", tensors, max_shard_bytes=1000)
    assert [file.name for file in files] == [f"model-0000{i}-of-00004.safetensors" for i in (1, 2, 3, 4)]
    assert weight_files(tmp_path, "model") == files
    merged = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert merged.keys() == tensors.keys() and all(torch.equal(merged[name], tensors[name]) for name in tensors)
    assert json.loads((tmp_path / "model.safetensors.index.json").read_text())["metadata"]["total_size"] == 2800


def test_one_tensor_larger_than_a_shard_gets_its_own(tmp_path):
    files = write_tensors(tmp_path, "model", {"a": torch.zeros(9), "b": torch.zeros(900)}, max_shard_bytes=100)
    assert len(files) == 2


def test_a_missing_shard_is_refused_by_name(tmp_path):
    files = write_tensors(tmp_path, "model", {"a": torch.zeros(9), "b": torch.zeros(9)}, max_shard_bytes=10)
    files[1].unlink()
    with pytest.raises(InputError, match=r"lacks 'model-00002-of-00002.safetensors' \(1 of 2 shards are missing\)"):
        weight_files(tmp_path, "model")


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no weights: expected 'model.safetensors' or 'model.safetensors.index"):
        weight_files(tmp_path, "model")


def test_an_index_without_a_map_is_refused(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(InputError, match="index.json' has no weight_map: download it again"):
        weight_files(tmp_path, "model")


def test_a_name_in_two_files_is_refused(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "b.safetensors")
    with pytest.raises(InputError, match="'x' is in 'a.safetensors' and in 'b.safetensors': remove one of them"):
        read_headers([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])


def test_json_refusals(tmp_path):
    with pytest.raises(InputError, match="cannot read '.*gone.json' .*: the checkpoint is incomplete"):
        read_json(tmp_path / "gone.json")
    (tmp_path / "broken.json").write_text('{"a": ')
    with pytest.raises(InputError, match="broken.json' is not valid JSON: download it again"):
        read_json(tmp_path / "broken.json")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(InputError, match="list.json' does not hold a JSON object: download it again"):
        read_json(tmp_path / "list.json")
