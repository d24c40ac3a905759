import numpy as np
import pytest

from helios.bench.frames import official
from helios.bench.frames.lossless import ChunkSource, array_source
from helios.bench.frames.opening import open_source, source_class
from helios.bench.frames.source import ClipError
from helios.errors import InputError
from tests.bench.clips import moving, write_mp4


@pytest.fixture(scope="module")
def clip():
    return moving(20, height=64, width=96)


@pytest.fixture(scope="module")
def file(clip, tmp_path_factory):
    return write_mp4(tmp_path_factory.mktemp("clips") / "1_20_ori20.mp4", clip)


@pytest.mark.parametrize("backend", ["av", "cv2"])
def test_files_give_what_was_written(backend, clip, file):
    source = open_source(file, backend=backend)
    info = source.info
    assert (info.num_frames, info.height, info.width, info.backend) == (20, 64, 96, backend)
    assert info.fps == pytest.approx(24)
    frames = list(source.frames())
    assert [frame.index for frame in frames] == list(range(20))
    error = np.mean([np.abs(frame.native.astype(int) - true).mean() for frame, true in zip(frames, clip)])
    assert error < 6


def test_both_views_have_the_nominal_size_and_the_offline_view_is_not_enlarged(file):
    frame = next(open_source(file, backend="av").frames())
    assert frame.scaled.shape == frame.bilinear.shape == (426, 640, 3)
    assert frame.offline.shape == (64, 96, 3)
    assert frame.scaled_grey.shape == (426, 640) and frame.grey.shape == (64, 96) and frame.lab.shape == (64, 96, 3)
    assert np.abs(frame.scaled.astype(int) - frame.bilinear).mean() < 6


def test_pyav_equals_opencv_before_scaling(file):
    pairs = zip(open_source(file, backend="av").frames(), open_source(file, backend="cv2").frames())
    assert all(np.array_equal(a.native, b.native) and np.array_equal(a.bilinear, b.bilinear) for a, b in pairs)


@pytest.mark.skipif(not official.available(), reason="video-reader-rs is not installed")
def test_official_decoder_is_close_to_pyav(file):
    pairs = zip(open_source(file, backend="official").frames(), open_source(file, backend="av").frames())
    differences = [np.abs(a.scaled.astype(int) - b.scaled).mean() for a, b in pairs]
    assert len(differences) == 20 and max(differences) < 1.0


def test_chunks_of_a_model_are_read_without_a_codec(clip):
    source = ChunkSource([clip[:8], clip[8:16], clip[16:]], name="model", num_frames=18, chunk_frames=8)
    assert source.info.backend == "lossless" and source.info.chunk_frames == 8
    frames = list(source.frames())
    assert len(frames) == 18
    assert all(np.array_equal(frame.native, true) for frame, true in zip(frames, clip))


def test_a_stream_is_not_gathered(clip):
    drawn = []

    def chunks():
        for start in range(0, 1000, 5):
            drawn.append(start)
            yield clip[:5]

    frames = ChunkSource(chunks(), name="model", num_frames=1000).frames()
    for _ in range(6):
        next(frames)
    assert drawn == [0, 5]


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([], "holds no frames"),
        ([np.zeros((4, 8, 8), np.uint8)], "uint8 arrays of shape"),
        ([np.zeros((4, 8, 8, 3), np.float32)], "float32"),
        ([[1, 2]], "list"),
    ],
)
def test_bad_chunks_are_refused(chunks, words):
    with pytest.raises(ClipError, match=words):
        ChunkSource(chunks, name="model", num_frames=4)


def test_a_model_that_stops_early_or_changes_size(clip):
    with pytest.raises(ClipError, match="only 20 of 33 frames"):
        list(ChunkSource([clip], name="model", num_frames=33).frames())
    with pytest.raises(ClipError, match="frame 20 is 32x96 but the clip began at 64x96"):
        list(ChunkSource([clip, clip[:, :32]], name="model", num_frames=33).frames())


def test_a_whole_array(clip):
    assert len(list(array_source(clip).frames())) == 20


@pytest.mark.parametrize("backend", ["av", "cv2"])
def test_unreadable_files_are_named(backend, tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("this is no video" * 100)
    for name in ("absent.mp4", "empty.mp4", "text.mp4"):
        with pytest.raises(ClipError, match=name):
            open_source(tmp_path / name, backend=backend)


@pytest.mark.parametrize("backend", ["av", "cv2"])
def test_a_truncated_file_is_refused_whole(backend, tmp_path, clip):
    whole = write_mp4(tmp_path / "whole.mp4", clip, options={"movflags": "faststart"}).read_bytes()
    path = tmp_path / "half.mp4"
    path.write_bytes(whole[: len(whole) * 6 // 10])
    with pytest.raises(ClipError, match=r"half\.mp4"):
        list(open_source(path, backend=backend).frames())


def test_damaged_frames_are_noticed(tmp_path, clip):
    path = write_mp4(tmp_path / "damaged.mp4", clip, options={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 200
    rng = np.random.default_rng(0)
    data[start : len(data) - 100] = rng.integers(0, 256, len(data) - 100 - start, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    with pytest.raises(ClipError, match=r"damaged\.mp4"):
        list(open_source(path, backend="av").frames())


def test_the_back_end_must_be_known_and_there(monkeypatch):
    with pytest.raises(InputError, match="'ffmpeg' is unknown"):
        source_class("ffmpeg")
    monkeypatch.setitem(__import__("sys").modules, "video_reader", None)
    assert not official.available()
    assert source_class("auto").__name__ == "PyAVSource"
    with pytest.raises(InputError, match=r"pip install video-reader-rs==0\.4\.1"):
        source_class("official")
