"""A contact sheet: many frames in one picture.

Letters: F frames, H W height and width in pixels.
"""

import os
from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from helios.errors import InputError

_GAP = 4
_BACKGROUND = (24, 24, 24)
_INK = (255, 255, 255)


def contact_sheet(
    frames: np.ndarray | Sequence[np.ndarray], columns: int, path: str | Path, labels: Sequence[str] | None = None
) -> Path:
    """Lay frames out row by row and write them as one PNG.

    Args:
        frames: uint8 [F, H, W, 3], F >= 1.
        columns: frames per row.
        path: the PNG; replaced if it is there. Missing parent folders are made.
        labels: a short text under each frame.
    Returns: the path.
    Raises: InputError for no frames, no columns, another number of labels than frames, or a place that cannot be
        written to.
    """
    frames_FHWC = np.asarray(frames)
    path = Path(path)
    if frames_FHWC.ndim != 4 or frames_FHWC.dtype != np.uint8 or not len(frames_FHWC):
        raise InputError(f"no contact sheet of {frames_FHWC.dtype} {list(frames_FHWC.shape)}: give uint8 [F, H, W, 3]")
    if columns < 1:
        raise InputError(f"columns={columns} leaves no room: use 1 or more")
    if labels is not None and len(labels) != len(frames_FHWC):
        raise InputError(f"{len(labels)} labels do not match {len(frames_FHWC)} frames: give one for each")
    sheet = _draw(frames_FHWC, min(columns, len(frames_FHWC)), labels)
    try:
        _write(sheet, path)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror or error}): choose another place") from error
    return path


def _draw(frames_FHWC: np.ndarray, columns: int, labels: Sequence[str] | None) -> Image.Image:
    count, height, width, _ = frames_FHWC.shape
    font = ImageFont.load_default()
    caption = 0 if labels is None else 2 * _GAP + ceil(font.getbbox("Ag")[3])
    cell_height, cell_width = height + caption + _GAP, width + _GAP
    rows = -(-count // columns)
    sheet = Image.new("RGB", (columns * cell_width + _GAP, rows * cell_height + _GAP), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for index, frame_HWC in enumerate(frames_FHWC):
        left, top = _GAP + index % columns * cell_width, _GAP + index // columns * cell_height
        sheet.paste(Image.fromarray(frame_HWC), (left, top))
        if labels is not None:
            draw.text((left, top + height + _GAP), labels[index], fill=_INK, font=font)
    return sheet


def _write(sheet: Image.Image, path: Path) -> None:
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    growing = path.with_name(path.name + ".part")
    try:
        sheet.save(growing, format="PNG")
        os.replace(growing, path)
    except OSError:
        growing.unlink(missing_ok=True)
        raise
