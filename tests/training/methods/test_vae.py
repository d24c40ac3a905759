from functools import cache

import pytest
import torch
from diffusers import AutoencoderKLWan

from helios.errors import InputError
from helios.models.vae import HeliosVAE
from helios.training.clips import InMemory, PixelClip
from helios.training.methods.vae import Crop, VaeLoss, VaeTraining, Whole, divergence, set_latent_statistics, to_signed
from helios.training.network import Bfloat16
from helios.training.optim import OptimConfig
from helios.training.player import Player, parameters_of
from helios.training.seeds import Draws
from tests.training.methods.steps import moved, run, snapshot


def vae() -> HeliosVAE:
    torch.manual_seed(0)
    module = AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
        scale_factor_spatial=4,
        scale_factor_temporal=4,
    )
    return HeliosVAE(module)


@cache
def windows(count: int = 4, frames: int = 9, size: int = 16) -> InMemory:
    """A bright square that moves over a coloured field."""
    clips = []
    for index in range(count):
        frames_FHWC = torch.zeros(frames, size, size, 3, dtype=torch.uint8)
        frames_FHWC[..., index % 3] = 120
        for f in range(frames):
            frames_FHWC[f, index : index + 6, f // 2 : f // 2 + 6] = 230
        clips.append(PixelClip(frames_FHWC=frames_FHWC))
    return InMemory(tuple(clips))


def training(model: HeliosVAE, **kwargs) -> VaeTraining:
    player = Player(name="vae", module=model.module, trainables=parameters_of(model.module), optim=OptimConfig(lr=3e-3))
    return VaeTraining(player, model, **kwargs)


@pytest.mark.parametrize("view, factor", [(Whole(), 0.85), (Crop(frames=5, size=8), 0.97)])
def test_it_learns_and_every_tensor_moves(tmp_path, view, factor):
    model = vae()
    before = snapshot(model.module)
    curves = run(training(model, view=view), tmp_path, steps=40, data=windows(), gradient_check_steps=5)
    losses = [value for _, value in curves["vae/l1"]]
    assert sum(losses[-5:]) < factor * sum(losses[:5])
    assert moved(before, model.module) == set(before)


def test_bfloat16_products_train_too(tmp_path):
    losses = [v for _, v in run(training(vae(), precision=Bfloat16()), tmp_path, steps=12, data=windows())["vae/l1"]]
    assert sum(losses[-3:]) < sum(losses[:3])


def test_the_loss_is_its_formula_in_float64():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 2, 3, 5, 4, 6, generator=generator, dtype=torch.float64)
    mean, log_variance = torch.randn(2, 2, 4, 2, 2, 2, generator=generator, dtype=torch.float64)
    terms = VaeLoss(square=2.5, edges=0.7, motion=0.3, kl=0.01)(x, y, mean, log_variance)
    e = y - x
    edges = (e[:, :, :, 1:] - e[:, :, :, :-1]).abs().mean() + (e[..., 1:] - e[..., :-1]).abs().mean()
    motion = (e[:, :, 1:] - e[:, :, :-1]).abs().mean()
    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence(normal(mean, (log_variance / 2).exp()), normal(0.0, 1.0)).mean()
    wanted = e.abs().mean() + 2.5 * e.square().mean() + 0.7 * edges + 0.3 * motion + 0.01 * kl
    assert terms["loss"].item() == pytest.approx(wanted.item(), rel=1e-5)
    assert divergence(mean, log_variance).item() == pytest.approx(kl.item(), rel=1e-9)


def test_statistics_make_latents_standard():
    model = vae()
    batches = [torch.stack([clip.frames_FHWC for clip in windows().clips])]
    set_latent_statistics(model, batches)
    pixels = to_signed(batches[0])
    noise = torch.randn(model.encode(pixels).shape, generator=torch.Generator().manual_seed(0))
    latents = model.encode(pixels, noise)
    assert latents.mean((0, 2, 3, 4)).abs().max() < 0.15
    assert (latents.std((0, 2, 3, 4)) - 1).abs().max() < 0.15
    with pytest.raises(InputError, match="no windows"):
        set_latent_statistics(model, [])


def test_a_crop_larger_than_the_window_is_refused():
    method = training(vae(), view=Crop(frames=33, size=32))
    with pytest.raises(InputError, match="smaller than the crop"):
        method.backward("vae", [windows()[0]], Draws(0, 0, (0,)), 1.0)
    with pytest.raises(InputError, match="must not be negative"):
        VaeLoss(kl=-1)


def test_a_new_small_vae_passes_pictures_through():
    """The first latents follow the picture and are hardly noisy: that is what training starts from."""
    from helios.training.start import SmallVae

    torch.manual_seed(0)
    model = SmallVae(width=8, widths=(1, 2, 4), channels=12).build()
    x = torch.rand(2, 3, 5, 16, 16) * 2 - 1
    mean, log_variance = model.encode_moments(x)
    other, _ = model.encode_moments(-x)
    assert log_variance.exp().sqrt().mean() < 0.1
    assert mean.std() > 4 * log_variance.exp().sqrt().mean()
    assert (mean - other).abs().mean() > 0.2 * mean.abs().mean()


def test_a_new_small_vae_means_the_same_by_its_first_latent_and_by_the_later_ones():
    """A still picture gives nearly equal latents in all frames, although the first passes no convolution in time."""
    from helios.training.start import SmallVae

    torch.manual_seed(0)
    model = SmallVae(width=8, widths=(1, 2, 4), channels=12).build()
    still = (torch.rand(1, 3, 1, 16, 16) * 2 - 1).expand(-1, -1, 9, -1, -1)
    mean, _ = model.encode_moments(still)
    change = (mean[:, :, 1:] - mean[:, :, :1]).square().mean()
    assert change < 0.3 * mean.square().mean()


def test_halved_steps_compare_the_halved_latents_with_the_halved_picture():
    model = vae()
    shapes = []
    decode = model.decode_raw
    model.decode_raw = lambda latents: (shapes.append(tuple(latents.shape[3:])), decode(latents))[1]
    method = training(model, halved=0.5)
    items = [windows()[0], windows()[1]]
    for step in range(12):
        method.backward("vae", items, Draws(0, step, (0, 1)), 1.0)
    assert set(shapes) == {(4, 4), (2, 2)}
    with pytest.raises(InputError, match="halved=1.5 is not a share"):
        training(vae(), halved=1.5)
