"""Counted, not timed: FLOPs of a 14B chunk, operations per call, and nothing that waits for the device."""

from collections import Counter

import pytest
import torch
from diffusers import HeliosTransformer3DModel as Published
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from helios.models.transformer.context import HistoryLatents
from helios.models.transformer.model import HeliosTransformer3DModel

TERA = 1e12
LEVELS = (4, 2, 1)  # how much smaller than 48x80 the latents of a 1+1+1 chunk at 384x640 are


def released_inputs():
    empty = torch.empty
    history = HistoryLatents(
        long_BCTHW=empty(1, 16, 16, 48, 80), mid_BCTHW=empty(1, 16, 2, 48, 80), short_BCTHW=empty(1, 16, 2, 48, 80)
    )
    return history, [empty(1, 16, 9, 48 // s, 80 // s) for s in LEVELS], empty(1, 512, 4096), empty(1)


def flops_of_our_chunk(layers):
    """History once and three velocities; the text was encoded before, with the prompt."""
    with torch.device("meta"), torch.no_grad():
        model = HeliosTransformer3DModel(num_layers=layers)
        latents, xs, states, timestep = released_inputs()
        text = model.encode_text(states)
        with FlopCounterMode(display=False) as counter:
            history = model.encode_history(latents)
            for x in xs:
                model.velocity(x, timestep, text, history)
    return counter.get_total_flops()


def flops_of_the_published_chunk(layers):
    with torch.device("meta"), torch.no_grad():
        model = Published(num_layers=layers)
        # Its rotary tables switch autocast off, which the meta device refuses; they cost nothing worth counting.
        model.rope.forward = lambda frame_indices, height, width, device: torch.empty(
            1, 2 * 128, frame_indices.shape[1], height, width
        )
        latents, xs, states, timestep = released_inputs()
        positions, streams = latents.positions(), {}
        for name in ("short", "mid", "long"):
            streams[f"latents_history_{name}"] = getattr(latents, f"{name}_BCTHW")
            streams[f"indices_latents_history_{name}"] = torch.tensor([getattr(positions, name)])
        with FlopCounterMode(display=False) as counter:
            for x in xs:
                model(x, timestep, states, indices_hidden_states=torch.tensor([positions.noisy]), **streams)
    return counter.get_total_flops()


def at_forty_layers(count):
    """Blocks before the last are alike, so two small counts give the released depth exactly."""
    one, two = count(1), count(2)
    return one + 39 * (two - one)


def test_a_14b_chunk_costs_537_teraflop_and_the_published_one_548():
    assert at_forty_layers(flops_of_our_chunk) / TERA == pytest.approx(537.4, rel=0.01)
    assert at_forty_layers(flops_of_the_published_chunk) / TERA == pytest.approx(548.4, rel=0.01)
    assert at_forty_layers(flops_of_our_chunk) < at_forty_layers(flops_of_the_published_chunk) - 10 * TERA


class Recorder(TorchDispatchMode):
    """Counts operations that do work (views do not) and notes tensors that come from another device."""

    def __init__(self, device="cpu"):
        super().__init__()
        self.device, self.calls, self.strangers = torch.device(device), Counter(), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.calls[func.name()] += 1
        tensors = [x for x in torch.utils._pytree.tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)]
        if any(x.device != self.device for x in tensors):
            self.strangers.append(func.name())
        return result


def calls_per_velocity(model, case):
    with torch.no_grad():
        text, history = model.encode_text(case.text), model.encode_history(case.history)
        model.velocity(case.x, case.timestep, text, history)
        with Recorder() as recorder:
            model.velocity(case.x, case.timestep, text, history)
    return recorder.calls


def test_operations_per_call_are_bounded(pairs, cases):
    """A launch bound for devices: 60 operations per block, 40 around the blocks, whatever the sizes."""
    few, many = (calls_per_velocity(pairs(num_layers=n)[0], cases()) for n in (2, 4))
    per_block = (many.total() - few.total()) / 2
    assert per_block <= 60
    assert few.total() - 2 * per_block <= 40
    assert calls_per_velocity(pairs(num_layers=4)[0], cases(height=8, width=16, frames=9)).total() == many.total()


def test_half_precision_adds_few_operations(pairs, cases):
    """Casts, and on the CPU a half-precision RMS norm in six operations, which is one kernel on a GPU."""
    calls = {n: calls_per_velocity(pairs(torch.bfloat16, num_layers=n)[0], cases()).total() for n in (2, 4)}
    assert (calls[4] - calls[2]) / 2 <= 80


def test_fused_projections_save_two_products_per_block(pairs, cases):
    model, _ = pairs(num_layers=3)
    before = calls_per_velocity(model, cases())["aten::addmm"]
    model.fuse_projections()
    assert calls_per_velocity(model, cases())["aten::addmm"] == before - 2 * 2 - 1  # the last block asks q apart


def test_nothing_waits_for_the_device(pairs, cases):
    """On the meta device reading a number is an error, and a copy from the host shows as a tensor of another device."""
    model, case = pairs()[0].to("meta"), cases(frames=9)
    x, text, timestep = case.x.to("meta"), case.text.to("meta"), torch.empty(1, device="meta")
    latents = HistoryLatents(**{name: value.to("meta") for name, value in vars(case.history).items()})
    with torch.no_grad():
        context, history = model.encode_text(text), model.encode_history(latents)
        model.velocity(x, timestep, context, history)  # builds the rotary table of this grid
        with Recorder("meta") as recorder:
            history = model.encode_history(latents)
            model.velocity(x, timestep, context, history)
    assert recorder.strangers == []
    assert "aten::_local_scalar_dense" not in recorder.calls
    assert recorder.calls.total() > 100


def test_tables_and_text_are_not_made_again(pairs, cases):
    model, case = pairs()[0], cases(frames=9)
    calls = calls_per_velocity(model, case)
    assert calls["aten::cos"] == 1  # the timestep's; rotary tables are kept
    text_products = 3 * 2
    assert calls["aten::addmm"] == 2 + 3 + 3 * (4 + 2 + 2)  # patch and head, time, and per block: self, cross q o, ffn
    with torch.no_grad(), Recorder() as recorder:
        model(**case.published())
    assert recorder.calls["aten::addmm"] > calls["aten::addmm"] + text_products


def test_memory_of_modulation_does_not_grow_with_tokens(pairs, cases):
    """No tensor of [B, L, 6, D] is ever made: the published code's is 1.4 GB in the 14B model."""

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            made = [] if func.is_view else torch.utils._pytree.tree_leaves(result)
            self.elements = max([self.elements, *(x.numel() for x in made if isinstance(x, torch.Tensor))])
            return result

    model, case = pairs(ffn_dim=80)[0], cases(height=8, width=16, frames=9)
    with torch.no_grad():
        text, history = model.encode_text(case.text), model.encode_history(case.history)
        with Largest() as largest:
            model.velocity(case.x, case.timestep, text, history)
    tokens = history.tokens_BLD.shape[1] + 9 * 4 * 8
    assert largest.elements <= tokens * 80
