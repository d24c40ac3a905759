"""Weights arrive whole, in the right precision, once; what does not fit is named."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from helios.checkpoints import inspect, load_state, load_text_encoder, load_transformer, load_vae
from helios.checkpoints.load import read_tensor, weightless
from helios.checkpoints.random import write_random_checkpoint
from helios.checkpoints.tensor_files import read_header, weight_files
from helios.errors import InputError
from helios.models.transformer.precision import keeps_float32

WEIGHTS = "diffusion_pytorch_model.safetensors"


def stored(checkpoint, component, stem="diffusion_pytorch_model"):
    files = weight_files(checkpoint / component, stem)
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_transformer_equals_diffusers_loading_in_values_and_precision(tiny, dtype):
    from diffusers import HeliosTransformer3DModel

    oracle = HeliosTransformer3DModel.from_pretrained(tiny("base") / "transformer", dtype=dtype).state_dict()
    ours = load_transformer(inspect(tiny("base")), "cpu", dtype)
    assert not ours.training
    state = ours.state_dict()
    assert state.keys() == oracle.keys()
    for name, tensor in state.items():
        assert tensor.dtype == oracle[name].dtype and torch.equal(tensor, oracle[name]), name
        assert tensor.dtype == (torch.float32 if keeps_float32(name) else dtype)
    assert not any(tensor.is_meta for tensor in [*ours.parameters(), *ours.buffers()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_vae_equals_its_file(tiny, dtype):
    vae = load_vae(inspect(tiny("base")), "cpu", dtype)
    state = vae.module.state_dict()
    for name, tensor in stored(tiny("base"), "vae").items():
        assert torch.equal(state[name], tensor.to(dtype))
    assert vae.dtype == dtype and not vae.module.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_text_encoder_equals_transformers_loading(tiny, dtype):
    from transformers import UMT5EncoderModel

    oracle = UMT5EncoderModel.from_pretrained(tiny("base") / "text_encoder", dtype=dtype).state_dict()
    model = load_text_encoder(inspect(tiny("base")), "cpu", dtype)
    state = model.state_dict()
    assert state.keys() == oracle.keys()
    for name, tensor in state.items():
        assert tensor.dtype == oracle[name].dtype and torch.equal(tensor, oracle[name]), name
    assert model.encoder.embed_tokens.weight is model.shared.weight
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_embeddings_stored_under_their_other_name_are_found(tiny, tmp_path):
    from tests.checkpoints.edit import copy_of

    copy = copy_of(tiny("base"), tmp_path)
    file = copy / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    tensors["encoder.embed_tokens.weight"] = tensors.pop("shared.weight")
    save_file(tensors, file)
    model = load_text_encoder(inspect(copy), "cpu", torch.float32)
    assert torch.equal(model.shared.weight, tensors["encoder.embed_tokens.weight"])


def test_shards_load_like_one_file(tiny, tmp_path):
    sharded = write_random_checkpoint(tmp_path / "sharded", "base", max_shard_bytes=300_000)
    whole = load_transformer(inspect(tiny("base")), "cpu", torch.float32).state_dict()
    parts = load_transformer(inspect(sharded), "cpu", torch.float32).state_dict()
    assert len(weight_files(sharded / "transformer", "diffusion_pytorch_model")) > 5
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)


def test_training_in_place_leaves_the_file_alone(tiny):
    file = tiny("base") / "transformer" / WEIGHTS
    before = file.read_bytes()
    model = load_transformer(inspect(tiny("base")), "cpu", torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert file.read_bytes() == before
    fresh = load_transformer(inspect(tiny("base")), "cpu", torch.float32)
    assert torch.allclose(fresh.proj_out.weight + 1, model.proj_out.weight)


def test_a_loaded_model_outlives_its_files(tmp_path):
    import shutil

    path = write_random_checkpoint(tmp_path / "gone", "base")
    expected = stored(path, "transformer")
    model = load_transformer(inspect(path), "cpu", torch.float32)
    shutil.rmtree(path)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_a_loaded_transformer_trains(tiny):
    model = load_transformer(inspect(tiny("base")), "cpu", torch.float32)
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm1 = nn.LayerNorm(4)
        self.register_buffer("counts", torch.zeros(2, dtype=torch.int64))
        self.register_buffer("table", torch.arange(3.0), persistent=False)


@pytest.fixture
def small_file(tmp_path):
    tensors = {name: torch.randn(tensor.shape) for name, tensor in Small().state_dict().items()}
    tensors["counts"] = torch.tensor([3, 4])
    save_file(tensors, tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors", tensors


def test_load_state_fills_a_weightless_model_and_reports(small_file):
    file, tensors = small_file
    with weightless():
        model = Small()
    assert model.first.weight.is_meta and torch.equal(model.table, torch.arange(3.0))
    report = load_state(model, [file], "cpu", torch.bfloat16, keep_float32=lambda name: "norm1" in name)
    assert report.complete and report.summary() == "all 5 tensors fit"
    assert torch.equal(model.first.weight, tensors["first.weight"].bfloat16())
    assert model.norm1.weight.dtype == torch.float32 and torch.equal(model.counts, tensors["counts"])


def test_load_state_refuses_before_it_reads(small_file):
    file, tensors = small_file
    del tensors["norm1.bias"]
    tensors |= {"first.bias": torch.zeros(7), "second.weight": torch.zeros(2)}
    save_file(tensors, file)
    model = Small()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = (
        r"do not fit their configuration: 1 of 5 tensors missing \(norm1.bias\), "
        r"1 of 5 tensors misshapen \(first.bias \[7\] not \[4\]\), 1 unexpected \(second.weight\); use files and"
    )
    with pytest.raises(InputError, match=expected):
        load_state(model, [file], "cpu", torch.float32)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    report = load_state(model, [file], "cpu", torch.float32, strict=False)
    assert report.missing == ("norm1.bias",) and report.unexpected == ("second.weight",)
    assert report.misshapen == {"first.bias": ((4,), (7,))}
    assert torch.equal(model.first.weight, tensors["first.weight"])
    assert torch.equal(model.first.bias, before["first.bias"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_reading_through_the_buffer_equals_the_whole(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr("helios.checkpoints.load._BUFFER_BYTES", 1024)
    tensor = torch.randn(37, 91)
    save_file({"x": tensor, "scalar": torch.tensor(2.5), "none": torch.zeros(0, 4)}, tmp_path / "x.safetensors")
    entries = read_header(tmp_path / "x.safetensors")
    assert torch.equal(read_tensor(entries["x"], "cpu", dtype), tensor.to(dtype))
    assert read_tensor(entries["scalar"], "cpu", dtype) == 2.5
    assert read_tensor(entries["none"], "cpu", dtype).shape == (0, 4)


def test_a_file_that_shrinks_between_header_and_data_is_refused(tmp_path):
    file = tmp_path / "x.safetensors"
    save_file({"x": torch.randn(1000)}, file)
    entry = read_header(file)["x"]
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="x.safetensors' ended while 'x' was read: download it again"):
        read_tensor(entry, "cpu", torch.bfloat16)


PEAK = """
import sys, torch
from torch import nn
from helios.checkpoints.load import load_state, weightless
torch.set_num_threads(1)
status = lambda key: 1024 * int(open("/proc/self/status").read().split(key + ":")[1].split()[0])
with weightless():
    model = nn.ModuleList([nn.Linear(2048, 2048, bias=False) for _ in range(12)])
before = status("VmRSS")
assert status("VmHWM") - before < 20e6, "the start must be the peak so far"
load_state(model, sys.argv[1:2], "cpu", getattr(torch, sys.argv[2]))
total = sum(float(layer.weight.sum()) for layer in model)
print(status("VmHWM") - before, total)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("dtype", "copies"), [("float32", 1.0), ("bfloat16", 0.5)])
def test_host_memory_never_holds_two_copies(tmp_path, dtype, copies):
    """A 201 MB float32 file, all of it used after loading; peak growth of the process is at most what it keeps."""
    tensors = {f"{index}.weight": torch.full((2048, 2048), index / 8) for index in range(12)}
    size = sum(tensor.nbytes for tensor in tensors.values())
    save_file(tensors, tmp_path / "large.safetensors")
    command = [sys.executable, "-c", PEAK, str(tmp_path / "large.safetensors"), dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    growth, total = done.stdout.split()
    assert float(total) == sum(2048 * 2048 * index / 8 for index in range(12))
    assert size > 200e6 and copies * size * 0.9 < int(growth) < copies * size + 60e6
    assert int(growth) < 1.3 * size
