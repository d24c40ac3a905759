"""Small folders of captioned videos for tests."""

from fractions import Fraction
from pathlib import Path

import numpy as np

from tests.media.clips import moving_pattern, write_clip

FPS = 24
HEIGHT, WIDTH = 64, 64


def write_video(path: Path, frames: int, *, height: int = HEIGHT, width: int = WIDTH, fps: int = FPS, phase: int = 0):
    """A video of smooth moving colours at an even rate."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.roll(moving_pattern(frames, height, width), 7 * phase, axis=2)
    write_clip(path, pixels, range(frames), time_base=Fraction(1, fps))
    return path


def write_folder(folder: Path, lengths: dict[str, int], **kwargs) -> Path:
    """One video per name, of that many frames, with a sidecar caption."""
    for phase, (name, frames) in enumerate(lengths.items()):
        path = write_video(folder / name, frames, phase=phase, **kwargs)
        path.with_suffix(".txt").write_text(f"colours number {phase} move\n")
    return folder
