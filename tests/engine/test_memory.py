"""What a plan says a run needs, against what runs hold: tensor bytes, since a process's resident size is noise."""

import gc
import json
from dataclasses import replace

import pytest
import torch

from helios.checkpoints import (
    inspect,
    load_text_encoder,
    load_transformer,
    load_vae,
    synthetic_info,
    write_random_checkpoint,
)
from helios.checkpoints.load import load_rounded_transformer
from helios.cli.main import run
from helios.device import HostMemory
from helios.engine.live_bytes import FlashOnMeta, LiveBytes
from helios.engine.memory import Room, at_most, footprint, judge, on_device
from helios.engine.pace import DecodeAhead
from helios.errors import InputError
from helios.sampling.plan import SamplingPlan

CPU, META = torch.device("cpu"), torch.device("meta")
GIB = 2**30


def sampling_plan(info, height=64, width=128):
    preset = info.preset
    return SamplingPlan(
        geometry=info.geometry,
        scheduler=info.scheduler,
        height=height,
        width=width,
        steps=preset.steps,
        guidance=preset.guidance,
    )


def held(module) -> int:
    tensors = {x.data_ptr(): x for x in [*module.parameters(), *module.buffers()]}
    return sum(x.numel() * x.element_size() for x in tensors.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_planned_weights_are_the_loaded_ones(tiny, dtype):
    info = inspect(tiny("distilled"))
    needs = footprint(info, sampling_plan(info), device=CPU, dtype=dtype, vae_dtype=dtype)
    assert needs.transformer == held(load_transformer(info, CPU, dtype))
    assert needs.vae == held(load_vae(info, CPU, dtype).module)
    assert needs.text_encoder == held(load_text_encoder(info, CPU, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_planned_8_bit_weights_are_the_loaded_ones(tmp_path, dtype):
    info = inspect(write_random_checkpoint(tmp_path, "distilled", num_layers=9))
    exact, rounded = (
        footprint(info, sampling_plan(info), device=CPU, dtype=dtype, weights=how) for how in ("exact", "fp8")
    )
    assert rounded.transformer == held(load_rounded_transformer(info, CPU, dtype)[0])
    assert 0.3 < rounded.transformer / exact.transformer < 0.9
    assert replace(rounded, transformer=exact.transformer, loaded="exact") == exact


def test_the_released_size_fits_a_card_of_24_gigabytes_in_8_bits():
    """Prompts first and early frames; with whole chunks it is a close fit."""
    info = synthetic_info("14b-random")
    half = {"dtype": torch.bfloat16, "vae_dtype": torch.bfloat16}
    plan = sampling_plan(info, 384, 640)
    exact, rounded = (footprint(info, plan, device=META, **half, weights=how) for how in ("exact", "fp8"))
    room = Room.imagined(24 * GIB)
    assert not judge(exact, room).fits
    verdict = judge(rounded, room)
    assert verdict.fits and verdict.needed_least < 21 * GIB and "weights='fp8'" in verdict.advice


@pytest.mark.parametrize("variant", ["base", "mid", "distilled"])
def test_planned_peak_is_the_measured_one(helios_of, variant):
    """A whole run of two chunks, guidance included: within a quarter, and never more than a twentieth above the plan."""
    helios = helios_of(variant)
    needs = footprint(helios.info, sampling_plan(helios.info), device=CPU, dtype=torch.float32)
    steps = (2,) * helios.info.geometry.levels
    prepared = helios.prepare("a red ball", num_frames=66, height=64, width=128, steps=steps)
    helios.open(prepared).__next__()  # rotary tables and the text encoder's weights are there from now on
    helios.encoder.forget()
    gc.collect()
    with LiveBytes() as live:
        for _ in helios.open(prepared):
            pass
    planned = needs.prompt + needs.history + max(*needs.levels, needs.decode)
    assert 0.75 * planned < live.peak < 1.05 * planned


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_planned_steps_are_the_measured_ones(dtype):
    """The small shape, level by level: what one network evaluation makes."""
    from helios.checkpoints.synthetic import load_transformer as make_transformer
    from helios.conditioning.history import History

    info = synthetic_info("small-random")
    plan = sampling_plan(info, 64, 128)
    needs = footprint(info, plan, device=CPU, dtype=dtype)
    model = make_transformer(info, CPU, dtype)
    with torch.no_grad():
        text = model.encode_text(torch.randn(1, 512, info.transformer_config["text_dim"]))
        past = History.empty(1, 19, info.geometry, *info.geometry.latent_size(64, 128), CPU)
        history = model.encode_history(plan.anchor.split(past, plan.geometry))
        for level in range(3):
            x_BCTHW = torch.randn(plan.level_shape(1, level))
            model.velocity(x_BCTHW, torch.ones(1), text, history)
            with LiveBytes() as live:
                model.velocity(x_BCTHW, torch.ones(1), text, history)
            assert live.peak == pytest.approx(needs.levels[level], rel=0.15)


def test_the_released_size_is_planned_without_files():
    info = synthetic_info("14b-random")
    assert info.parameters("transformer") == 14_312_427_584
    assert info.stored_bytes("text_encoder") == 22_723_641_344
    needs = footprint(info, sampling_plan(info, 384, 640), device=torch.device("meta"), dtype=torch.bfloat16)
    assert needs.transformer / 1e9 == pytest.approx(28.7, rel=0.01)
    assert needs.prompt / 1e9 == pytest.approx(0.43, rel=0.02)
    assert needs.levels[0] < needs.levels[1] < needs.levels[2] < 2 * GIB
    assert needs.decode_early < needs.decode < 13 * GIB


def test_judgement_goes_from_everything_to_nothing():
    info = synthetic_info("tiny-random")
    needs = footprint(info, sampling_plan(info), device=torch.device("meta"), dtype=torch.bfloat16)
    plenty = judge(needs, Room.imagined(1 << 40))
    assert plenty.fits and plenty.advice == "Fits as it is."
    assert needs.early_frames < needs.prompts_first < needs.together
    words = []
    for free in (plenty.needed - 1, plenty.needed_least, plenty.needed_least - 1):
        verdict = judge(needs, Room.imagined(free))
        words.append(verdict.advice)
        assert verdict.fits == (free >= plenty.needed_least)
        assert verdict.advice.count(". ") == 0 and verdict.advice.endswith(".")
    assert "encoded first" in words[0] and "EarlyFrames" in words[1] and "missing" in words[2]
    assert "`helios generate`" in words[0] and "--decode early" in words[1]


def test_guidance_and_batch_cost_memory():
    guided, plain = synthetic_info("tiny-random-mid"), synthetic_info("tiny-random")
    needs = [
        footprint(info, sampling_plan(info), device=CPU, dtype=torch.float32, batch=batch)
        for info, batch in ((plain, 1), (plain, 2), (guided, 1))
    ]
    assert needs[1].prompt == 2 * needs[0].prompt and needs[2].prompt == 4 * needs[0].prompt
    assert needs[0].levels[2] < needs[1].levels[2] and needs[0].levels[2] < needs[2].levels[2]
    assert needs[0].decode == needs[2].decode < needs[1].decode


def test_decoding_ahead_holds_a_step_and_a_decode_at_once():
    info, accelerator = synthetic_info("tiny-random"), torch.device("meta")
    how = {"dtype": torch.float32, "vae_dtype": torch.float32}
    in_turn = footprint(info, sampling_plan(info), device=accelerator, **how)
    ahead = footprint(info, sampling_plan(info), device=accelerator, pace=DecodeAhead(), **how)
    steps = max(in_turn.levels)
    assert ahead.together - in_turn.together == min(steps, in_turn.decode) > 0
    assert ahead.early_frames - in_turn.early_frames == min(steps, in_turn.decode_early) > 0
    assert footprint(info, sampling_plan(info), device=CPU, pace=DecodeAhead(), **how) == footprint(
        info, sampling_plan(info), device=CPU, **how
    )
    verdict = judge(ahead, Room.imagined(judge(in_turn, Room.imagined(0)).needed_least))
    assert not verdict.fits and "decode in turn" in verdict.advice


@pytest.mark.parametrize(
    "variant,prompts", [("base", ["a red ball"]), ("mid", "a red ball"), ("distilled", "a red ball")]
)
def test_prompts_given_while_loading_leave_no_text_encoder(tiny, variant, prompts):
    from helios import Helios

    helios = Helios.from_pretrained(tiny(variant), device="cpu", prompts=prompts)
    assert not helios.encoder.loaded
    steps = (1,) * helios.info.geometry.levels
    helios.generate("a red ball", num_frames=1, height=64, width=64, steps=steps)
    assert not helios.encoder.loaded
    helios.generate("another", num_frames=1, height=64, width=64, steps=steps)
    assert helios.encoder.loaded


def test_a_prepared_run_knows_every_prompt_that_it_encodes(helios_of):
    story = [(0, "a red ball"), (1.4, "waves"), (2.8, "a red ball")]
    for variant, negative in (("base", ["blurry"]), ("distilled", [])):
        prepared = helios_of(variant).prepare(
            timeline=story, negative_prompt="blurry", num_frames=99, height=64, width=64
        )
        assert list(prepared.prompts) == ["a red ball", "waves", *negative]
    plain = helios_of("base").prepare("a red ball", negative_prompt="blurry", guidance=1.0, height=64, width=64)
    assert plain.prompts == ("a red ball",)


def host(available: int, resident: int = 0) -> HostMemory:
    return HostMemory(total=available, available=available, cgroup_limit=None, resident=resident)


@pytest.mark.parametrize(
    "name,size,batch,precision",
    [
        ("tiny-random", (64, 64), 1, torch.float32),
        ("tiny-random-mid", (128, 64), 2, torch.float32),
        ("small-random-base", (64, 128), 1, torch.bfloat16),
        ("14b-random-mid", (384, 640), 1, torch.bfloat16),
    ],
)
def test_no_run_exceeds_the_bound_that_spares_the_count(name, size, batch, precision):
    info, accelerator = synthetic_info(name), torch.device("meta")
    plan, how = sampling_plan(info, *size), {"dtype": precision, "vae_dtype": precision, "batch": batch}
    needs = footprint(info, plan, device=accelerator, pace=DecodeAhead(), **how)
    bound = at_most(info, plan, **how)
    assert needs.together < bound < 5 * needs.together
    decoding, step = needs.decode, max(needs.levels)
    working = bound - needs.weights - needs.text_encoder - needs.text_encoding - needs.prompt
    assert 1.5 * (decoding + step) < working  # room for what another version of PyTorch might hold


def test_the_small_model_has_room_in_a_small_container():
    from helios.checkpoints import resolve

    info = inspect(resolve(None))
    plan = sampling_plan(info, info.preset.height, info.preset.width)
    resident = 300 << 20
    free = GIB - resident
    room = Room(device=CPU, capacity=GIB, free=free, host=host(free, resident))
    bound = at_most(info, plan, dtype=torch.float32, vae_dtype=torch.float32)
    assert on_device(bound, CPU) < room.for_a_run


def test_libraries_that_are_loaded_are_not_counted_twice():
    loaded = Room(device=CPU, capacity=GIB, free=GIB, host=host(GIB, 100 << 20))
    assert loaded.for_a_run == GIB + (100 << 20)
    assert Room(device=CPU, capacity=GIB, free=GIB, host=host(GIB, 8 * GIB)).for_a_run < 2 * GIB
    accelerator = torch.device("meta")
    assert Room(device=accelerator, capacity=GIB, free=GIB, host=host(GIB, 8 * GIB)).for_a_run == GIB
    short, loaded = (Room(device=accelerator, capacity=GIB, free=GIB, host=host(GIB // 2, n)) for n in (0, GIB))
    assert not short.host_suffices and loaded.host_suffices
    needs = footprint(
        info := synthetic_info("tiny-random"), sampling_plan(info), device=accelerator, dtype=torch.float32
    )
    assert "Host memory is short" in judge(needs, short).advice and judge(needs, loaded).fits


def test_live_bytes_counts_what_lives():
    before = torch.zeros(1000)
    with LiveBytes() as live:
        kept = before + 1
        view = kept[10:].view(-1, 10) + 0
        del view
        before.view(10, 100)
    assert live.now == 4000 and live.peak == 4000 + 4 * 990
    del kept
    assert live.now == 0


def test_attention_on_meta_makes_no_scores():
    q = torch.empty(1, 2, 300, 8, device="meta")
    with FlashOnMeta(), LiveBytes() as live:
        result = torch.nn.functional.scaled_dot_product_attention(q, q, q)
    assert result.shape == q.shape and live.peak == 4 * q.numel()


def test_the_command_says_what_fits(tiny, capsys):
    assert run(["plan", str(tiny("distilled")), "--device", "cpu", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [entry["dtype"] for entry in facts["precisions"]] == ["float32", *3 * ["bfloat16"]]
    assert [entry["loaded"] for entry in facts["precisions"]] == [*3 * ["exact"], "fp8"]
    assert all(entry["fits"] for entry in facts["precisions"])
    assert run(["plan", "tiny-random", "--device-memory", "0.1", "--dtype", "float32"]) == 0
    assert "missing" in " ".join(capsys.readouterr().out.split())
    needed = []
    for more in ([], ["--ahead"]):
        assert run(["plan", "tiny-random", "--device-memory", "40", "--dtype", "float32", "--json", *more]) == 0
        needed += [entry["needed"] for entry in json.loads(capsys.readouterr().out)["precisions"]]
    assert needed[0] < needed[1]
    assert run(["plan", "tiny-random", "-H", "64", "-W", "64", "--dtype", "float32", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["height"], facts["trained_height"], facts["trained_width"]) == (64, 64, 128)
    assert run(["plan", "tiny-random", "-H", "64", "-W", "64", "--dtype", "float32"]) == 0
    table = " ".join(capsys.readouterr().out.split())
    assert "frame size (trained: 64x128)" in table and "outside training" in table
    assert run(["plan", "big-random"]) == 2 and "big-random" in capsys.readouterr().err
    with pytest.raises(InputError, match="SIZE-random"):
        synthetic_info("14b-random-huge")
