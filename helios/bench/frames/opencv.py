"""Back end ``cv2``: OpenCV decodes; its bilinear resize stands in for the official scaler (0.6 to 0.8 % off there)."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from helios.bench.frames.sizes import NominalSize
from helios.bench.frames.source import CHUNK_FRAMES, ClipError, ClipInfo, Frame, Pixels, checked, same_size
from helios.bench.vision import opencv


class OpenCVSource:
    """A video file, decoded by OpenCV's ``VideoCapture``; OpenCV does not tell damaged frames from good ones."""

    def __init__(self, path: Path, *, size: NominalSize, chunk_frames: int = CHUNK_FRAMES):
        self._path = path
        self._size = size
        self.info = probe(path, backend="cv2", chunk_frames=chunk_frames)

    def frames(self) -> Iterator[Frame]:
        """The frames in display order."""
        pictures = captured(self._path, self.info)
        return checked(
            self.info, (Frame(i, size=self._size, native=partial(to_rgb, f)) for i, f in enumerate(pictures))
        )


def probe(path: Path, *, backend: str, chunk_frames: int) -> ClipInfo:
    """What OpenCV says about a file. Raises: ClipError when it cannot open it."""
    cv2 = opencv()
    capture = cv2.VideoCapture(str(path))
    try:
        sides = [int(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)]
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if not capture.isOpened() or count <= 0 or min(sides) < 2:
            raise ClipError(f"{path.name}: not a readable video; make it anew")
        fps = float(capture.get(cv2.CAP_PROP_FPS))
    finally:
        capture.release()
    return ClipInfo(
        name=path.name,
        num_frames=count,
        fps=fps,
        height=sides[0],
        width=sides[1],
        backend=backend,
        chunk_frames=chunk_frames,
    )


def captured(path: Path, info: ClipInfo) -> Iterator[Pixels]:
    """BGR frames of a file until OpenCV finds no more."""
    capture = opencv().VideoCapture(str(path))
    try:
        index = 0
        while True:
            found, picture = capture.read()
            if not found:
                return
            same_size(info, index, *picture.shape[:2])
            index += 1
            yield picture
    finally:
        capture.release()


def to_rgb(picture: Pixels) -> Pixels:
    """RGB from OpenCV's BGR."""
    return opencv().cvtColor(picture, opencv().COLOR_BGR2RGB)
