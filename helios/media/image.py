"""Read one picture, whatever its mode, as upright RGB.

Letters: H W height and width in pixels, C channels.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from helios.errors import InputError

_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N", "I")


def read_image(source: str | Path | Image.Image | np.ndarray) -> np.ndarray:
    """Read a picture as uint8 [H, W, 3].

    Files and PIL images may be in any mode that has colours: transparency is laid on white, 16-bit grey is scaled to 8
    bits, a palette is resolved, the camera's rotation (EXIF) is applied, and of an animation the first frame is taken.
    Arrays may be [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], uint8 or floats in [0, 1].

    Raises: InputError when there is no such file, or it is not a whole picture.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        try:
            return np.array(_upright_rgb(source))
        except ValueError as error:
            raise InputError(f"a picture of mode {source.mode} cannot be used ({error}): convert it to RGB") from error
    if not isinstance(source, str | Path):
        raise InputError(f"the image is a {type(source).__name__}: pass a path, a PIL image or a [H, W, 3] array")
    path = Path(source)
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the path of one picture")
    if not path.is_file():
        raise InputError(f"there is no picture at {path}: check the path")
    try:
        with Image.open(path) as image:
            return np.array(_upright_rgb(image))
    except Image.UnidentifiedImageError as error:
        raise InputError(f"{path} is not a picture that can be read: save it as PNG or JPEG") from error
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as a picture ({error}): save it again as PNG or JPEG") from error


def _from_array(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or 0 in pixels.shape:
        raise InputError(f"an array of {list(pixels.shape)} is not one picture: give [H, W, 3]")
    if np.issubdtype(pixels.dtype, np.floating):
        if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
            raise InputError(f"the picture's {pixels.dtype} values leave [0, 1]: scale them, or give uint8")
        pixels = np.rint(pixels * 255).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise InputError(f"the picture's values are {pixels.dtype}: give uint8, or floats in [0, 1]")
    return np.array(_upright_rgb(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)))


def _upright_rgb(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if upright.mode in _SIXTEEN_BIT:
        return _eight_bits(upright).convert("RGB")
    if upright.mode == "F":
        raise ValueError("it holds floats of unknown range")
    if upright.has_transparency_data:
        with_alpha = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", upright.size, "white"), with_alpha).convert("RGB")
    return upright.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey to 8 bits; Pillow's own conversion would cut everything above 255 to white."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("its values leave the 16-bit range")
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))
