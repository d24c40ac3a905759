import numpy as np
import pytest

from helios.training.probes.statistics import average, video_statistics


def video(chunks: int = 3, frames: int = 5, speed: float = 2.0, jump: float = 0.0, fade: float = 0.0) -> np.ndarray:
    """A ramp that moves by ``speed`` a frame, jumps at borders and changes its brightness from chunk to chunk."""
    out = []
    for f in range(chunks * frames):
        ramp = np.tile(np.arange(16) * 4.0, (16, 1)) + 40
        out.append(ramp + speed * (f % 2) + jump * (f // frames) - fade * (f // frames))
    return np.stack(out)[..., None].repeat(3, -1).clip(0, 255).astype(np.uint8)


def test_no_seam_without_a_jump_and_a_larger_one_with():
    assert video_statistics(video(), 5).seam == pytest.approx(1.0, abs=1e-6)
    assert video_statistics(video(jump=20), 5).seam > 5
    assert video_statistics(video(), 5).motion == pytest.approx(2.0)


def test_colour_drift_is_the_distance_from_the_first_chunk():
    seen = video_statistics(video(fade=10), 5)
    assert seen.colour_drift == pytest.approx(20 * 3**0.5, abs=3)
    assert video_statistics(video(frames=6), 6).colour_drift == pytest.approx(0, abs=1e-3)
    assert seen.means.shape == seen.deviations.shape == (3, 3)


def test_one_chunk_and_averages():
    one = video_statistics(video(chunks=1), 5)
    assert one.seam == 1.0 and one.contrast_drift == pytest.approx(1.0)
    assert average([one, one])["motion"] == pytest.approx(one.motion)
