"""Approximations do what they say and no more, are measured, and are recorded."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helios import Helios
from helios.engine.acceleration import CompiledBlocks, FusedProjections
from helios.engine.approximation import Fp8Linears, ReusedHistory, apply_all, named, psnr
from helios.engine.live_bytes import LiveBytes
from helios.engine.memory import footprint
from helios.engine.packages import PackagedBlocks, build_packages
from helios.engine.session import EarlyFrames, FloatPixels
from helios.errors import InputError
from helios.models.transformer import attention as attention_room
from helios.models.transformer.layers import Fp8Linear, Linear
from helios.sampling.rollout import OneBatch, TwoPasses

PROMPT = "A red circle moves slowly from left to right."
SIZE = {"height": 64, "width": 64, "seed": 3, "num_frames": 66}
DISTILLED = {**SIZE, "steps": (2, 1, 1), "amplify_first_chunk": False}
BASE = {**SIZE, "steps": (3,)}


@pytest.fixture
def load(tiny):
    """Loads anew: approximations change a model for good."""
    return lambda variant: Helios.from_pretrained(tiny(variant), device="cpu", dtype="float32")


def frames_of(helios, layout=None, **settings) -> np.ndarray:
    how = {} if layout is None else {"layout": layout}
    session = helios.session(PROMPT, pixels=FloatPixels(), **how, **settings)
    return np.concatenate([chunk.frames for chunk in session])


def test_a_reused_history_is_that_of_the_first_step(load, monkeypatch):
    """Against the exact network whose attention is handed the first step's history keys at every step."""
    helios = load("distilled")
    tokens, first, exact_attention = [], {}, attention_room.attention
    encode = helios.transformer.encode_history

    def encoding(*given, **named_ones):
        first.clear()  # a new chunk
        history = encode(*given, **named_ones)
        tokens.append(history.tokens_BLD.shape[1])
        return history

    calls = []

    def overwriting(q, k, v, *, kv_lengths=None, **how):
        if kv_lengths is not None:  # self attention
            block, count = len(calls) % len(helios.transformer.blocks), tokens[-1]
            calls.append(1)
            kept = first.setdefault(block, (k[:, :count].clone(), v[:, :count].clone()))
            k, v = (torch.cat([old, new[:, count:]], dim=1) for old, new in zip(kept, (k, v)))
            how["kv_lengths"] = kv_lengths
        return exact_attention(q, k, v, **how)

    monkeypatch.setattr(helios.transformer, "encode_history", encoding)
    monkeypatch.setattr(attention_room, "attention", overwriting)
    expected = frames_of(helios, **DISTILLED)
    monkeypatch.undo()
    plain = frames_of(helios, **DISTILLED)
    apply_all(helios.transformer, [ReusedHistory()])
    found = frames_of(helios, **DISTILLED)
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(found - plain).max() > 1e-4


def test_one_step_a_chunk_has_nothing_to_reuse(load):
    helios = load("base")
    once = {**SIZE, "steps": (1,), "guidance": 1.0}
    plain = frames_of(helios, **once)
    apply_all(helios.transformer, [ReusedHistory()])
    assert np.array_equal(frames_of(helios, **once), plain)


def test_the_passes_of_guidance_keep_their_own(load):
    helios = load("base")
    apply_all(helios.transformer, [ReusedHistory()])
    together, apart = (frames_of(helios, layout, **BASE) for layout in (OneBatch(), TwoPasses()))
    assert np.abs(together - apart).max() < 1e-5


def test_a_reused_history_takes_compiled_and_fused_blocks(load):
    plain, other = load("distilled"), load("distilled")
    other.accelerate(FusedProjections(), CompiledBlocks(backend="eager"))
    for helios in (plain, other):
        apply_all(helios.transformer, [ReusedHistory()])
    assert np.abs(frames_of(plain, **DISTILLED) - frames_of(other, **DISTILLED)).max() < 1e-5


def test_warm_up_meets_every_shape_of_a_reused_history(load):
    helios, shapes = load("distilled"), set()
    apply_all(helios.transformer, [ReusedHistory()])
    helios.transformer.blocks[0].register_forward_pre_hook(lambda _, inputs: shapes.add(inputs[0].shape[1]))
    helios.warm_up(helios.prepare(PROMPT, **DISTILLED))
    warmed = set(shapes)
    frames_of(helios, **{**DISTILLED, "steps": (2, 2, 2)})
    assert shapes == warmed and len(warmed) == 4  # the first level with its history and without, the others without


def test_a_reused_history_does_not_grow_with_the_video(load):
    helios = load("distilled")
    apply_all(helios.transformer, [ReusedHistory()])
    held = []
    with LiveBytes() as live:
        for chunk in helios.stream(PROMPT, **{**DISTILLED, "num_frames": 6 * 33}):
            del chunk
            held.append(live.now)
    assert max(held[3:]) <= held[2]


def test_training_and_packed_calls_stay_exact(load):
    helios = load("distilled")
    exact, nearly = helios.transformer, load("distilled").transformer
    nearly.reuse_history()
    torch.manual_seed(0)
    x, t = torch.randn(1, 16, 9, 8, 8), torch.tensor([500.0])
    state = helios.encoder.encode([PROMPT])

    def twice(model):
        text = model.encode_text(state)
        history = model.encode_history(_history())
        outs = [model.velocity(x, t, text, history) for _ in range(2)]
        return torch.stack([*outs, *model.packed_velocity([x, 2 * x], [t, t], text, history)])

    assert torch.equal(twice(exact), twice(nearly))  # gradients are on


def _history():
    from helios.models.transformer.context import HistoryLatents

    generator = torch.Generator().manual_seed(1)
    made = {name: torch.randn(1, 16, count, 8, 8, generator=generator) for name, count in _STREAMS.items()}
    return HistoryLatents(**made)


_STREAMS = {"long_BCTHW": 16, "mid_BCTHW": 2, "short_BCTHW": 2}


def test_fp8_leaves_the_first_and_the_last_blocks(tiny, tmp_path):
    from helios.checkpoints.random import write_random_checkpoint

    write_random_checkpoint(tmp_path / "deep", "distilled", num_layers=8)
    helios = Helios.from_pretrained(tmp_path / "deep", device="cpu", dtype="float32").accelerate(FusedProjections())
    apply_all(helios.transformer, [Fp8Linears()])
    rounded = [sum(isinstance(layer, Fp8Linear) for layer in block.modules()) for block in helios.transformer.blocks]
    exact = [sum(type(layer) is Linear for layer in block.modules()) for block in helios.transformer.blocks]
    assert rounded == [0, 0, 10, 10, 10, 10, 0, 0] and exact == [10, 10, 0, 0, 0, 0, 10, 10]
    assert type(helios.transformer.proj_out) is Linear
    layer = helios.transformer.blocks[3].ffn.net[2]
    assert layer.weight_DE.element_size() == 1 and helios.transformer.dtype == torch.float32
    assert frames_of(helios, **DISTILLED).shape == (66, 64, 64, 3)


def test_weights_rounded_while_they_load_are_those_rounded_later(tiny, tmp_path, caplog):
    from helios.checkpoints.random import write_random_checkpoint

    write_random_checkpoint(tmp_path / "deep", "distilled", num_layers=5)
    later, loading = (
        Helios.from_pretrained(tmp_path / "deep", device="cpu", dtype="float32", weights=how)
        for how in ("exact", "fp8")
    )
    assert "fp8: weights were rounded while they loaded, by 2." in caplog.text
    assert loading.precision.approximations == ("fp8",)
    apply_all(later.transformer, [Fp8Linears()])
    expected, found = later.transformer.state_dict(), loading.transformer.state_dict()
    assert set(expected) == set(found) and len(found) > 100
    for name, value in expected.items():
        assert torch.equal(value.float(), found[name].float()), name
    with pytest.raises(InputError, match="cannot be made approximate by fp8 twice"):
        loading.approximate(loading.prepare(PROMPT, **DISTILLED), Fp8Linears())
    with pytest.raises(InputError, match="weights='fp4' is unknown: use exact or fp8"):
        Helios.from_pretrained(tiny("distilled"), weights="fp4")


@pytest.mark.parametrize("approximation", [ReusedHistory(), Fp8Linears()])
def test_what_it_costs_is_measured_on_a_second_chunk(load, approximation, tmp_path):
    exact, helios = load("distilled"), load("distilled")
    session = exact.session(PROMPT, pixels=FloatPixels(), **DISTILLED)
    next(session)
    session.save(tmp_path / "s.session")
    expected = next(session).frames
    prepared = helios.prepare(PROMPT, **{**DISTILLED, "num_frames": 500, "amplify_first_chunk": True})
    assert helios.approximate(prepared) == np.inf
    decibels = helios.approximate(prepared, approximation, decoding=EarlyFrames())
    found = next(helios.resume(tmp_path / "s.session", pixels=FloatPixels())).frames
    assert decibels == pytest.approx(psnr(expected, found), abs=1e-3)
    assert 20 < decibels < 80


def test_adapters_loaded_before_stay(load):
    """peft wraps the layers that are then rounded inside of its wrappers."""
    from peft import LoraConfig

    helios = load("distilled")
    helios.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "ffn.net.2"], init_lora_weights=False))
    adapted = frames_of(helios, **DISTILLED)
    decibels = helios.approximate(helios.prepare(PROMPT, **DISTILLED), Fp8Linears())
    assert psnr(adapted, frames_of(load("distilled"), **DISTILLED)) < decibels < 80
    assert any(isinstance(layer, Fp8Linear) for layer in helios.transformer.blocks[1].attn1.to_q.modules())


def test_psnr_is_the_formula():
    assert psnr(np.zeros((2, 2)), np.full((2, 2), 0.1)) == pytest.approx(20.0)


def test_it_is_recorded_and_a_stream_that_changes_it_is_warned_about(load, tmp_path, caplog):
    helios = load("distilled")
    assert helios.record(helios.prepare(PROMPT, **DISTILLED).request)["approximations"] == ()
    apply_all(helios.transformer, [ReusedHistory()])
    session = helios.session(PROMPT, **DISTILLED)
    assert helios.record(session.request)["approximations"] == ("history",)
    next(session)
    session.save(tmp_path / "s.session")
    helios.resume(tmp_path / "s.session")
    assert caplog.records == []
    load("distilled").resume(tmp_path / "s.session")
    assert "approximated by history and goes on in float32" in caplog.text


def test_what_does_not_go_together_is_refused(load, tmp_path):
    helios = load("distilled")
    prepared = helios.prepare(PROMPT, **DISTILLED)
    helios.approximate(prepared, Fp8Linears())
    for again in ([Fp8Linears()], [ReusedHistory(), ReusedHistory()]):
        with pytest.raises(InputError, match=f"approximate by {again[0].name} twice"):
            helios.approximate(prepared, *again)
    (tmp_path / "packages.json").write_text("{}")
    for use in (
        lambda: PackagedBlocks(folder=tmp_path).apply(helios.transformer, helios.vae),
        lambda: build_packages(helios.transformer, lambda: None, tmp_path),
    ):
        with pytest.raises(InputError, match=r"approximate \(fp8\): use one of the two"):
            use()
    packaged = load("distilled")
    packaged.transformer.blocks[0].forward = packaged.transformer.blocks[0].forward  # as PackagedBlocks leaves it
    with pytest.raises(InputError, match="packages hold the exact blocks"):
        packaged.approximate(prepared, ReusedHistory())
    with pytest.raises(InputError, match="approximation 'fp4' is unknown: use history, fp8"):
        named(["fp4"])


def test_8_bit_layers_refuse_a_gradient(load):
    helios = load("distilled")
    apply_all(helios.transformer, [Fp8Linears()])
    states = helios.encoder.encode([PROMPT])
    with pytest.raises(InputError, match="8-bit layers have no gradient"):
        helios.transformer.encode_text(states)


def test_what_is_kept_is_planned(load):
    helios = load("base")
    prepared = helios.prepare(PROMPT, **BASE)
    run = {"device": helios.device, "dtype": torch.float32}
    plain, kept = (footprint(helios.info, prepared.plan, **run, approximations=names) for names in ((), ("history",)))
    history = helios.transformer.encode_history(_history())
    both, tensors, passes = len(helios.transformer.blocks), 2, 2
    assert kept.history - plain.history == both * tensors * passes * history.tokens_BLD.numel() * 4
    assert replace(kept, history=plain.history) == plain
