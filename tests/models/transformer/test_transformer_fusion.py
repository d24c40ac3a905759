"""Fused projections and compiled blocks change how, not what."""

import copy

import torch
from peft import LoraConfig
from safetensors.torch import load_file


def test_fusing_keeps_results_names_values_and_memory(pairs, cases, split, tmp_path):
    ours, _ = pairs()
    names = list(ours.state_dict())
    with torch.no_grad():
        expected = split(ours, cases())
        ours.fuse_projections()
        ours.fuse_projections()
        torch.testing.assert_close(split(ours, cases()), expected, atol=1e-5, rtol=0)
    assert list(ours.state_dict()) == names
    attention = ours.blocks[0].attn1
    storages = {layer.weight.untyped_storage().data_ptr() for layer in (attention.to_q, attention.to_k, attention.to_v)}
    assert len(storages) == 1
    ours.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in ours.state_dict().items())


def test_loading_into_fused_weights_is_seen(pairs, cases, split):
    ours, _ = pairs()
    other = copy.deepcopy(ours)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.9)
        expected = split(other, cases())
        for assign in (False, True):
            model = copy.deepcopy(ours)
            model.fuse_projections()
            model.load_state_dict(other.state_dict(), assign=assign)
            torch.testing.assert_close(split(model, cases()), expected, atol=1e-5, rtol=0)


def test_moving_or_casting_undoes_fusion_and_nothing_else(pairs, cases, split):
    ours, _ = pairs()
    with torch.no_grad():
        expected = split(ours, cases())
        ours.fuse_projections()
        for changed in (ours.to(torch.float64).to(torch.float32), copy.deepcopy(ours), ours.cast(torch.float32)):
            torch.testing.assert_close(split(changed, cases()), expected, atol=1e-5, rtol=0)
        half = ours.cast(torch.bfloat16)
        assert split(half, cases()).dtype == torch.bfloat16


def test_a_fused_model_still_trains_and_takes_adapters(pairs, cases, split):
    ours, _ = pairs()
    ours.fuse_projections()
    split(ours, cases()).sum().backward()
    assert all(block.attn1.to_k.weight.grad is not None for block in ours.blocks)
    ours.requires_grad_(False)
    with torch.no_grad():
        before = split(ours, cases())
        ours.add_adapter(LoraConfig(r=2, target_modules=["to_k"], init_lora_weights=False))
        assert (split(ours, cases()) - before).abs().max() > 1e-3


def test_a_block_compiles_into_one_graph(pairs, cases, split):
    ours, _ = pairs(num_layers=1, is_amplify_history=True)
    with torch.no_grad():
        expected = split(ours, cases())
        ours.blocks[0].compile(backend="eager", fullgraph=True)
        torch.testing.assert_close(split(ours, cases()), expected, atol=1e-5, rtol=0)
