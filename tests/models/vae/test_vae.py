import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from helios.errors import InputError
from helios.models.vae import HeliosVAE, sample_posterior, to_uint8
from helios.ops import conv3d

FOUR_LEVELS = {
    "base_dim": 8,
    "z_dim": 16,
    "dim_mult": [1, 2, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
}
THREE_LEVELS = {
    "base_dim": 8,
    "z_dim": 4,
    "dim_mult": [1, 2, 4],
    "num_res_blocks": 2,
    "temperal_downsample": [True, True],
    "latents_mean": [0.3, -0.2, 0.1, 0.5],
    "latents_std": [1.5, 0.7, 2.0, 1.1],
    "scale_factor_spatial": 4,
}
LATE_TIME = {
    **THREE_LEVELS,
    "decoder_base_dim": 12,
    "temperal_downsample": [False, True],
    "num_res_blocks": 1,
    "scale_factor_temporal": 2,
}
CONFIGS = {"four_levels": FOUR_LEVELS, "three_levels": THREE_LEVELS, "late_time": LATE_TIME}


def random_wan_vae(config: dict, seed: int = 0) -> torch.nn.Module:
    """A Diffusers ``AutoencoderKLWan`` whose weights keep activations near unit size; gammas and biases are random too."""
    from diffusers import AutoencoderKLWan

    module = AutoencoderKLWan(**config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        draw = torch.randn(parameter.shape, generator=generator)
        if "gamma" in name:
            parameter.copy_(1 + 0.3 * draw)
        elif parameter.dim() > 1:
            parameter.copy_(draw * (1.2 / parameter[0].numel()) ** 0.5)
        else:
            parameter.copy_(0.1 * draw)
    return module


@pytest.fixture(params=CONFIGS, scope="session")
def wan_vae(request):
    return random_wan_vae(CONFIGS[request.param])


# latent frames, height, width, batch: one frame, odd sides, a full chunk
SHAPES = [(1, 3, 5, 2), (3, 5, 2, 2), (9, 2, 3, 1), (2, 1, 1, 1)]


def statistics(module):
    mean = torch.tensor(module.config.latents_mean).view(1, -1, 1, 1, 1)
    inverse_std = 1.0 / torch.tensor(module.config.latents_std).view(1, -1, 1, 1, 1)
    return mean, inverse_std


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def draw_latents(vae, shape, seed=0):
    frames, height, width, batch = shape
    return normal(batch, vae.geometry.latent_channels, frames, height, width, seed=seed)


def draw_pixels(vae, shape, seed=0):
    frames, height, width, batch = shape
    spatial = vae.geometry.spatial
    # Diffusers' encoder walks four frames at a time whatever the temporal factor, and drops a rest
    return normal(batch, 3, 4 * (frames - 1) + 1, spatial * height, spatial * width, seed=seed).tanh()


@pytest.mark.parametrize("shape", SHAPES)
def test_decode_equals_diffusers(wan_vae, shape):
    vae = HeliosVAE(wan_vae)
    latents = draw_latents(vae, shape)
    mean, inverse_std = statistics(wan_vae)
    with torch.no_grad():
        expected = wan_vae.decode(latents / inverse_std + mean).sample
    pixels = vae.decode(latents)
    assert expected.std() > 0.1 and (expected.abs() < 1).float().mean() > 0.5, "a saturated picture proves nothing"
    assert pixels.shape == expected.shape
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_encode_equals_diffusers_with_and_without_sampling(wan_vae, shape):
    vae = HeliosVAE(wan_vae)
    pixels = draw_pixels(vae, shape)
    mean, inverse_std = statistics(wan_vae)
    with torch.no_grad():
        posterior = wan_vae.encode(pixels).latent_dist
    noise = normal(*posterior.mean.shape, seed=1)
    torch.testing.assert_close(vae.encode(pixels), (posterior.mode() - mean) * inverse_std, rtol=0, atol=1e-5)
    sampled = (posterior.mean + posterior.std * noise - mean) * inverse_std
    torch.testing.assert_close(vae.encode(pixels, noise), sampled, rtol=0, atol=1e-5)
    assert vae.encode(pixels, noise).dtype == torch.float32


def test_full_chunk_at_reference_size():
    module = random_wan_vae(FOUR_LEVELS, seed=5)
    vae = HeliosVAE(module)
    latents = normal(1, 16, 9, 4, 8)
    mean, inverse_std = statistics(module)
    with torch.no_grad():
        expected = module.decode(latents / inverse_std + mean).sample
    assert vae.decode(latents).shape == (1, 3, 33, 32, 64)
    torch.testing.assert_close(vae.decode(latents), expected, rtol=0, atol=1e-5)


def test_without_onednn_the_pixels_and_gradients_are_the_same(wan_vae, monkeypatch):
    """What accelerators run: PyTorch's own convolutions on channels-last memory."""
    vae = HeliosVAE(wan_vae)
    latents, pixels = draw_latents(vae, (3, 2, 3, 1)), draw_pixels(vae, (2, 2, 3, 1))
    before = vae.decode(latents), vae.encode(pixels), gradients(wan_vae, latents, vae.decode_raw)
    monkeypatch.setattr(conv3d, "onednn_available", lambda: False)
    torch.testing.assert_close(vae.decode(latents), before[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(vae.encode(pixels), before[1], rtol=0, atol=1e-5)
    assert_same_gradients(gradients(wan_vae, latents, vae.decode_raw), before[2])


@pytest.mark.parametrize("available", [False, True])
def test_training_under_autocast(available, monkeypatch):
    monkeypatch.setattr(conv3d, "onednn_available", lambda: available)
    module = random_wan_vae(FOUR_LEVELS).requires_grad_(True)
    vae = HeliosVAE(module)
    pixels = draw_pixels(vae, (2, 1, 2, 1))
    with torch.autocast("cpu", torch.bfloat16):
        mean, _ = vae.encode_moments(pixels)
        rebuilt = vae.decode_raw(mean)
    exact = vae.decode_raw(vae.encode_moments(pixels)[0])
    assert (rebuilt - exact).abs().mean() < 0.02
    rebuilt.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.dtype == p.dtype for p in module.parameters())


def test_statistics_measured_anew_take_effect():
    vae = HeliosVAE(random_wan_vae(FOUR_LEVELS))
    pixels = draw_pixels(vae, (1, 1, 1, 1))
    before = vae.denormalize(vae.encode(pixels))
    vae.module.register_to_config(latents_mean=[0.5] * 16, latents_std=[2.0] * 16)
    torch.testing.assert_close(vae.encode(pixels) * 2.0 + 0.5, before)


@pytest.mark.parametrize("latents_per_part", [1, 2, 4])
def test_progressive_decode_equals_whole(wan_vae, latents_per_part):
    vae = HeliosVAE(wan_vae)
    latents = draw_latents(vae, (5, 3, 2, 2))
    parts = list(vae.decode_progressive(latents, latents_per_part=latents_per_part))
    assert len(parts) == -(-5 // latents_per_part)
    assert parts[0].shape[2] == vae.geometry.pixel_frames(latents_per_part)
    torch.testing.assert_close(torch.cat(parts, dim=2), vae.decode(latents), rtol=0, atol=5e-6)


def test_decode_by_parts_equals_progressive_decode(wan_vae):
    vae = HeliosVAE(wan_vae)
    latents = draw_latents(vae, (4, 2, 3, 1))
    parts = torch.cat(list(vae.decode_progressive(latents, latents_per_part=3)), dim=2)
    assert torch.equal(vae.decode(latents, latents_per_part=3), parts)


@pytest.mark.parametrize("latents_per_part", [1, 2, 9])
def test_encode_by_parts_equals_whole(wan_vae, latents_per_part):
    vae = HeliosVAE(wan_vae)
    pixels = draw_pixels(vae, (5, 2, 3, 2))
    whole = vae.encode(pixels)
    torch.testing.assert_close(vae.encode(pixels, latents_per_part=latents_per_part), whole, rtol=0, atol=5e-6)
    with pytest.raises(InputError, match="latents_per_part=0"):
        vae.encode(pixels, latents_per_part=0)


def test_decoding_does_not_change_its_input(wan_vae):
    vae = HeliosVAE(wan_vae)
    latents, pixels = draw_latents(vae, (2, 2, 3, 1)), draw_pixels(vae, (2, 2, 3, 1))
    kept_latents, kept_pixels = latents.clone(), pixels.clone()
    first = vae.decode(latents), vae.encode(pixels)
    assert torch.equal(latents, kept_latents) and torch.equal(pixels, kept_pixels)
    assert torch.equal(vae.decode(latents), first[0]) and torch.equal(vae.encode(pixels), first[1])


def test_progressive_decode_is_lazy_and_independent_of_later_latents(wan_vae):
    vae = HeliosVAE(wan_vae)
    latents = draw_latents(vae, (3, 2, 2, 1))
    changed = latents.clone()
    changed[:, :, 1:] += 1.0
    first, first_of_changed = next(vae.decode_progressive(latents)), next(vae.decode_progressive(changed))
    assert first.shape[2] == 1
    assert torch.equal(first, first_of_changed)


def test_causality_of_the_whole_decode(wan_vae):
    vae = HeliosVAE(wan_vae)
    latents = draw_latents(vae, (4, 2, 3, 1))
    changed = latents.clone()
    changed[:, :, 2:] += 1.0
    kept = vae.geometry.pixel_frames(2)
    before, after = vae.decode(latents), vae.decode(changed)
    torch.testing.assert_close(before[:, :, :kept], after[:, :, :kept], rtol=0, atol=1e-6)
    assert (before[:, :, kept:] - after[:, :, kept:]).abs().max() > 0.01


def test_batch_equals_solo(wan_vae):
    vae = HeliosVAE(wan_vae)
    latents = draw_latents(vae, (3, 2, 2, 3))
    solo = torch.cat([vae.decode(one) for one in latents.split(1)])
    torch.testing.assert_close(vae.decode(latents), solo, rtol=0, atol=5e-6)


def gradients(module, inputs, forward):
    """Gradients of a fixed random projection of ``forward(inputs)`` for the inputs and for every weight it touched."""
    module.requires_grad_(True)
    module.zero_grad(set_to_none=True)
    inputs = inputs.clone().requires_grad_(True)
    output = forward(inputs)
    (output * normal(*output.shape, seed=3)).sum().backward()
    found = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.requires_grad_(False)
    return inputs.grad, found


def assert_same_gradients(ours, theirs):
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-4, atol=1e-5 * theirs[0].abs().max().item())
    assert ours[1].keys() == theirs[1].keys()
    for name, expected in theirs[1].items():
        scale = expected.abs().max().item()
        torch.testing.assert_close(
            ours[1][name], expected, rtol=1e-3, atol=2e-5 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("batch", [1, 2])
def test_decode_gradients_equal_diffusers(wan_vae, batch):
    vae = HeliosVAE(wan_vae)
    latents = draw_latents(vae, (3, 2, 3, batch))
    ours = gradients(wan_vae, latents, lambda z: vae.decode_raw(z).clamp(-1, 1))
    theirs = gradients(wan_vae, latents, lambda z: wan_vae.decode(z).sample)
    assert len(ours[1]) == sum(n.startswith(("decoder", "post_quant")) for n, _ in wan_vae.named_parameters())
    assert_same_gradients(ours, theirs)


@pytest.mark.parametrize("batch", [1, 2])
def test_encode_gradients_equal_diffusers(wan_vae, batch):
    vae = HeliosVAE(wan_vae)
    pixels = draw_pixels(vae, (2, 3, 2, batch))

    def published(x):
        posterior = wan_vae.encode(x).latent_dist
        return torch.cat([posterior.mean, posterior.logvar], dim=1)

    ours = gradients(wan_vae, pixels, lambda x: torch.cat(vae.encode_moments(x), dim=1))
    assert_same_gradients(ours, gradients(wan_vae, pixels, published))


def test_inference_calls_record_no_gradients():
    module = random_wan_vae(FOUR_LEVELS).requires_grad_(True)
    vae = HeliosVAE(module)
    latents = draw_latents(vae, (1, 1, 1, 1)).requires_grad_(True)
    assert not vae.decode(latents).requires_grad
    assert not next(vae.decode_progressive(latents)).requires_grad
    assert not vae.encode(torch.zeros(1, 3, 1, 8, 8)).requires_grad
    assert torch.is_grad_enabled()


def test_inference_mode_gives_the_same_and_leaves_training_usable():
    module = random_wan_vae(FOUR_LEVELS).requires_grad_(True)
    vae = HeliosVAE(module)
    latents = draw_latents(vae, (2, 1, 2, 1))
    expected = vae.decode(latents)
    with torch.inference_mode():
        assert torch.equal(vae.decode(latents), expected)
        assert torch.equal(torch.cat(list(vae.decode_progressive(latents, latents_per_part=2)), dim=2), expected)
        vae.encode(expected)
    vae.decode_raw(latents).sum().backward()
    assert module.decoder.conv_in.weight.grad.abs().max() > 0


def test_inference_follows_the_weights_after_an_update():
    vae = HeliosVAE(random_wan_vae(FOUR_LEVELS))
    latents = draw_latents(vae, (1, 1, 2, 1))
    before = vae.decode(latents)
    vae.module.decoder.conv_out.weight.data.mul_(0.5)
    assert (vae.decode(latents) - before).abs().max() > 1e-3


def test_log_variance_is_clamped():
    module = random_wan_vae(FOUR_LEVELS)
    module.quant_conv.bias[16:24] = 100.0
    module.quant_conv.bias[24:] = -100.0
    vae = HeliosVAE(module)
    _, log_variance = vae.encode_moments(draw_pixels(vae, (1, 1, 1, 1)))
    assert torch.all(log_variance[:, :8] == 20.0) and torch.all(log_variance[:, 8:] == -30.0)


def test_sample_posterior_is_mean_plus_std_times_noise():
    mean, noise = torch.tensor([1.0, 2.0]), torch.tensor([0.5, -1.0])
    log_variance = torch.tensor([4.0, 9.0]).log()
    torch.testing.assert_close(sample_posterior(mean, log_variance, noise), torch.tensor([2.0, -1.0]))


def test_normalize_and_denormalize_are_inverses(wan_vae):
    vae = HeliosVAE(wan_vae)
    latents = draw_latents(vae, (2, 2, 2, 1))
    with torch.inference_mode():
        torch.testing.assert_close(vae.denormalize(vae.normalize(latents)), latents)
    latents = latents.clone().requires_grad_(True)
    vae.normalize(latents).sum().backward()
    std = torch.tensor(vae.config["latents_std"]).view(1, -1, 1, 1, 1)
    torch.testing.assert_close(latents.grad, (1 / std).expand_as(latents))


def test_bfloat16_stays_close_to_float32():
    vae = HeliosVAE(random_wan_vae(FOUR_LEVELS))
    half = HeliosVAE(random_wan_vae(FOUR_LEVELS)).to(dtype=torch.bfloat16)
    latents = draw_latents(vae, (3, 2, 3, 1))
    pixels = vae.decode(latents)
    error = (half.decode(latents).float() - pixels).abs()
    assert half.decode(latents).dtype == torch.bfloat16
    assert 0 < error.mean() < 0.01 and error.max() < 0.1
    assert half.encode(pixels).dtype == torch.float32
    torch.testing.assert_close(half.encode(pixels), vae.encode(pixels), rtol=0, atol=0.1)


@given(st.integers(0, 255))
def test_uint8_is_the_nearest_byte(value):
    exact = torch.full((1, 3, 1, 1, 1), value / 127.5 - 1.0)
    for offset in (-0.49, 0.0, 0.49):
        assert to_uint8(exact + offset / 127.5).unique().tolist() == [min(255, max(0, value))]


def test_uint8_ends_layout_and_clamp():
    pixels = torch.tensor([-1.0, 1.0, -7.0, 7.0, 0.0, -0.999]).view(1, 3, 2, 1, 1)
    frames = to_uint8(pixels)
    assert frames.dtype == torch.uint8 and frames.shape == (1, 2, 1, 1, 3) and frames.is_contiguous()
    assert frames[0, :, 0, 0].tolist() == [[0, 0, 128], [255, 255, 0]]
    assert torch.equal(HeliosVAE.to_uint8(pixels.bfloat16())[0, 0, 0, 0, :2], torch.tensor([0, 0], dtype=torch.uint8))


def test_flops_of_a_released_chunk_are_counted_without_weights():
    """69 TFLOP is the published estimate for one 384 x 640 chunk of the released VAE (base 96, two residual blocks)."""
    from diffusers import AutoencoderKLWan
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        vae = HeliosVAE(AutoencoderKLWan())
    with FlopCounterMode(display=False) as counter:
        pixels = vae.decode(torch.empty(1, 16, 9, 48, 80, device="meta"))
    assert pixels.shape == (1, 3, 33, 384, 640)
    assert counter.get_total_flops() == pytest.approx(69.26e12, rel=1e-3)


class Launches(TorchDispatchMode):
    """Counts the operations that start something on an accelerator."""

    HOST = ("aten::empty", "aten::promote_types", "aten::scalar_tensor")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not (func.is_view or func.name().startswith(self.HOST))
        return func(*args, **(kwargs or {}))


def test_a_decode_launches_a_bounded_number_of_operations_whatever_its_length():
    """On an accelerator's path: 24 for a residual block (two norms with SiLU, three convolutions), 10 for each other part."""
    from diffusers import AutoencoderKLWan

    with torch.device("meta"):
        vae = HeliosVAE(AutoencoderKLWan(**FOUR_LEVELS).eval())

    def launches(frames, height):
        with Launches() as found:
            vae.decode(torch.empty(1, 16, frames, height, 8, device="meta"))
        return found.count

    decoder = vae.module.decoder
    blocks = sum(len(block.resnets) for block in [decoder.mid_block, *decoder.up_blocks])
    others = 2 + len(decoder.mid_block.attentions) + len(decoder.up_blocks)
    assert launches(2, 4) <= 24 * blocks + 10 * others
    assert launches(2, 4) == launches(9, 4) == launches(9, 8)


def test_from_config_loads_the_same_keys(wan_vae):
    vae = HeliosVAE.from_config(dict(wan_vae.config), wan_vae.state_dict())
    latents = draw_latents(vae, (1, 2, 2, 1))
    assert torch.equal(vae.decode(latents), HeliosVAE(wan_vae).decode(latents))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"is_residual": True}, "is_residual=True"),
        ({"patch_size": 2}, "patch_size=2"),
        ({"attn_scales": [0.5]}, "attn_scales"),
        ({"temperal_downsample": [True]}, "needs 2"),
        ({"scale_factor_spatial": 8}, "scale_factor_spatial=8 but its layers give 4"),
        ({"scale_factor_temporal": 2}, "scale_factor_temporal=2 but its layers give 4"),
        ({"latents_std": [1.0]}, "1 latents_std entries"),
    ],
)
def test_foreign_or_contradictory_configurations_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        HeliosVAE.from_config({**THREE_LEVELS, **change})


def test_another_kind_of_vae_is_refused():
    from diffusers import AutoencoderKL

    with pytest.raises(InputError, match="not an AutoencoderKLWan"):
        HeliosVAE(AutoencoderKL(block_out_channels=[32], sample_size=8))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 4, 8, 8), "4 frames .* for example 1"),
        ((1, 3, 8, 8, 8), "for example 5"),
        ((1, 3, 5, 8, 12), "multiples of 8"),
        ((1, 4, 5, 8, 8), "pass .batch, 3,"),
        ((3, 5, 8, 8), "pass .batch, 3,"),
    ],
)
def test_pixels_that_do_not_fit_are_refused(shape, message):
    vae = HeliosVAE(random_wan_vae(FOUR_LEVELS))
    with pytest.raises(InputError, match=message):
        vae.encode(torch.zeros(shape))


def test_latents_and_noise_that_do_not_fit_are_refused():
    vae = HeliosVAE(random_wan_vae(FOUR_LEVELS))
    with pytest.raises(InputError, match="pass .batch, 16,"):
        vae.decode(torch.zeros(1, 8, 1, 1, 1))
    with pytest.raises(InputError, match="pass .batch, 16,"):
        vae.decode(torch.zeros(1, 16, 0, 1, 1))
    with pytest.raises(InputError, match="draw .1, 16, 1, 1, 1."):
        vae.encode(torch.zeros(1, 3, 1, 8, 8), torch.zeros(1, 16, 1, 1, 2))
    with pytest.raises(InputError, match="latents_per_part=0"):
        vae.decode_progressive(torch.zeros(1, 16, 1, 1, 1), latents_per_part=0)


@settings(max_examples=10, deadline=None)
@given(frames=st.integers(1, 4), height=st.integers(1, 3), width=st.integers(1, 3), seed=st.integers(0, 9))
def test_a_clip_keeps_its_shape_through_encode_and_decode(frames, height, width, seed):
    vae = HeliosVAE(random_wan_vae(FOUR_LEVELS))
    pixels = draw_pixels(vae, (frames, height, width, 1), seed=seed)
    latents = vae.encode(pixels)
    assert latents.shape == (1, 16, frames, height, width)
    assert vae.decode(latents).shape == pixels.shape
