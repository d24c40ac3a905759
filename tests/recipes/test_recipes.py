from dataclasses import replace
from itertools import pairwise
from math import prod

import pytest
import torch

import recipes
from helios.errors import InputError
from helios.training.adapt import FullTraining, LoraTraining
from helios.training.config import apply_overrides, differences, from_plain, to_plain
from helios.training.estimate import estimate, estimate_phase, moment_numbers, sizes_of, trained_shapes
from helios.training.optim import MuonConfig, OptimConfig
from helios.training.phase import After, Phase
from recipes import helios_14b, toy
from tests.training.models import transformer


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_valid_and_comes_back_from_json(name):
    phase = recipes.find(name)()
    assert isinstance(phase, Phase) and name.endswith(phase.name)
    assert from_plain(Phase, to_plain(phase)) == phase
    assert (recipes.find(name).__doc__ or "").strip()


@pytest.mark.parametrize("module", [toy, helios_14b])
def test_every_phase_starts_after_the_one_before(module):
    phases = [getattr(module, name)() for name in module.PHASES]
    assert [phase.name for phase in phases] == list(module.PHASES)
    for before, after in pairwise(phases):
        assert after.start == After(phase=before.name)
    assert len({phase.run.seed for phase in phases}) == len(phases)


def test_the_14b_recipe_has_the_published_figures():
    """One row per phase: steps, clips per step, rate, rank, seed, clip, second moment, average, save."""
    got = {
        name: (p.run.steps, p.run.batch_size, p.optim.lr, p.training.rank, p.run.seed, p.optim.clip, p.optim.betas)
        for name in helios_14b.PHASES[:-1]
        for p in [getattr(helios_14b, name)()]
    }
    early, late = (0.9, 0.999), (0.0, 0.999)
    assert got == {
        "stage1_init": (5500, 128, 5e-5, 128, 43, 1.0, early),
        "stage1_post": (7500, 128, 3e-5, 128, 44, 1.0, early),
        "stage2_init": (16_000, 64, 1e-4, 256, 45, 1.0, early),
        "stage2_post": (20_000, 64, 3e-5, 256, 46, 1.0, early),
        "ode": (3759, 128, 2e-6, 256, 47, 10.0, late),
        "dmd": (2250, 128, 2e-6, 256, 49, 10.0, late),
    }
    assert helios_14b.dmd().stage.critic_optim.lr == 4e-7
    mix = helios_14b.dmd().stage.config.tasks.mix
    assert (mix.t2v, mix.i2v, mix.v2v, mix.full) == pytest.approx((0.4, 0.0, 0.3, 0.3))


def test_one_negative_prompt_is_filled_in_for_all_teachers(monkeypatch):
    monkeypatch.setattr(helios_14b, "NEGATIVE", "blurred")
    assert helios_14b.ode().data.negative == "blurred"
    assert helios_14b.dmd().stage.config.negative == helios_14b.gan().stage.config.negative == "blurred"


def test_a_phase_shows_its_changes_alone():
    changed = differences(to_plain(helios_14b.stage1_init()), to_plain(helios_14b.stage1_post()))
    assert set(changed) == {"name", "optim.lr", "run.seed", "run.steps", "start.phase", "start.source", "start.type"}


def test_split_weights_are_estimated_as_one_rank_holds_them():
    """Nearly all of the 14B model is in its blocks, which the ranks share."""
    whole = helios_14b.stage1_init()
    start = sizes_of(whole.start)
    one, eight = (estimate(replace(whole, parallel=kind), start, ranks=8) for kind in ("replicated", "sharded"))
    assert 1 / 8 < eight.weights / one.weights < 0.15 and 1 / 8 < eight.optimiser / one.optimiser < 0.3
    assert (eight.checkpoint, eight.parameters, eight.trained) == (one.checkpoint, one.parameters, one.trained)


def test_estimates_of_the_14b_model_are_the_known_sizes():
    start = sizes_of(helios_14b.stage1_init().start)
    sizes = {
        name: estimate(getattr(helios_14b, name)(), start, ranks=128 if name in ("ode", "dmd", "gan") else 64)
        for name in helios_14b.PHASES
    }
    init = sizes["stage1_init"]
    assert init.parameters == 14_312_427_584
    assert (init.trained - 23.9e6) / 1e9 == pytest.approx(0.62, abs=0.02)
    assert sizes["stage2_init"].trained / 1e9 == pytest.approx(1.25, abs=0.03)
    assert init.tokens == 11_040
    assert [sizes[name].tokens for name in ("stage2_init", "stage2_post")] == [23_100, 18_540]
    assert init.weights == pytest.approx(28.6e9 + 4 * init.trained, rel=0.01)
    heads = sizes["gan"].critic_trained - sizes["dmd"].critic_trained
    assert heads / 1e9 == pytest.approx(0.99, abs=0.01)
    assert sizes["dmd"].critic_trained / 1e9 == pytest.approx(1.25, abs=0.03)
    assert sizes["ode"].average == 4 * sizes["ode"].trained
    assert init.clips == 5500 * 128
    assert init.disk - 3 * init.checkpoint == pytest.approx(28.6e9 + 4 * (5.68e9 + 0.13e9), rel=0.01)
    assert all(size.memory > size.weights and size.disk > size.checkpoint for size in sizes.values())


def test_estimated_trained_numbers_are_those_of_the_real_model():
    patches = ("patch_embedding", "patch_short", "patch_mid", "patch_long")
    for training in (
        FullTraining(),
        FullTraining(frozen=("patch_mid",)),
        LoraTraining(rank=4),
        LoraTraining(rank=3, patches=patches, full=()),
    ):
        model = transformer()
        shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        counted = sum(p.numel() for p in training.attach(model).values())
        assert sum(map(prod, trained_shapes(training, shapes).values())) == counted


@pytest.mark.parametrize("optim", [OptimConfig(), MuonConfig()])
@pytest.mark.parametrize("training", [FullTraining(), LoraTraining(rank=4), LoraTraining(rank=16)])
def test_estimated_moments_are_those_that_the_optimiser_makes(optim, training):
    model = transformer()
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    trainables = training.attach(model)
    optimizer = optim.build(trainables)
    for parameter in trainables.values():
        parameter.grad = torch.ones_like(parameter)
    optim.set_rate(optimizer, 0, 1)
    optimizer.step()
    kept = sum(value.numel() for state in optimizer.state.values() for key, value in state.items() if key != "step")
    assert moment_numbers(optim, trained_shapes(training, shapes)) == kept


def test_estimates_of_the_toy_recipe_count_what_is_trained_and_exported(tmp_path):
    start = toy.vae().start
    sizes = {
        name: estimate_phase(getattr(toy, name)(), tmp_path, start)
        for name in ("vae", "vae_decoder", "pretrain", "stage1_init")
    }
    whole, decoder = sizes["vae"], sizes["vae_decoder"]
    module = start.model.vae.build().module
    frozen = sum(p.numel() for part in (module.encoder, module.quant_conv) for p in part.parameters())
    assert whole.parameters == whole.trained == decoder.parameters == decoder.trained + frozen
    assert 1.9 * 4 * whole.trained < whole.optimiser < 2.5 * 4 * whole.trained  # a gradient and mostly one moment
    text = sum(p.numel() for p in start.model.text.build(start.model.text.pieces).parameters())
    later = sizes["stage1_init"]
    patches = sum(
        p.numel()
        for name, p in start.model.transformer.build(
            channels=start.model.vae.channels, text_width=start.model.text.width
        ).named_parameters()
        if name.startswith(("patch_short", "patch_mid", "patch_long"))
    )
    assert sizes["pretrain"].trained == later.trained + text - patches
    assert later.weights == 4 * (later.parameters + text)
    exported = 4 * (later.parameters + text + whole.parameters)
    assert all(size.disk > exported + 2 * size.checkpoint for size in sizes.values())


@pytest.mark.parametrize(
    "name, message",
    [
        ("toy.stage1", "did you mean 'toy.stage1_"),
        ("toy.vaee", "did you mean 'toy.vae'"),
        ("", "use one of toy, helios_14b"),
    ],
)
def test_an_unknown_recipe_names_the_nearest(name, message):
    with pytest.raises(InputError, match=message):
        recipes.find(name)


@pytest.mark.parametrize(
    "recipe, setting, message",
    [
        (toy.stage1_init, "run.step=5", "did you mean 'run.steps'|did you mean 'steps'"),
        (toy.stage1_init, "text=StoredText", "toy latents hold no text states"),
        (toy.stage1_init, 'data={"type":"PromptPairs"}', "does not learn from PromptPairs"),
        (toy.vae, 'data={"type":"PreparedData"}', "VaeStage does not learn from PreparedData"),
        (toy.stage1_init, "text.trained=true", "trained in full pretraining only"),
        (toy.stage1_init, "dense=bfloat16", "full training needs float32"),
        (toy.dmd, "stage.one_at_a_time=true", "set recompute=true"),
        (toy.gan, "stage.adversary.weights.start=1000", "the adversary begins at step 1000 of 10:"),
        (toy.dmd, "parallel=sharded", "split weights cannot wait .* stage.student.amplify_first_chunk=false"),
        (helios_14b.gan, "parallel=sharded stage.student.amplify_first_chunk=no", "stage.one_at_a_time=false"),
    ],
)
def test_contradictions_in_a_recipe_are_refused(recipe, setting, message):
    with pytest.raises(InputError, match=message):
        apply_overrides(recipe(), setting.split(" "))


def test_distillation_with_split_weights_is_set_in_any_order():
    settings = ["parallel=sharded", "stage.one_at_a_time=false", "stage.student.amplify_first_chunk=false"]
    assert apply_overrides(helios_14b.dmd(), settings) == apply_overrides(helios_14b.dmd(), settings[::-1])


def test_the_small_model_fits_its_budget():
    """Three transformers, one VAE, one text encoder: at most 36 MB in half precision."""
    model = toy.vae().start.model
    transformer = model.transformer.build(channels=model.vae.channels, text_width=model.text.width)
    numbers = 3 * sum(p.numel() for p in transformer.parameters())
    numbers += sum(p.numel() for p in model.vae.build().module.parameters())
    numbers += sum(p.numel() for p in model.text.build(512).parameters())
    assert 2 * numbers < 36e6
