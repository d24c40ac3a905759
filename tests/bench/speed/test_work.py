"""Arithmetic of a chunk, counted on shapes: the released size costs what the architecture says and no more."""

import pytest

from helios.bench.speed.work import count_chunk
from helios.checkpoints import synthetic_info
from helios.sampling.plan import SamplingPlan

TERA = 1e12


def chunk(name, steps, height=384, width=640, approximations=(), **more):
    info = synthetic_info(name)
    settings = {"guidance": info.preset.guidance, **more}
    plan = SamplingPlan(
        geometry=info.geometry, scheduler=info.scheduler, height=height, width=width, steps=steps, **settings
    )
    return count_chunk(
        info.transformer_config, info.vae_config, plan, text_tokens=info.text_tokens, approximations=approximations
    )


@pytest.fixture(scope="module")
def released():
    return chunk("14b-random", (1, 1, 1))


def test_a_released_chunk_is_537_teraflop_of_transformer(released):
    """548 TFLOP in the published code, less the exact savings: text once per prompt, dead rows of the last block."""
    assert released.denoise / TERA == pytest.approx(537.4, rel=0.01)
    assert 548.4 - released.denoise / TERA > 8
    assert released.text / TERA == pytest.approx(2.2, rel=0.02)


def test_levels_cost_what_their_tokens_cost(released):
    """Per level of the architecture, less the text (2.2 each) and the savings of the last block."""
    assert [level / TERA for level in released.levels] == pytest.approx([67, 116, 354], rel=0.02)
    assert released.history / TERA < 0.1


def test_a_reused_history_saves_125_teraflop_of_a_released_chunk(released):
    """Its rows in levels 1 and 2; every step but the first of a longer run."""
    reused = chunk("14b-random", (1, 1, 1), approximations=("history",))
    assert (released.denoise - reused.denoise) / TERA == pytest.approx(125, rel=0.03)
    assert reused.levels[0] == released.levels[0]
    longer = chunk("14b-random", (2, 2, 2), approximations=("history",))
    assert (2 * released.denoise - longer.denoise) / TERA == pytest.approx(304, rel=0.03)


def test_decoding_a_released_chunk_is_69_teraflop(released):
    assert released.decode / TERA == pytest.approx(69.26, rel=0.01)
    assert released.total == released.denoise + released.decode


def test_steps_and_guidance_multiply():
    once, twice = (chunk("tiny-random", steps, 64, 128) for steps in ((1, 1, 1), (2, 2, 2)))
    assert twice.levels == tuple(2 * level for level in once.levels)
    assert (twice.decode, twice.history, twice.text) == (once.decode, once.history, once.text)
    guided = chunk("tiny-random-mid", (1, 1, 1), 64, 128)
    assert guided.levels == tuple(2 * level for level in once.levels)
