import copy

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from helios.errors import InputError
from helios.models.transformer.context import HistoryLatents
from helios.training.adapt import (
    IN_FULL,
    MEMORY_PATCHES,
    FullTraining,
    LoraTraining,
    is_adapted,
    merge,
    save_adapter,
    without_adapters,
)
from tests.training.models import TEXT_WIDTH, transformer


def outputs(model, *, empty: bool = False) -> torch.Tensor:
    """Velocities at three timesteps, with or without history."""
    generator = torch.Generator().manual_seed(5)
    draw = lambda *shape: torch.randn(shape, generator=generator)
    x, text = draw(1, 4, 9, 8, 8), draw(1, 5, TEXT_WIDTH)
    history = HistoryLatents(
        long_BCTHW=draw(1, 4, 16, 8, 8), mid_BCTHW=draw(1, 4, 2, 8, 8), short_BCTHW=draw(1, 4, 2, 8, 8)
    )
    context = None if empty else model.encode_history(history)
    text = model.encode_text(text, keys=False)
    with torch.no_grad():
        return torch.cat([model.velocity(x, torch.tensor([t]), text, context) for t in (1.0, 500.0, 999.0)])


def trained(training, model):
    """A few large steps away from the start."""
    parameters = training.attach(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return parameters


LORAS = [
    LoraTraining(rank=4),
    LoraTraining(rank=4, alpha=8, patches=("patch_embedding", "patch_short", "patch_mid", "patch_long"), full=()),
    LoraTraining(rank=2, patches=(), full=()),
]


@pytest.mark.parametrize("training", LORAS)
def test_merged_equals_adapted(training):
    """Conformance T26: merged against adapted, several timesteps, with and without history."""
    model = transformer()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    before = outputs(model)
    parameters = trained(training, model)
    adapted = [outputs(model), outputs(model, empty=True)]
    assert (adapted[0] - before).abs().max() > 1e-2
    merge(model)
    assert set(model.state_dict()) == set(start)
    for merged, wanted in zip([outputs(model), outputs(model, empty=True)], adapted):
        torch.testing.assert_close(merged, wanted, rtol=1e-4, atol=1e-5)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, start[name])}
    wanted = {name.replace(".base_layer", "") for name in parameters}
    wanted = {name.split(".lora_")[0] + ".weight" if ".lora_" in name else name for name in wanted}
    assert changed == wanted


def test_a_new_adapter_changes_nothing():
    model = transformer()
    before = outputs(model)
    LoraTraining(rank=4).attach(model)
    assert torch.equal(outputs(model), before)


def test_the_adapter_starts_as_published():
    model = transformer()
    LoraTraining(rank=16).attach(model)
    layers = [m for m in model.modules() if is_adapted(m)]
    downs = torch.cat([layer.lora_A["default"].weight.flatten() for layer in layers])
    assert downs.std().item() == pytest.approx(1 / 16, rel=0.05)
    assert all(layer.lora_B["default"].weight.abs().max() == 0 for layer in layers)
    assert all(layer.scaling["default"] == 1.0 for layer in layers)


def test_every_linear_outside_of_norms_is_adapted_and_the_rest_is_frozen():
    model = transformer()
    dense = {n for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    parameters = LoraTraining(rank=4).attach(model)
    adapted = {n for n, m in model.named_modules() if is_adapted(m)}
    assert adapted == dense | {"patch_embedding"}
    assert {n.split(".lora_")[0] for n in parameters if "lora" in n} == adapted
    assert {n for n in parameters if "lora" not in n} == {
        f"patch_{which}.{kind}" for which in ("short", "mid", "long") for kind in ("weight", "bias")
    }
    assert all(p.dtype == torch.float32 for p in parameters.values())


def test_trained_tensors_are_float32_on_a_half_precision_base():
    model = transformer().cast(torch.bfloat16)
    parameters = LoraTraining(rank=4).attach(model)
    assert all(p.dtype == torch.float32 for p in parameters.values())
    assert model.blocks[0].attn1.to_q.base_layer.weight.dtype == torch.bfloat16
    full = FullTraining().attach(transformer().cast(torch.bfloat16))
    assert all(p.dtype == torch.float32 for p in full.values())


def test_full_training_leaves_out_what_it_is_told():
    model = transformer()
    parameters = FullTraining(frozen=("patch_long", "patch_mid")).attach(model)
    left_out = set(dict(model.named_parameters())) - set(parameters)
    assert left_out == {f"patch_{which}.{kind}" for which in ("mid", "long") for kind in ("weight", "bias")}


def test_without_adapters_is_the_dense_model_and_ends_well():
    model = transformer().requires_grad_(False)  # a layer that wants gradients may take another kernel
    before = outputs(model)
    parameters = trained(LoraTraining(rank=4, full=()), model)
    frozen = next(iter(parameters.values()))
    frozen.requires_grad_(False)
    adapted = outputs(model)
    with pytest.raises(RuntimeError), without_adapters(model):
        assert torch.equal(outputs(model), before)
        raise RuntimeError
    assert torch.equal(outputs(model), adapted)
    assert not frozen.requires_grad and all(p.requires_grad for p in list(parameters.values())[1:])


@pytest.mark.parametrize("full", [(), MEMORY_PATCHES])
def test_an_exported_adapter_gives_the_same_output(tmp_path, full):
    model, fresh, training = transformer(), transformer(), LoraTraining(rank=4, full=full)
    trained(training, model)
    save_adapter(model, tmp_path, training)
    fresh.load_lora_adapter(tmp_path, prefix=None, weight_name="pytorch_lora_weights.safetensors")
    assert (tmp_path / IN_FULL).is_file() is bool(full)
    if full:
        assert not fresh.load_state_dict(load_file(tmp_path / IN_FULL), strict=False).unexpected_keys
    torch.testing.assert_close(outputs(fresh), outputs(model), rtol=1e-5, atol=1e-6)
    dense = merge(copy.deepcopy(fresh))
    torch.testing.assert_close(outputs(dense), outputs(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: LoraTraining(rank=0), "rank=0"),
        (lambda: LoraTraining(patches=("patch_mid",)), "both adapted and trained in full"),
        (lambda: LoraTraining(full=("patch_middle",)).attach(transformer()), "did you mean 'patch_mid"),
        (lambda: LoraTraining(patches=("blocks",)).attach(transformer()), "not a patch convolution"),
        (lambda: FullTraining(frozen=("memory",)).attach(transformer()), "is not a module"),
    ],
)
def test_wrong_names_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
