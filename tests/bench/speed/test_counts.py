"""Counted, not timed: what the denoising loop launches, that it never waits, and that a stream's memory stands still."""

from collections import Counter
from functools import cache

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helios.checkpoints import synthetic_info
from helios.checkpoints.synthetic import load_transformer
from helios.conditioning.history import History
from helios.engine.live_bytes import FlashOnMeta, LiveBytes
from helios.sampling.denoise import ChunkNoise, denoise_chunk
from helios.sampling.plan import SamplingPlan
from helios.sampling.rollout import ConstantText, RolloutState, condition_chunk

META = torch.device("meta")
STEPS = {"distilled": (2, 2, 2), "mid": (3, 2, 2), "base": (4,)}


class Recorder(TorchDispatchMode):
    """Counts operations that do work, and notes tensors of other devices than the one that should be busy."""

    def __init__(self):
        super().__init__()
        self.calls, self.strangers = Counter(), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.calls[func.name()] += 1
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        self.strangers += [func.name() for tensor in tensors if tensor.device != META]
        return result


@cache
def recorded_chunk(variant, size=(64, 128)):
    """One chunk on the meta device, where reading a number is an error and a host tensor is a stranger."""
    info = synthetic_info(f"tiny-random-{variant}")
    plan = SamplingPlan(
        geometry=info.geometry,
        scheduler=info.scheduler,
        height=size[0],
        width=size[1],
        steps=STEPS[variant],
        guidance=info.preset.guidance,
    )
    model = load_transformer(info, META, torch.float32)
    with torch.no_grad():
        text = model.encode_text(torch.empty(1, 512, info.transformer_config["text_dim"], device=META))
        window = plan.anchor.window(plan.geometry)
        past = History.empty(1, window, plan.geometry, *plan.geometry.latent_size(*size), META)
        source = ConstantText(text=text, negative=text)
        condition = condition_chunk(model, plan, source, RolloutState(history=past))
        levels = range(1, plan.geometry.levels)
        noise = ChunkNoise(
            start_BCTHW=torch.empty(plan.level_shape(1, 0), device=META),
            blocks=tuple(torch.empty(plan.level_shape(1, level), device=META) for level in levels),
        )
        denoise_chunk(model, plan, condition, noise)  # builds the rotary tables of these sizes
        with FlashOnMeta(), Recorder() as recorder:
            latents = denoise_chunk(model, plan, condition, noise)
    assert latents.shape == plan.latent_shape(1)
    return recorder


@pytest.mark.parametrize("variant", ["distilled", "mid", "base"])
def test_the_loop_never_waits_and_copies_nothing_from_the_host(variant):
    recorder = recorded_chunk(variant)
    assert recorder.strangers == []
    assert recorder.calls["aten::_local_scalar_dense"] == 0


@pytest.mark.parametrize("variant", ["distilled", "mid", "base"])
def test_a_chunk_launches_a_bounded_number_of_operations(variant):
    """Per step: 60 for each of 3 blocks, 40 around them, 40 of solver and guidance; 20 between levels."""
    recorder = recorded_chunk(variant)
    assert recorder.calls.total() <= sum(STEPS[variant]) * (3 * 60 + 40 + 40) + 20 * len(STEPS[variant])
    assert recorded_chunk(variant, (128, 192)).calls.total() == recorder.calls.total()


def test_a_stream_holds_no_more_after_its_third_chunk(helios_of):
    helios = helios_of("distilled")
    settings = {"height": 64, "width": 64, "steps": (1, 1, 1), "amplify_first_chunk": False}
    held, peaks = [], []
    with LiveBytes() as live:
        for chunk in helios.stream("a red ball", num_frames=8 * 33, **settings):
            del chunk
            held.append(live.now)
            peaks.append(live.peak)
    assert len(held) == 8
    assert max(held[3:]) <= held[2]
    assert peaks[-1] == peaks[2]
