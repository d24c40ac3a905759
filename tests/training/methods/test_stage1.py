import pytest
import torch

from helios.models.transformer.patches import init_memory_patches
from helios.training.adapt import FullTraining, LoraTraining
from helios.training.corruption import NoCorruption
from helios.training.methods.stage1 import Stage1
from helios.training.methods.task import Tasks, make_task
from helios.training.network import Bfloat16, Network
from helios.training.optim import OptimConfig
from helios.training.player import Player
from helios.training.sample import TaskMix
from helios.training.seeds import Draws, Purpose
from tests.training.clips import GEOMETRY, clip, plain_clips
from tests.training.methods.steps import moved, run, snapshot
from tests.training.models import HashedCaptions, transformer

CLEAN = Tasks(mix=TaskMix(t2v=0, i2v=0, v2v=0, full=1), corruption=NoCorruption())


def stage1(model, training=FullTraining(), *, lr=2e-3, precision=None, **kwargs) -> Stage1:
    student = Player(name="student", module=model, trainables=training.attach(model), optim=OptimConfig(lr=lr))
    network = Network(module=model, **({"precision": precision} if precision else {}))
    return Stage1(student, network, HashedCaptions(), GEOMETRY, **kwargs)


def test_the_loss_is_the_published_one_in_closed_form():
    """Against the formula written out by hand in float64 from the same draws."""
    model = transformer()
    method, draws, items = stage1(model, tasks=CLEAN), Draws(0, 4, (0, 1)), [clip(4, seed=1), clip(4, seed=2)]
    got = method.backward("student", items, draws, 1.0)["loss"]
    task = make_task(items, draws, tasks=CLEAN, captions=HashedCaptions(), geometry=GEOMETRY, device="cpu")
    u = torch.special.ndtri(draws.uniform(Purpose.SIGMA)).sigmoid()
    sigma = (1 - (1000 * u).floor() / 1000).view(-1, 1, 1, 1, 1)
    noise = draws.normal(Purpose.NOISE, *task.target_BCTHW.shape[1:]).double()
    x = (1 - sigma) * task.target_BCTHW.double() + sigma * noise
    double = transformer().double()
    history = task.past.streams(GEOMETRY)
    history = type(history)(**{n: getattr(history, n).double() for n in history.__dataclass_fields__})
    with torch.no_grad():
        text = double.encode_text(task.text_BSE.double(), keys=False)
        v = double.velocity(x, 1000 * sigma.flatten(), text, double.encode_history(history))
    wanted = ((v - (noise - task.target_BCTHW.double())) ** 2).mean()
    assert got.item() == pytest.approx(wanted.item(), rel=1e-4)


def test_everything_trained_moves_and_nothing_else(tmp_path):
    model = transformer()
    init_memory_patches(model)
    method = stage1(model, LoraTraining(rank=4))
    before = snapshot(model)
    run(method, tmp_path, steps=6, gradient_check_steps=6, batch_size=4)
    assert moved(before, model) == set(method.players[0].trainables)


def test_it_learns_with_bfloat16_products_and_checkpointing(tmp_path):
    model = transformer()
    model.enable_gradient_checkpointing()
    curves = run(
        stage1(model, precision=Bfloat16(), tasks=CLEAN), tmp_path, steps=60, data=plain_clips(2), batch_size=1
    )
    losses = [value for _, value in curves["student/loss"]]
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


def test_checkpointing_gives_the_same_gradient():
    gradients = []
    for checkpointing in (False, True):
        model = transformer()
        if checkpointing:
            model.enable_gradient_checkpointing()
        method = stage1(model.train(), tasks=CLEAN)
        method.backward("student", [clip(4)], Draws(0, 0, (0,)), 1.0)
        gradients.append(torch.cat([p.grad.flatten() for p in method.players[0].trainables.values()]))
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)


def test_the_gradient_agrees_with_finite_differences():
    model = transformer().double()
    method, draws, items = stage1(model, tasks=CLEAN), Draws(0, 1, (0,)), [clip(3)]
    model.double()
    method.backward("student", items, draws, 1.0)
    for name in ("patch_short.weight", "blocks.0.attn1.to_q.weight", "proj_out.weight"):
        parameter = method.players[0].trainables[name]
        direction = torch.randn(parameter.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            sides = []
            for sign in (1, -1):
                parameter += sign * 1e-3 * direction
                with torch.enable_grad():
                    sides.append(float(_loss_only(method, items, draws)))
                parameter -= sign * 1e-3 * direction
        slope = (sides[0] - sides[1]) / 2e-3
        assert slope == pytest.approx((parameter.grad * direction).sum().item(), rel=2e-2, abs=1e-4)


def _loss_only(method, items, draws):
    kept = {n: p.grad.clone() for n, p in method.players[0].trainables.items()}
    loss = method.backward("student", items, draws, 0.0)["loss"]
    for name, parameter in method.players[0].trainables.items():
        parameter.grad = kept[name]
    return loss


def test_tiled_memory_patches_keep_the_tokens_of_a_constant_region():
    """Conformance T16."""
    from helios.models.transformer.patches import patchify

    model = transformer()
    init_memory_patches(model)
    constant = torch.randn(1, 4, 1, 1, 1).expand(1, 4, 8, 16, 16).contiguous()
    token = model.patch_embedding(constant[:, :, :1, :2, :2]).flatten()
    for name in ("patch_short", "patch_mid", "patch_long"):
        patch = getattr(model, name)
        tokens = patchify(patch, constant, patch.kernel_size)[0][0]
        torch.testing.assert_close(tokens, token.expand_as(tokens), rtol=1e-4, atol=1e-5)


def test_history_tokens_do_not_see_the_timestep_of_the_chunk():
    """Conformance T17: block attention to the noisy part, and history's output has nothing of t in it."""
    model = transformer(layers=1).eval()
    seen = []
    model.blocks[0].attn1.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    task = make_task(
        [clip(4)], Draws(0, 0, (0,)), tasks=CLEAN, captions=HashedCaptions(), geometry=GEOMETRY, device="cpu"
    )
    with torch.no_grad():
        text, history = model.encode_text(task.text_BSE), model.encode_history(task.past.streams(GEOMETRY))
        for t in (1.0, 900.0):
            model.velocity(task.target_BCTHW, torch.tensor([t]), text, history)
    count = history.tokens_BLD.shape[1]
    assert torch.equal(seen[0][:, :count], seen[1][:, :count])
    assert not torch.equal(seen[0][:, count:], seen[1][:, count:])


def test_token_counts_are_the_published_ones():
    """Conformance T19."""
    from helios.shapes import Geometry

    geometry = Geometry(levels=3)
    assert [geometry.noisy_tokens(384, 640, level) for level in range(3)] == [540, 2160, 8640]
    rows, columns = geometry.latent_size(384, 640)
    history = 2 * rows * columns // 4 + rows // 4 * (columns // 4) + 4 * (rows // 8) * (columns // 8)
    assert history == 1920 + 240 + 240
    packed = {
        ratio: sum(n * (history + geometry.noisy_tokens(384, 640, i)) for i, n in enumerate(ratio))
        for ratio in ((1, 2, 1), (1, 1, 1))
    }
    assert packed == {(1, 2, 1): 23_100, (1, 1, 1): 18_540}
