"""Reading pictures: every mode comes out as upright RGB, and what is no picture is named."""

import numpy as np
import pytest
from PIL import Image

from helios.errors import InputError
from helios.media import read_image

RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def two_tone():
    """A 4 x 6 picture, its left half red and its right half green."""
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, :3], pixels[:, 3:] = RED, GREEN
    return Image.fromarray(pixels)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "RGBX"])
def test_colour_modes_keep_their_colours(tmp_path, mode):
    two_tone().convert(mode).save(tmp_path / "a.tiff")
    pixels = read_image(tmp_path / "a.tiff")
    assert pixels.dtype == np.uint8 and pixels.shape == (4, 6, 3)
    assert tuple(pixels[0, 0]) == RED and tuple(pixels[0, 5]) == GREEN


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey_modes_become_equal_channels(mode):
    pixels = read_image(Image.new("L", (3, 2), 255).convert(mode))
    assert pixels.shape == (2, 3, 3) and (pixels == 255).all()


def test_transparency_is_laid_on_white():
    see_through = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert (read_image(see_through) == 255).all()
    half = Image.new("RGBA", (2, 2), (255, 0, 0, 128))
    assert np.abs(read_image(half)[0, 0].astype(int) - (255, 127, 127)).max() <= 1


def test_a_transparent_palette_colour_is_laid_on_white(tmp_path):
    indexed = two_tone().quantize(4)
    indexed.save(tmp_path / "a.png", transparency=indexed.getpixel((0, 0)))
    pixels = read_image(tmp_path / "a.png")
    assert tuple(pixels[0, 0]) == WHITE and tuple(pixels[0, 5]) == GREEN


def test_sixteen_bit_grey_is_scaled_not_cut(tmp_path):
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_rotation_of_the_camera_is_undone(tmp_path, orientation):
    """Store the picture as a camera would that was held that way; what comes back is the picture."""
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    wanted = np.asarray(two_tone())
    stored = two_tone().transpose(inverse[orientation]) if orientation > 1 else two_tone()
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), wanted)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 3), (4, 6, 4)])
def test_arrays_of_bytes_and_of_floats_agree(shape):
    whole = np.full(shape, 255, np.uint8)
    assert read_image(whole).shape == (4, 6, 3)
    assert np.array_equal(read_image(whole), read_image((whole / 255).astype(np.float32)))


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((2, 4, 6, 3), np.uint8),
        np.zeros((4, 6, 2), np.uint8),
        np.zeros((0, 6, 3), np.uint8),
        np.full((4, 6, 3), 2.0),
        np.full((4, 6, 3), np.nan),
        np.zeros((4, 6, 3), np.int64),
    ],
    ids=["batch", "two channels", "empty", "above one", "nan", "int64"],
)
def test_arrays_that_are_no_picture_are_refused(pixels):
    with pytest.raises(InputError):
        read_image(pixels)


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "cut off", "empty"])
def test_files_that_are_no_picture_are_named(tmp_path, kind):
    path = tmp_path / "a.png"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("not a picture")
    elif kind == "empty":
        path.touch()
    elif kind == "cut off":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="a.png") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_a_picture_too_large_to_be_honest_is_refused(tmp_path, monkeypatch):
    two_tone().save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    with pytest.raises(InputError, match="a.png"):
        read_image(tmp_path / "a.png")
