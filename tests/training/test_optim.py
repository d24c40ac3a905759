import pytest
import torch
from torch import nn

from helios.errors import InputError
from helios.training.ema import Ema, MovingAverage
from helios.training.optim import Constant, Cosine, MuonConfig, OptimConfig, clip_gradients, gradient_norm


def test_schedules():
    assert [Constant(warmup=4).factor(u, 9) for u in (0, 1, 3, 8)] == [0.25, 0.5, 1.0, 1.0]
    cosine = Cosine(warmup=10, floor=0.1)
    assert cosine.factor(0, 110) == 0.1 and cosine.factor(9, 110) == 1.0
    assert cosine.factor(60, 110) == pytest.approx(0.55)
    assert cosine.factor(110, 110) == cosine.factor(500, 110) == pytest.approx(0.1)
    assert Cosine(updates=50).factor(50, 110) == pytest.approx(0.1)
    with pytest.raises(InputError, match="warmup=5"):
        Cosine(warmup=5, updates=5)


def test_the_current_configuration_sets_the_rate_whatever_the_optimiser_held():
    parameter = nn.Parameter(torch.ones(2))
    optimizer = OptimConfig(lr=1.0).build({"weight": parameter})
    assert OptimConfig(lr=0.5, weight_decay=0.2, betas=(0.0, 0.9)).set_rate(optimizer, 0, 10) == 0.5
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["betas"]) == (0.5, 0.2, (0.0, 0.9))


def test_clipping_scales_the_whole_gradient():
    one, two = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    one.grad, two.grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert gradient_norm([one, two]) == pytest.approx(5.0)
    assert clip_gradients([one, two], 5.0, 10.0) == 1.0
    assert clip_gradients([one, two], 5.0, 1.0) == pytest.approx(0.2, rel=1e-5)
    assert gradient_norm([one, two]) == pytest.approx(1.0, rel=1e-5)


def test_half_precision_masters_are_refused():
    with pytest.raises(ValueError, match="keep float32 masters"):
        OptimConfig().build({"weight": nn.Parameter(torch.ones(1, dtype=torch.bfloat16))})


@pytest.mark.parametrize("changes", [{"lr": 0.0}, {"clip": -1.0}, {"weight_decay": -1.0}])
def test_impossible_settings_are_refused(changes):
    with pytest.raises(InputError, match="must be above 0"):
        OptimConfig(**changes)


def test_the_average_follows_first_and_then_the_published_decay():
    ema = Ema(decay=0.99, start=3)
    assert [ema.decay_at(u) for u in (1, 3)] == [0.0, 0.0]
    assert ema.decay_at(4) == pytest.approx(2 / 11) and ema.decay_at(3 + 100) == pytest.approx(101 / 110)
    assert ema.decay_at(10_000) == 0.99
    parameters = {"w": nn.Parameter(torch.zeros(1, dtype=torch.float64))}
    average, wanted = MovingAverage(Ema(decay=0.9, start=1), parameters), 0.0
    for step in range(1, 8):
        with torch.no_grad():
            parameters["w"].fill_(float(step))
        average.update(parameters)
        decay = 0.0 if step <= 1 else min((1 + step - 1) / (10 + step - 1), 0.9)
        wanted = decay * wanted + (1 - decay) * step
    assert average.shadow["w"].dtype == torch.float32
    assert average.shadow["w"].item() == pytest.approx(wanted, rel=1e-6)
    with pytest.raises(InputError, match="ema decay=1"):
        Ema(decay=1)


def test_the_model_gets_its_own_weights_back_whatever_happens():
    parameters = {"w": nn.Parameter(torch.zeros(1))}
    average = MovingAverage(Ema(), parameters)
    with torch.no_grad():
        parameters["w"].fill_(5.0)
    with pytest.raises(KeyError), average.swapped_in(parameters):
        assert parameters["w"].item() == 0.0
        raise KeyError
    assert parameters["w"].item() == 5.0


def test_muon_moves_matrices_to_the_nearest_orthonormal_update():
    """The first update is the gradient's orthogonal factor U V^T, whatever the gradient's scale."""
    from helios.training.muon import orthogonalised

    torch.manual_seed(0)
    gradient = torch.randn(12, 40)
    u, _, v = torch.linalg.svd(gradient, full_matrices=False)
    for scale in (1e-4, 1.0, 1e4):
        got = orthogonalised(scale * gradient)
        singular = torch.linalg.svdvals(got)
        assert singular.min() > 0.6 and singular.max() < 1.3
        assert torch.nn.functional.cosine_similarity(got.flatten(), (u @ v).flatten(), dim=0) > 0.97
    assert orthogonalised(gradient.T).shape == (40, 12)


def test_muon_leaves_embeddings_and_vectors_to_adamw():
    torch.manual_seed(0)
    trainables = {
        "layer.weight": nn.Parameter(torch.randn(16, 8)),
        "conv.weight": nn.Parameter(torch.randn(16, 4, 3, 3, 3)),
        "shared.weight": nn.Parameter(torch.randn(16, 8)),
        "layer.bias": nn.Parameter(torch.zeros(16)),
        "narrow.weight": nn.Parameter(torch.randn(3, 64)),
    }
    config = MuonConfig(lr=0.02, rest=OptimConfig(lr=1e-3, weight_decay=0.0))
    optimizer = config.build(trainables)
    before = {name: value.detach().clone() for name, value in trainables.items()}
    for value in trainables.values():
        value.grad = torch.randn_like(value)
    assert config.set_rate(optimizer, 0, 10) == 0.02
    optimizer.step()
    moved = {name: (value - before[name]).abs().max().item() for name, value in trainables.items()}
    for name in ("shared.weight", "layer.bias", "narrow.weight"):  # Adam's first step is the rate, in every number
        assert moved[name] == pytest.approx(1e-3, rel=1e-3)
    for name in ("layer.weight", "conv.weight"):
        change = (trainables[name] - before[name]).flatten(1)
        rate = 0.02 * max(1.0, change.shape[0] / change.shape[1]) ** 0.5
        singular = torch.linalg.svdvals(change) / rate
        assert singular.min() > 0.6 and singular.max() < 1.3
    assert set(optimizer.state) == set(trainables.values())


def test_muon_learns_a_linear_map():
    torch.manual_seed(0)
    wanted, got = torch.randn(24, 16), nn.Linear(16, 24)
    config = MuonConfig(lr=0.1, schedule=Cosine(floor=0.0))
    optimizer = config.build(dict(got.named_parameters()))
    losses = []
    for update in range(200):
        x = torch.randn(64, 16)
        loss = (got(x) - x @ wanted.T).square().mean()
        optimizer.zero_grad()
        loss.backward()
        config.set_rate(optimizer, update, 200)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 1e-3 * losses[0]


def test_muon_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="keep float32 masters"):
        MuonConfig().build({"weight": nn.Parameter(torch.ones(8, 8, dtype=torch.bfloat16))})
    with pytest.raises(InputError, match="momentum=1.0 from 0 to below 1"):
        MuonConfig(momentum=1.0)
