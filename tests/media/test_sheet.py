"""Contact sheets hold every frame where it belongs."""

import numpy as np
import pytest
from PIL import Image

from helios.errors import InputError
from helios.media import contact_sheet

FRAMES = np.stack([np.full((10, 16, 3), 40 * (i + 1), np.uint8) for i in range(5)])


@pytest.mark.parametrize("columns", [1, 2, 3, 9])
def test_every_frame_is_there_once_in_reading_order(tmp_path, columns):
    sheet = np.asarray(Image.open(contact_sheet(FRAMES, columns, tmp_path / "a" / "sheet.png")))
    found = []
    for row in sheet[..., 0]:
        for value in row:
            if value % 40 == 0 and value not in found:
                found.append(value)
    assert found == [40, 80, 120, 160, 200]
    assert all((sheet == value).all(-1).sum() == 160 for value in found)


def test_labels_are_drawn_below_and_change_nothing_else(tmp_path):
    plain = np.asarray(Image.open(contact_sheet(FRAMES, 5, tmp_path / "a.png")))
    labelled = np.asarray(Image.open(contact_sheet(FRAMES, 5, tmp_path / "b.png", labels=list("abcde"))))
    assert labelled.shape[0] > plain.shape[0] and labelled.shape[1] == plain.shape[1]
    assert np.array_equal(labelled[: plain.shape[0] - 4], plain[:-4])
    assert labelled[plain.shape[0] - 4 :].max() > 200


def test_the_same_sheet_twice_is_the_same_bytes(tmp_path):
    one, two = (contact_sheet(FRAMES, 2, tmp_path / name, labels=list("abcde")) for name in ("1.png", "2.png"))
    assert one.read_bytes() == two.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.png", "2.png"]


@pytest.mark.parametrize(
    ("frames", "columns", "labels"),
    [(FRAMES[:0], 2, None), (FRAMES, 0, None), (FRAMES, 2, ["one"]), (FRAMES[0], 2, None), (FRAMES / 255, 2, None)],
)
def test_nonsense_is_refused(tmp_path, frames, columns, labels):
    with pytest.raises(InputError):
        contact_sheet(frames, columns, tmp_path / "a.png", labels=labels)


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="sheet.png"):
        contact_sheet(FRAMES, 2, tmp_path / "file" / "sheet.png")
