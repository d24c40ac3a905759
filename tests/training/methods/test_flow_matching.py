import pytest
import torch
from torch import nn

from helios.errors import InputError
from helios.models.transformer.patches import init_memory_patches
from helios.schedulers.stages import SingleStage
from helios.training.adapt import MEMORY_PATCHES, FullTraining
from helios.training.methods.flow_matching import EmptyPast, FlowMatching, FlowPoint, NoPast, blend, squared_error
from helios.training.methods.sparse import Excerpt
from helios.training.network import Bfloat16, Network
from helios.training.noise_levels import LogitNormal, Uniform, look_up
from helios.training.optim import OptimConfig
from helios.training.player import Player
from helios.training.seeds import Draws
from helios.training.text import EncodedCaptions
from tests.training.clips import GEOMETRY, clip, plain_clips
from tests.training.methods.steps import moved, one_batch, run, snapshot
from tests.training.models import TEXT_WIDTH, HashedCaptions, transformer


def player(model, *, lr=3e-3, **kwargs) -> Player:
    trainables = FullTraining(frozen=MEMORY_PATCHES).attach(model)
    return Player(name="student", module=model, trainables=trainables, optim=OptimConfig(lr=lr), **kwargs)


def text_encoder():
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    config = UMT5Config(
        vocab_size=64,
        d_model=TEXT_WIDTH,
        d_kv=6,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        dropout_rate=0.0,
        relative_attention_num_buckets=4,
        relative_attention_max_distance=8,
    )
    return UMT5EncoderModel(config)


class Letters:
    """A tokenizer of letters."""

    pad_token_id = 0

    def __call__(self, text, add_special_tokens):
        ids = [2 + ord(letter) % 60 for letter in text] + [1]
        return type("Encoded", (), {"input_ids": ids})


def test_the_point_lies_on_the_straight_path():
    x0, draws = torch.randn(3, 4, 9, 4, 4), Draws(0, 0, (0, 1, 2))
    point = FlowPoint.draw(x0, LogitNormal(), draws)
    sigma = point.timestep_B.double() / 1000
    assert len(set(sigma.tolist())) == 3
    noise = point.velocity_BCTHW.double() + x0.double()
    wanted = blend(x0.double(), noise, sigma)
    torch.testing.assert_close(point.x_BCTHW.double(), wanted, rtol=1e-5, atol=1e-6)
    # x - sigma * velocity is the clean chunk again
    back = point.x_BCTHW.double() - sigma.view(-1, 1, 1, 1, 1) * point.velocity_BCTHW.double()
    torch.testing.assert_close(back, x0.double(), rtol=1e-4, atol=1e-5)


def test_logit_normal_and_uniform_have_the_right_quantiles():
    u = (torch.arange(100_000) + 0.5) / 100_000
    fractions = LogitNormal().fractions(u)
    expected = torch.sigmoid(torch.special.ndtri(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)))
    torch.testing.assert_close(
        fractions.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)), expected, rtol=1e-3, atol=1e-3
    )
    assert torch.equal(Uniform().fractions(u), u)
    sigma, timestep = look_up(SingleStage().noise_table(), torch.tensor([0.0, 0.4999, 0.5, 1.0]))
    torch.testing.assert_close(sigma, torch.tensor([1.0, 0.501, 0.5, 0.001]))
    torch.testing.assert_close(timestep, 1000 * sigma)
    with pytest.raises(InputError, match="std=0"):
        LogitNormal(std=0)


def test_the_loss_is_the_mean_square_in_float32():
    a, b = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    assert squared_error(a.bfloat16(), b).item() == pytest.approx(
        ((a.bfloat16().double() - b) ** 2).mean().item(), rel=1e-5
    )


def test_it_learns_a_few_clips(tmp_path):
    model = transformer()
    data = plain_clips()
    curves = run(
        FlowMatching(player(model), Network(module=model), HashedCaptions(), GEOMETRY),
        tmp_path,
        steps=60,
        data=data,
        batch_size=1,
    )
    losses = [value for _, value in curves["student/loss"]]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


@pytest.mark.parametrize("precision", [Bfloat16()])
def test_text_encoder_is_trained_along_and_padding_stays_zero(tmp_path, precision):
    model, encoder = transformer(), text_encoder()
    both = nn.ModuleDict({"transformer": model, "text_encoder": encoder})
    trainables = FullTraining(frozen=tuple(f"transformer.{name}" for name in MEMORY_PATCHES)).attach(both)
    student = Player(name="student", module=both, trainables=trainables, optim=OptimConfig(lr=1e-3))
    captions = EncodedCaptions(tokenizer=Letters(), encoder=encoder, tokens=24, precision=precision, dropout=0.5)
    before = snapshot(both)
    run(
        FlowMatching(student, Network(module=model, precision=precision), captions, GEOMETRY),
        tmp_path,
        steps=6,
        gradient_check_steps=6,
    )
    assert moved(before, both) == set(trainables)
    states = captions.encode([clip(1, seed=3), clip(1, seed=12345)], Draws(0, 0, (0, 1)))
    assert states.shape == (2, 24, TEXT_WIDTH) and states.dtype == torch.float32
    prompts = captions.encode_prompts(["clip number 3", ""])
    assert prompts[1, 1:].abs().max() == 0 and prompts[0, 14:].abs().max() == 0 and prompts[0, :14].abs().min() > 0
    with pytest.raises(InputError, match="a caption has 31 tokens and the text encoder reads 24"):
        captions.encode_prompts(["x" * 30])


def test_memory_patches_stay_as_they_are(tmp_path):
    model = transformer()
    student = player(model)
    before = snapshot(model)
    run(FlowMatching(student, Network(module=model), HashedCaptions(), GEOMETRY), tmp_path, data=one_batch())
    assert moved(before, model) == set(student.trainables)
    assert not any(name.startswith("patch_short") for name in student.trainables)


def test_every_excerpt_goes_through_the_network_at_its_size():
    model, sizes = transformer(), []
    excerpts = (Excerpt(share=0.5), Excerpt(share=0.5, shrink=2))
    method = FlowMatching(player(model), Network(module=model), HashedCaptions(), GEOMETRY, excerpts=excerpts)
    velocity = model.velocity
    model.velocity = lambda x, *rest, **given: sizes.append(x.shape[3]) or velocity(x, *rest, **given)
    for step in range(30):
        method.backward("student", [clip(1)], Draws(0, step, (0,)), 1.0)
    assert 8 <= sizes.count(4) <= 22 and sizes.count(4) + sizes.count(8) == 30


@pytest.mark.parametrize("past, knows", [(NoPast(), False), (EmptyPast(), True)])
def test_a_frame_knows_its_time_only_after_a_past(past, knows):
    model = transformer().double()
    network = Network(module=model)
    x = torch.randn(1, 4, 1, 8, 8, dtype=torch.float64)
    text = network.encode_text(torch.randn(1, 3, TEXT_WIDTH, dtype=torch.float64))
    history = past.before(x.expand(-1, -1, 9, -1, -1), 1, network, GEOMETRY)
    with torch.no_grad():
        first, last = (network.velocity(x, torch.tensor([500.0]), text, history, frames=(frame,)) for frame in (20, 28))
    assert bool((first - last).abs().max() > 1e-4) is knows


def test_an_empty_past_is_as_small_as_its_excerpt_and_leaves_the_patches_alone(tmp_path):
    model = transformer()
    init_memory_patches(model)
    student, tokens = player(model), []
    encode = model.encode_history
    model.encode_history = lambda history, **given: tokens.append(history.short_BCTHW.shape) or encode(history, **given)
    before = snapshot(model)
    method = FlowMatching(
        student, Network(module=model), HashedCaptions(), GEOMETRY, (Excerpt(shrink=2),), past=EmptyPast()
    )
    run(method, tmp_path, data=one_batch())
    assert moved(before, model) == set(student.trainables)
    assert {shape[2:] for shape in tokens} == {(2, 4, 4)}
