"""Gradients: equal to Diffusers', the same on every path, with checkpointing, packing and adapters."""

import pytest
import torch
from peft import LoraConfig

from helios.models.transformer.layout import TokenLayout

LORA_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]
OPTIONS = [{}, {"is_amplify_history": True}, {"guidance_cross_attn": False}, {"zero_history_timestep": False}]


def gradients(model, output):
    model.zero_grad()
    (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_same(ours, expected, **tolerance):
    assert ours.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(ours[name] / scale, gradient / scale, msg=lambda m, n=name: f"{n}: {m}", **tolerance)


@pytest.mark.parametrize("options", OPTIONS)
def test_every_parameter_gets_diffusers_gradient(pairs, cases, options):
    ours, published = pairs(**options)
    inputs = cases(height=8, width=12, batch=2).published()
    expected = gradients(published, published(**inputs)[0])
    assert len(expected) == len(list(ours.parameters()))
    assert_same(gradients(ours, ours(**inputs)[0]), expected, atol=1e-5, rtol=1e-4)


def test_the_noisy_latents_and_the_history_get_diffusers_gradient(pairs, cases):
    ours, published = pairs()
    results = []
    for model in (ours, published):
        inputs = cases().published()
        names = ["hidden_states", *(f"latents_history_{stream}" for stream in ("short", "mid", "long"))]
        leaves = [inputs[name].requires_grad_() for name in names]
        results.append(torch.autograd.grad(model(**inputs)[0].square().sum(), leaves))
    for mine, expected in zip(*results):
        torch.testing.assert_close(mine, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("keys", [True, False])
def test_encoding_once_gives_the_gradient_of_forward(pairs, cases, keys):
    ours, _ = pairs()
    case = cases()
    expected = gradients(ours, ours(**case.published())[0])
    history = ours.encode_history(case.history)
    velocity = ours.velocity(case.x, case.timestep, ours.encode_text(case.text, keys=keys), history)
    assert_same(gradients(ours, velocity), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("keys", [True, False])
def test_checkpointing_changes_no_gradient(pairs, cases, split, keys):
    ours, _ = pairs(is_amplify_history=True)
    case = cases(batch=2)

    def run():
        text = ours.encode_text(case.text, keys=keys)
        return gradients(ours, ours.velocity(case.x, case.timestep, text, ours.encode_history(case.history)))

    expected = run()
    ours.enable_gradient_checkpointing()
    calls = []
    handle = ours.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    assert_same(run(), expected, atol=1e-6, rtol=1e-6)
    assert len(calls) == 2  # once forward, once again in backward
    handle.remove()


def test_inference_equals_the_path_with_gradients(pairs, cases, split):
    """The lean CPU paths take over without gradients; the numbers stay."""
    ours, _ = pairs(is_amplify_history=True)
    case = cases(batch=2)
    with torch.no_grad():
        lean = split(ours, case)
    torch.testing.assert_close(lean, split(ours, case).detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("history", [True, False])
@pytest.mark.parametrize("options", OPTIONS)
def test_packed_levels_equal_separate_calls(pairs, cases, options, history):
    ours, _ = pairs(**options)
    levels = [cases(8, 16, batch=2, level_height=8 // s, level_width=16 // s, timestep=900.0 / s) for s in (1, 2, 2, 4)]
    xs, timesteps = [level.x for level in levels], [level.timestep for level in levels]

    def encoded():
        past = ours.encode_history(levels[0].history) if history else None
        return ours.encode_text(levels[0].text), past

    separate = [ours.velocity(x, t, *encoded()) for x, t in zip(xs, timesteps)]
    packed = ours.packed_velocity(xs, timesteps, *encoded())
    for mine, expected in zip(packed, separate):
        torch.testing.assert_close(mine, expected, atol=1e-5, rtol=0)
    loss = [torch.cat([part.flatten() for part in parts]) for parts in (packed, separate)]
    assert_same(gradients(ours, loss[0]), gradients(ours, loss[1]), atol=1e-5, rtol=1e-4)


def test_packed_token_counts_at_the_released_size():
    levels = [TokenLayout(2400, (n,)) for n in (8640, 2160, 540)]
    assert [sum(level.lengths) for level in levels] == [11040, 4560, 2940]
    assert sum(TokenLayout(2400, (8640, 2160, 540)).lengths) == 18540
    assert sum(TokenLayout(2400, (8640, 2160, 2160, 540)).lengths) == 23100


def with_lora(model, targets):
    model.requires_grad_(False)
    model.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=targets, init_lora_weights=False))
    return model


def test_lora_equals_diffusers_with_the_same_adapter(pairs, cases):
    torch.manual_seed(0)
    ours, published = (with_lora(model, LORA_TARGETS) for model in pairs())
    published.load_state_dict(ours.state_dict())
    inputs = cases().published()
    expected = gradients(published, published(**inputs)[0])
    adapted = gradients(ours, ours(**inputs)[0])
    assert len(expected) == 3 * (4 + 4 + 2) * 2
    assert_same(adapted, expected, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(ours(**inputs)[0], published(**inputs)[0], atol=1e-5, rtol=0)


def test_lora_on_the_history_patches_changes_the_output_and_learns(pairs, cases):
    torch.manual_seed(0)
    ours, _ = pairs()
    inputs = cases().published()
    with torch.no_grad():
        before = ours(**inputs)[0]
    with_lora(ours, ["patch_short", "patch_mid", "patch_long", "to_q"])
    found = gradients(ours, ours(**inputs)[0])
    assert {name.split(".")[0] for name in found} == {"patch_short", "patch_mid", "patch_long", "blocks"}
    assert all(gradient.abs().sum() > 0 for gradient in found.values())
    with torch.no_grad():
        after = ours(**inputs)[0]
        assert (after - before).abs().max() > 1e-3
        scaled = ours(**inputs, attention_kwargs={"scale": 0.0})[0]
    torch.testing.assert_close(scaled, before, atol=1e-5, rtol=0)


def test_autocast_trains_as_close_to_float32_as_diffusers(pairs, cases):
    ours, published = pairs()
    inputs = cases(height=8, width=12).published()
    exact = gradients(published, published(**inputs)[0])
    errors = []
    for model in (ours, published):
        with torch.autocast("cpu", torch.bfloat16):
            output = model(**inputs)[0]
        assert output.dtype == torch.bfloat16
        found = gradients(model, output.float())
        errors.append(sum((found[n] - exact[n]).square().sum() / exact[n].square().sum() for n in exact))
    assert errors[0] <= errors[1] * 1.1
