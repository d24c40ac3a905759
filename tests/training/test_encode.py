import pytest
import torch

from helios.errors import InputError
from helios.noise import AddressedNoise
from helios.shapes import Geometry
from helios.training.encode import DrawnClip, EncodedClips, EncodeSettings, encode_source
from helios.training.methods.vae import set_latent_statistics, to_signed
from tests.training.methods.test_vae import vae

GEOMETRY = Geometry(spatial=4, latent_channels=4)


def draw(index: int, chunks: int = 2) -> DrawnClip:
    """A clip of one grey level per number, with a moving bar."""
    frames = torch.full((33 * chunks, 16, 16, 3), 20 * index, dtype=torch.uint8)
    for f in range(len(frames)):
        frames[f, :, f % 16] = 250
    script = (("one",), ("two",)) if index == 2 else None
    return DrawnClip(frames_FHWC=frames, captions=(f"number {index}", f"clip {index}"), script=script)


def settings(count=5, **changes) -> EncodeSettings:
    return EncodeSettings(**{"count": count, "per_shard": 2, "dtype": "float32", **changes})


def test_clips_come_back_as_the_vae_encodes_them(tmp_path, monkeypatch):
    """Without the posterior's noise: every window on its own, every still as a request would encode it."""
    monkeypatch.setattr(AddressedNoise, "normal", lambda self, address, shape: torch.zeros(shape))
    model = vae()
    set_latent_statistics(model, [draw(i).frames_FHWC[None, :33] for i in range(3)])
    encode_source(draw, model, GEOMETRY, settings(), tmp_path)
    data = EncodedClips(tmp_path)
    assert len(data) == len(data.buckets()) == 5
    clip = data[3]
    assert clip.captions == ("number 3", "clip 3") and clip.script is None
    assert data[2].script == (("one",), ("two",))
    assert list(data.captions())[4:8] == ["number 2", "clip 2", "one", "two"]
    assert clip.latents_CTHW.shape == (4, 18, 4, 4) and clip.chunks(GEOMETRY) == 2
    frames = draw(3).frames_FHWC
    means = torch.cat([model.encode(to_signed(w[None]))[0] for w in frames.split(33)], dim=1)
    torch.testing.assert_close(clip.latents_CTHW, means, rtol=1e-4, atol=1e-5)
    held = frames[32:33].expand(33, -1, -1, -1)
    newest = model.encode(to_signed(held[None]))[0, :, -1]
    anchor = model.encode(to_signed(frames[None, 32:33]))[0, :, 0]
    assert clip.stills_TCHW.shape == (2, 4, 4, 4)
    torch.testing.assert_close(clip.stills_TCHW, torch.stack([anchor, newest]), rtol=1e-4, atol=1e-5)


def test_clips_are_samples_of_the_posterior_with_noise_of_their_own(tmp_path):
    model = vae()
    encode_source(lambda index: draw(3), model, GEOMETRY, settings(2), tmp_path)
    first, second = EncodedClips(tmp_path)[0], EncodedClips(tmp_path)[1]
    assert not torch.allclose(first.latents_CTHW, second.latents_CTHW)


def test_an_interrupted_command_goes_on_and_parts_add_up(tmp_path):
    model, whole, parts = vae(), tmp_path / "whole", tmp_path / "parts"
    encode_source(draw, model, GEOMETRY, settings(), whole)
    for index in range(2):
        encode_source(draw, model, GEOMETRY, settings(), parts, part=(index, 2))
    (parts / "shard-00001.safetensors").unlink()
    drawn = []
    encode_source(lambda i: drawn.append(i) or draw(i), model, GEOMETRY, settings(), parts)
    assert drawn == [2, 3]
    for file in whole.iterdir():
        assert file.read_bytes() == (parts / file.name).read_bytes()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda path: EncodedClips(path), "holds no encoded clips"),
        (lambda path: EncodeSettings(count=0), "use 1 or more"),
        (lambda path: EncodeSettings(count=1, dtype="int8"), "use float32, float16 or bfloat16"),
        (
            lambda path: encode_source(
                lambda i: DrawnClip(frames_FHWC=torch.zeros(30, 16, 16, 3, dtype=torch.uint8), captions=("a",)),
                vae(),
                GEOMETRY,
                settings(1),
                path,
            ),
            "has 30 frames: draw whole chunks of 33",
        ),
    ],
)
def test_bad_input_is_refused(tmp_path, make, message):
    with pytest.raises(InputError, match=message):
        make(tmp_path)
