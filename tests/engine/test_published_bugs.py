"""Where the published code goes wrong, both behaviours side by side: theirs as it is, ours as it should be."""

import numpy as np
import pytest
import torch

from helios.engine.session import FloatPixels
from helios.errors import InputError
from helios.noise import Address, AddressedNoise, Purpose
from tests.engine.published import SIZE, arguments, as_pictures, float64_cholesky, load_published, picture

PROMPT = "A red circle moves slowly from left to right."
FAST = {**SIZE, "steps": (1, 1, 1), "amplify_first_chunk": False}


@pytest.fixture(scope="module")
def published(tiny):
    return load_published(tiny("distilled"), "distilled")


@pytest.fixture(scope="module")
def published_base(tiny):
    return load_published(tiny("base"), "base")


@torch.no_grad()
def run(pipeline, variant="distilled", steps=(1, 1, 1), **more):
    call = arguments(variant, seed=0, num_frames=33, steps=steps, **{"prompt": PROMPT, **more})
    if variant != "base":
        call["is_amplify_first_chunk"] = False
    return pipeline(**call).frames


def test_the_pyramid_runs_on_a_cpu_at_its_own_gamma(published, helios_of):
    """Q1: a singular covariance is factored in float32."""
    with pytest.raises(RuntimeError, match="positive-definite"):
        run(published)
    assert len(helios_of("distilled").generate(PROMPT, num_frames=33, **FAST).frames) == 33


def test_a_distilled_model_never_runs_guidance(published, helios_of):
    """Q3, B20: the published pipeline says that guidance is ignored and applies it, at its default of 5."""
    with float64_cholesky():
        without, default = run(published), run(published, guidance_scale=5.0)
    assert np.abs(without - default).max() > 0.01
    with pytest.raises(InputError, match="this checkpoint is distilled"):
        helios_of("distilled").prepare(PROMPT, guidance=5.0)
    assert helios_of("distilled").prepare(PROMPT).request.guidance_scale == 1.0


def test_lengths_are_exact(published_base, helios_of):
    """Q9, B21: 66 frames asked for, 65 given."""
    frames = published_base(**arguments("base", seed=0, num_frames=66, prompt=PROMPT, steps=(1,))).frames[0]
    assert len(frames) == 65
    assert len(helios_of("base").generate(PROMPT, num_frames=66, steps=(1,), **SIZE).frames) == 66


def test_the_anchor_can_be_left_out(published_base, helios_of):
    """Q6: 19 latent frames are split into 20."""
    with pytest.raises(RuntimeError, match="split"):
        run(published_base, "base", (1,), keep_first_frame=False)
    how = {"num_frames": 66, "steps": (1,), "guidance": 1.0, **SIZE}
    with_anchor, without = (helios_of("base").generate(PROMPT, anchor=a, **how).frames for a in ("first-frame", "none"))
    assert without.shape == with_anchor.shape and not np.array_equal(without, with_anchor)


def test_one_image_serves_a_batch(published_base, helios_of):
    """Q7, Q8: the published pipelines neither repeat nor broadcast."""
    image = as_pictures([picture()])[0]
    with pytest.raises((RuntimeError, ValueError)):
        run(published_base, "base", (1,), prompt=[PROMPT, PROMPT], image=image)
    with pytest.raises((RuntimeError, ValueError)):
        run(published_base, "base", (1,), num_videos_per_prompt=2)
    how = {"num_frames": 33, "steps": (1,), "guidance": 1.0, "image": picture(), **SIZE}
    videos = helios_of("base").generate_batch([PROMPT, PROMPT], seed=(4, 5), **how)
    assert [video.frames.shape for video in videos] == [(33, 64, 128, 3)] * 2
    assert not np.array_equal(videos[0].frames, videos[1].frames)


def test_sizes_are_checked_for_the_pyramid(published, helios_of):
    """Q28, B6: a multiple of 16 passes the published check and fails deep inside."""
    with pytest.raises((RuntimeError, ValueError)) as deep, float64_cholesky():
        run(published, height=96, width=128)
    assert "64" not in str(deep.value)
    with pytest.raises(InputError, match="96x128 .* is not a multiple of 64 .* use"):
        helios_of("distilled").prepare(PROMPT, height=96, width=128)


def test_images_keep_their_aspect(published_base, helios_of):
    """The published pipeline stretches: a square picture of a disc becomes a picture of an ellipse."""
    rows, columns = np.mgrid[:64, :64]
    inside = (rows - 32) ** 2 + (columns - 32) ** 2 < 12**2
    disc = np.where(inside[..., None], 255, 0).astype(np.uint8).repeat(3, 2)
    stretched = published_base.video_processor.preprocess(as_pictures([disc])[0], height=64, width=128)[0, 0] > 0
    ours = helios_of("base").prepare(PROMPT, image=disc, steps=(1,), **SIZE).start.image_BCHW[0, 0] > 0

    def aspect(mask):
        return mask.any(0).sum().item() / mask.any(1).sum().item()

    assert aspect(stretched) == pytest.approx(2.0, abs=0.1)
    assert aspect(ours) == pytest.approx(1.0, abs=0.05)


def test_one_control_moves_all_of_the_image_noise(published_base, helios_of):
    """B13: the published image range leaves the repeated-image latent at the video range."""
    from helios.conditioning.history import FirstFrameAnchor
    from helios.conditioning.picture import Motion, history_from_image

    helios = helios_of("base")
    image_BCHW = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def history(amount):
        where = {"geometry": helios.info.geometry, "anchor": FirstFrameAnchor()}
        return history_from_image(helios.vae, image_BCHW, AddressedNoise((0,)), motion=Motion(amount=amount), **where)

    still, moving = history(0.0), history(2.0)
    assert (moving.anchor_BCTHW - still.anchor_BCTHW).std() > 0.1
    assert (moving.window_BCTHW - still.window_BCTHW)[:, :, -1].std() > 0.1
    assert not moving.window_BCTHW[:, :, :-1].any()


def test_block_noise_follows_the_seed_and_the_chunk(published):
    """B1, Q14: without a forwarded generator the published block noise is the same every time."""
    with float64_cholesky():
        first, second = (published.sample_block_noise(1, 4, 2, 8, 8, device="cpu", generator=None) for _ in range(2))
    assert torch.equal(first, second)
    shape = (1, 4, 2, 8, 8)
    draws = [
        AddressedNoise((seed,)).block(Address(Purpose.BLOCK, chunk, level), shape, 1 / 3)
        for seed, chunk, level in ((0, 0, 1), (1, 0, 1), (0, 1, 1), (0, 0, 2))
    ]
    assert all(not torch.equal(draws[0], other) for other in draws[1:])


def test_memory_for_history_and_pixels_is_bounded(published_base, helios_of):
    """B5, Q30: the published loop keeps every latent and every pixel."""
    seen = []

    def watch(pipeline, step, timestep, tensors):
        import inspect

        frame = inspect.currentframe().f_back
        seen.append(frame.f_locals["history_latents"].shape[2])
        return {}

    published_base(**arguments("base", seed=0, num_frames=99, prompt=PROMPT, steps=(1,), callback_on_step_end=watch))
    assert seen == sorted(seen) and seen[-1] > seen[0]
    session = helios_of("base").session(PROMPT, num_frames=99, steps=(1,), guidance=1.0, **SIZE)
    windows = []
    for _ in session:
        windows.append(session.state().rollout.history.window_BCTHW.shape[2])
    assert windows == [19, 19, 19]


def test_floats_are_not_rounded(helios_of):
    frames = helios_of("distilled").generate(PROMPT, num_frames=5, pixels=FloatPixels(), **FAST).frames
    assert len(np.unique(frames)) > 256
