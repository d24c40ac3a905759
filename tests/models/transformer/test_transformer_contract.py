"""What others rely on: files, configuration, precision, contexts, positions, errors, Diffusers' pipelines."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKLWan, HeliosPipeline, HeliosPyramidPipeline, HeliosScheduler
from diffusers import HeliosTransformer3DModel as Published

from helios.errors import InputError
from helios.models.transformer.config import TransformerConfig
from helios.models.transformer.context import HistoryLatents, TextContext
from helios.models.transformer.model import HeliosTransformer3DModel
from helios.models.transformer.patches import LONG_POOL, MID_POOL, init_memory_patches, patchify, pooled
from helios.models.transformer.precision import keeps_float32


def test_released_model_has_the_published_tensors():
    with torch.device("meta"):
        ours, published = HeliosTransformer3DModel(), Published()
    shapes = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in published.state_dict().items()}
    assert len(shapes) == 1101
    assert sum(parameter.numel() for parameter in ours.parameters()) == 14_312_427_584


@pytest.mark.parametrize(
    "options", [{}, {"is_amplify_history": True, "history_scale_mode": "scalar"}, {"cross_attn_norm": False}]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_files_go_both_ways(pairs, tmp_path, options, dtype):
    ours, _ = pairs(**options)
    ours.save_pretrained(tmp_path / "ours")
    theirs = Published.from_pretrained(tmp_path / "ours", torch_dtype=dtype)
    theirs.save_pretrained(tmp_path / "theirs")
    back = HeliosTransformer3DModel.from_pretrained(tmp_path / "theirs", torch_dtype=dtype)
    ours.cast(dtype)
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["_class_name"] == "HeliosTransformer3DModel"
    assert {name: tensor.dtype for name, tensor in back.state_dict().items()} == {
        name: tensor.dtype for name, tensor in theirs.state_dict().items()
    }
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[name]), name
        assert torch.equal(tensor, theirs.state_dict()[name]), name


def test_casting_keeps_the_exceptions_and_the_pipelines_see_the_half_dtype(pairs):
    ours, _ = pairs(is_amplify_history=True)
    ours.cast(torch.bfloat16)
    assert ours.dtype == torch.bfloat16
    kept = {name for name, p in ours.named_parameters() if p.dtype == torch.float32}
    assert kept == {name for name, _ in ours.named_parameters() if keeps_float32(name)}
    assert {"blocks.0.norm2.weight", "blocks.0.attn1.history_key_scale", "norm_out.scale_shift_table"} <= kept
    assert "blocks.0.attn1.norm_q.weight" not in kept and "condition_embedder.time_proj.weight" not in kept


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"patch_size": (1, 4, 4)}, "patch_size"),
        ({"qk_norm": "layer_norm"}, "qk_norm"),
        ({"qk_norm": None}, "qk_norm"),
        ({"added_kv_proj_dim": 5120}, "added_kv_proj_dim"),
        ({"rope_dim": (44, 42, 40)}, "rope_dim"),
        ({"rope_dim": (43, 43, 42)}, "rope_dim"),
        ({"freq_dim": 255}, "freq_dim"),
        ({"history_scale_mode": "per_layer"}, "history_scale_mode"),
        ({"num_layers": 0}, "num_layers"),
    ],
)
def test_settings_that_would_be_ignored_or_break_are_refused(options, said):
    with pytest.raises(InputError, match=said):
        HeliosTransformer3DModel(**{"num_layers": 1, "ffn_dim": 8, "text_dim": 8} | options)


def test_a_config_file_is_checked_key_by_key():
    config = TransformerConfig.from_dict({"_class_name": "HeliosTransformer3DModel", "rope_dim": [44, 42, 42]})
    assert config == TransformerConfig()
    assert TransformerConfig(out_channels=None).latent_channels_out == 16
    with pytest.raises(InputError, match="restrict_self_attn"):
        TransformerConfig.from_dict({"restrict_self_attn": True})


def test_memory_patches_give_a_constant_region_the_token_it_had_before(pairs):
    ours, _ = pairs()
    init_memory_patches(ours)
    colour = torch.randn(1, 16, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    expected, _ = patchify(ours.patch_embedding, colour.expand(-1, -1, 1, 2, 2), (1, 2, 2))
    for conv, pool in ((ours.patch_short, 1), (ours.patch_mid, MID_POOL), (ours.patch_long, LONG_POOL)):
        tokens, grid = patchify(conv, colour.expand(-1, -1, 5, 10, 14), pooled((1, 2, 2), pool))
        assert grid == tuple(-(-n // (pool * p)) for n, p in zip((5, 10, 14), (1, 2, 2)))
        torch.testing.assert_close(tokens, expected.expand_as(tokens), atol=2e-6, rtol=1e-5)
    assert torch.equal(ours.patch_mid.weight[:, :, 1, 2:, :2] * 8, ours.patch_embedding.weight[:, :, 0])


def test_history_does_not_see_the_timestep_when_it_does_not_see_the_chunk(pairs, cases, monkeypatch):
    """T17: history rows are modulated with timestep 0; only attention to noisy tokens tells them about t."""
    from helios.models.transformer import attention as room

    ours, _ = pairs()
    case = cases()
    history = ours.encode_history(case.history)
    count, whole = history.tokens_BLD.shape[1], room.attention

    def blocked(q, k, v, *, q_lengths=None, **options):
        if q_lengths is None or q.shape[1] != k.shape[1]:
            return whole(q, k, v)
        return torch.cat([whole(q[:, :count], k[:, :count], v[:, :count]), whole(q[:, count:], k, v)], dim=1)

    def history_rows(x, timestep):
        seen = []
        handle = ours.blocks[1].register_forward_hook(lambda module, inputs, output: seen.append(output[:, :count]))
        velocity = ours.velocity(x, torch.tensor([timestep]), ours.encode_text(case.text), history)
        handle.remove()
        return seen[0], velocity

    with torch.no_grad():
        free = [history_rows(case.x, t)[0] for t in (100.0, 900.0)]
        monkeypatch.setattr(room, "attention", blocked)
        (low, v_low), (high, v_high) = (history_rows(case.x, t) for t in (100.0, 900.0))
    assert torch.equal(low, high)
    assert not torch.equal(v_low, v_high)
    assert not torch.equal(*free)


def test_contexts_repeat_and_concatenate(pairs, cases):
    ours, _ = pairs()
    case = cases(batch=2)
    with torch.no_grad():
        for keys in (True, False):
            both = ours.encode_text(case.text, keys=keys)
            one, two = (ours.encode_text(case.text[i : i + 1], keys=keys) for i in (0, 1))
            joined = TextContext.cat([one, two])
            assert (joined.batch, len(joined.keys)) == (2, 3 if keys else 0)
            history = ours.encode_history(case.history)
            expected = ours.velocity(case.x, case.timestep, both, history)
            torch.testing.assert_close(ours.velocity(case.x, case.timestep, joined, history), expected)
            x, timestep = case.x.repeat(2, 1, 1, 1, 1), case.timestep.repeat(2)
            doubled = ours.velocity(x, timestep, both.repeat(2), history.repeat(2))
            torch.testing.assert_close(doubled, expected.repeat(2, 1, 1, 1, 1), atol=1e-5, rtol=0)
        with pytest.raises(InputError, match="same length"):
            TextContext.cat([one, ours.encode_text(case.text[:1, :3], keys=False)])
        with pytest.raises(InputError, match="same way"):
            TextContext.cat([one, ours.encode_text(case.text[:1])])


def test_positions_default_to_the_published_numbering(pairs, cases):
    ours, _ = pairs()
    case = cases(frames=9)
    with torch.no_grad():
        text, history = ours.encode_text(case.text), ours.encode_history(case.history)
        assert history.noisy_frames == tuple(range(20, 29))
        expected = ours.velocity(case.x, case.timestep, text, history)
        named = ours.velocity(case.x, case.timestep, text, history, frames=tuple(range(20, 29)))
        tensors = ours.velocity(case.x, case.timestep, text, history, frames=torch.arange(20, 29)[None])
        moved = ours.velocity(case.x, case.timestep, text, history, frames=tuple(range(21, 30)))
    assert torch.equal(named, expected) and torch.equal(tensors, expected)
    assert (moved - expected).abs().max() > 1e-4


def test_positions_may_differ_within_a_batch(pairs, cases):
    ours, published = pairs()
    inputs = cases(batch=2).published()
    for name in list(inputs):
        if name.startswith("indices"):
            inputs[name] = torch.cat([inputs[name], inputs[name] + 3])
    with torch.no_grad():
        torch.testing.assert_close(ours(**inputs)[0], published(**inputs)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("streams", [("short",), ("short", "mid"), ("short", "long")])
def test_streams_may_be_missing(pairs, cases, streams):
    ours, published = pairs()
    case = cases()
    dropped = {f"{name}_BCTHW": None for name in ("mid", "long") if name not in streams}
    case = replace(case, history=replace(case.history, **dropped))
    with torch.no_grad():
        torch.testing.assert_close(ours(**case.published())[0], published(**case.published())[0], atol=1e-5, rtol=0)


def test_bad_inputs_are_named(pairs, cases):
    ours, _ = pairs()
    case = cases()
    with torch.no_grad():
        text, history = ours.encode_text(case.text), ours.encode_history(case.history)
        with pytest.raises(InputError, match="5x10.*even"):
            ours.velocity(case.x[..., :5, :], case.timestep, text, history)
        with pytest.raises(InputError, match=r"batches \[1, 2\]"):
            ours.velocity(case.x, case.timestep, text.repeat(2), history)
        with pytest.raises(InputError, match="positions for 9"):
            ours.velocity(case.x.repeat(1, 1, 4, 1, 1), case.timestep, text, history)
        with pytest.raises(InputError, match="'mask'.*only 'scale'"):
            ours(**case.published(), attention_kwargs={"mask": None})
        with pytest.raises(InputError, match="short"):
            inputs = case.published()
            ours(**{k: v for k, v in inputs.items() if "short" not in k})
        bare, _ = pairs(has_multi_term_memory_patch=False)
        with pytest.raises(InputError, match="history=None"):
            bare.encode_history(case.history)
        assert bare.velocity(case.x, case.timestep, bare.encode_text(case.text), None).shape == case.x.shape
    with pytest.raises(InputError, match="'native'"):
        ours.set_attention_backend("native")


def test_an_attention_backend_reaches_every_block(pairs, cases, split):
    ours, _ = pairs()
    with torch.no_grad():
        expected = split(ours, cases())
        ours.set_attention_backend("reference")
        assert {b.attn1.attention_backend for b in ours.blocks} == {"reference"}
        torch.testing.assert_close(split(ours, cases()), expected, atol=1e-5, rtol=0)
        ours.reset_attention_backend()
    assert {b.attn2.attention_backend for b in ours.blocks} == {"auto"}


def test_history_sizes_are_those_of_the_latents():
    latents = HistoryLatents(
        long_BCTHW=torch.empty(1, 16, 4, 2, 2), mid_BCTHW=None, short_BCTHW=torch.empty(1, 16, 2, 2, 2)
    )
    positions = latents.positions(chunk_latent_frames=3)
    assert (positions.long, positions.mid, positions.short, positions.noisy) == ((1, 2, 3, 4), (), (0, 5), (6, 7, 8))


def pipeline_latents(kind, transformer, text, **options):
    stages = {"stages": 3, "gamma": 0.33} if kind is HeliosPyramidPipeline else {"stages": 1, "stage_range": [0, 1]}
    scheduler = HeliosScheduler(use_dynamic_shifting=True, **stages)

    vae = AutoencoderKLWan(
        base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    vae.decode = lambda latents, return_dict: (torch.zeros(1, 3, 33, 64, 128),)  # only latents are compared
    pipe = kind(tokenizer=None, text_encoder=None, vae=vae, scheduler=scheduler, transformer=transformer)
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        prompt_embeds=text,
        negative_prompt_embeds=-text,
        height=64,
        width=128,
        num_frames=66,
        generator=torch.Generator().manual_seed(42),
        output_type="latent",
        **options,
    ).frames


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (HeliosPipeline, {"num_inference_steps": 2}),
        (HeliosPyramidPipeline, {"pyramid_num_inference_steps_list": [2, 2, 2]}),
    ],
)
def test_diffusers_pipelines_run_on_our_transformer(pairs, kind, options):
    ours, published = pairs(num_layers=1)
    text = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        latents, expected = (pipeline_latents(kind, model, text, **options) for model in (ours, published))
    torch.testing.assert_close(latents, expected, atol=1e-4, rtol=0)


def test_contexts_are_not_changed_by_use(pairs, cases):
    ours, _ = pairs(is_amplify_history=True)
    for history_given in (True, False):
        case = cases(history=history_given)
        with torch.no_grad():
            text = ours.encode_text(case.text)
            history = ours.encode_history(case.history) if history_given else None
            x, first = case.x.clone(), ours.velocity(case.x, case.timestep, text, history)
            kept = [text.projected_BSD.clone(), *(k.clone() for pair in text.keys for k in pair)]
            assert torch.equal(ours.velocity(case.x, case.timestep, text, history), first)
        assert all(
            torch.equal(a, b) for a, b in zip(kept, [text.projected_BSD, *(k for pair in text.keys for k in pair)])
        )
        assert torch.equal(case.x, x)
