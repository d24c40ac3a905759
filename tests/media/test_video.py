"""Reading videos: the right frames at the right times, little memory, and a sentence for what is broken."""

import struct
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest

from helios.errors import InputError
from helios.media import Crop, FirstFrames, LastFrames, fit, probe, read_video, read_video_ends, stream_frames
from tests.media.clips import frame_with_id, moving_pattern, psnr, read_id, write_clip


def ids(frames):
    return [read_id(frame) for frame in frames]


@pytest.fixture(scope="module")
def steady(tmp_path_factory):
    """60 numbered frames at 24 fps."""
    path = tmp_path_factory.mktemp("video") / "steady.mp4"
    return write_clip(path, [frame_with_id(i) for i in range(60)], range(60), time_base=Fraction(1, 24))


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """20 numbered frames at uneven times, and those times in milliseconds."""
    path = tmp_path_factory.mktemp("video") / "uneven.mp4"
    times = np.cumsum([0, 40, 40, 200, 10, 10, 10, 400, 33, 33, 34, 100, 15, 15, 250, 40, 40, 40, 80, 40]).tolist()
    return write_clip(path, [frame_with_id(i) for i in range(20)], times), times


def test_the_own_rate_gives_every_frame_once(steady):
    for fps in (None, 24):
        clip = read_video(steady, fps=fps)
        assert clip.fps == 24 and clip.frames.dtype == np.uint8
        assert ids(clip.frames) == list(range(60))


@pytest.mark.parametrize(
    ("fps", "wanted"),
    [
        (12, list(range(0, 60, 2))),
        (48, [index for index in range(60) for _ in range(2)]),
        (16, [round(index * 1.5 - 0.01) for index in range(40)]),
    ],
)
def test_other_rates_pick_the_frame_nearest_in_time(steady, fps, wanted):
    got = ids(read_video(steady, fps=fps).frames)
    assert len(got) == len(wanted)
    assert max(abs(a - b) for a, b in zip(got, wanted)) <= (1 if fps == 48 else 0)


def test_variable_rates_follow_the_clock(uneven):
    path, times = uneven
    got = ids(stream_frames(path, fps=50))
    nearest = [min(range(20), key=lambda i: abs(times[i] - 20 * k)) for k in range(len(got))]
    assert got == nearest
    assert 20 * (len(got) - 1) <= times[-1] + 80
    assert ids(stream_frames(path)) == list(range(20)), "without a wanted rate every frame comes once"


def test_the_mean_rate_of_a_variable_file(uneven):
    path, times = uneven
    assert probe(path).fps == pytest.approx(19 / (times[-1] / 1000), rel=0.01)


@pytest.mark.parametrize("container", ["matroska", "mp4", "mov", "avi", "mpegts"])
def test_containers_agree(tmp_path, container):
    path = tmp_path / f"clip.{container}"
    write_clip(path, [frame_with_id(i) for i in range(24)], range(24), time_base=Fraction(1, 24), container=container)
    assert ids(read_video(path, fps=24).frames) == list(range(24))
    info = probe(path)
    assert (info.num_frames, info.height, info.width) == (24, 32, 64)
    assert info.fps == pytest.approx(24, rel=1e-3)


def test_frames_from_the_start_and_from_the_end(steady):
    assert ids(read_video(steady, fps=24, keep=FirstFrames(5)).frames) == [0, 1, 2, 3, 4]
    assert ids(read_video(steady, fps=12, keep=LastFrames(3)).frames) == [54, 56, 58]
    assert len(read_video(steady, fps=24, keep=LastFrames(500)).frames) == 60


def test_the_ends_in_one_pass(steady):
    ends = read_video_ends(steady, fps=24, last=7)
    assert read_id(ends.first_HWC) == 0
    assert ids(ends.last_FHWC) == list(range(53, 60))
    assert (ends.total_frames, ends.fps) == (60, 24.0)


def test_reading_the_end_holds_only_the_end(tmp_path):
    still = np.zeros((256, 256, 3), np.uint8)
    path = write_clip(tmp_path / "long.mp4", [still] * 300, range(300), time_base=Fraction(1, 24))
    tracemalloc.start()
    try:
        read_video_ends(path, fps=24, last=5)
        assert tracemalloc.get_traced_memory()[1] < 25 * still.nbytes, "all 300 would be 12 times that"
    finally:
        tracemalloc.stop()


def test_frames_are_fitted_as_they_come(steady):
    small = read_video(steady, fps=24, keep=FirstFrames(3), size=(16, 16)).frames
    assert np.array_equal(small, fit(read_video(steady, fps=24, keep=FirstFrames(3)).frames, 16, 16, Crop()))


def test_a_one_frame_video_is_one_frame(tmp_path):
    path = write_clip(tmp_path / "one.mp4", [frame_with_id(9)], [0], time_base=Fraction(1, 24))
    assert ids(read_video(path, fps=24).frames) == [9]
    assert probe(path).num_frames == 1


def with_display_matrix(source, target, signs):
    """Copy an MP4 with the turn (a, b, c, d) written into its track header (ISO/IEC 14496-12, 8.3.2)."""
    data = bytearray(source.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = signs
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    target.write_bytes(data)
    return target


TURNS = [
    (1, 0, 0, 1),
    (0, 1, -1, 0),
    (-1, 0, 0, -1),
    (0, -1, 1, 0),
    (-1, 0, 0, 1),
    (1, 0, 0, -1),
    (0, 1, 1, 0),
    (0, -1, -1, 0),
]


@pytest.mark.parametrize("signs", TURNS)
def test_the_turn_that_a_file_asks_for_is_made(tmp_path, signs):
    """The format says: a stored point (x, y) is shown at (a x + c y, b x + d y)."""
    stored = np.zeros((48, 80, 3), np.uint8)
    stored[:16, :16], stored[-16:, :16], stored[:16, -16:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    plain = write_clip(tmp_path / "plain.mp4", [stored] * 2, range(2), time_base=Fraction(1, 24))
    shown = read_video(with_display_matrix(plain, tmp_path / "turned.mp4", signs)).frames[0]
    a, b, c, d = signs
    assert shown.shape[:2] == ((80, 48) if b else (48, 80))
    for x, y, colour in ((8, 8, 0), (8, 40, 1), (72, 8, 2)):
        column, row = a * x + c * y, b * x + d * y
        pixel = shown[row if row > 0 else row - 1, column if column > 0 else column - 1]
        assert pixel.argmax() == colour and pixel.max() > 200


def test_a_phone_s_quarter_turn_is_what_ffmpeg_says_it_is(tmp_path):
    """The matrix of the test above, held against the library's own reading of it."""
    plain = write_clip(tmp_path / "plain.mp4", [frame_with_id(1)] * 2, range(2), time_base=Fraction(1, 24))
    with av.open(str(with_display_matrix(plain, tmp_path / "turned.mp4", (0, 1, -1, 0)))) as container:
        assert next(container.decode(video=0)).rotation == -90, "clockwise"


@pytest.mark.parametrize(("aspect", "size"), [(Fraction(4, 3), (48, 107)), (Fraction(1, 2), (96, 80))])
def test_pixels_that_are_not_square_are_made_square(tmp_path, aspect, size):
    frames = [moving_pattern(1, 48, 80)[0]] * 2
    path = write_clip(tmp_path / "a.mp4", frames, range(2), time_base=Fraction(1, 24), sample_aspect_ratio=aspect)
    assert read_video(path).frames.shape[1:3] == size
    assert (probe(path).height, probe(path).width) == size


@pytest.mark.parametrize("matrix", [1, 6], ids=["BT.709", "BT.601"])
def test_colours_are_read_by_the_matrix_the_file_names(tmp_path, matrix):
    colour = np.full((32, 32, 3), (200, 40, 30), np.uint8)
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=24, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt, stream.codec_context.colorspace = 32, 32, "yuv420p", matrix
        frame = av.VideoFrame.from_ndarray(colour, format="rgb24")
        standard = "ITU709" if matrix == 1 else "ITU601"
        output.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=standard)))
        output.mux(stream.encode(None))
    assert np.abs(read_video(path).frames[0].astype(int) - (200, 40, 30)).max() <= 3


def test_memory_while_streaming_does_not_depend_on_length(steady):
    frames = stream_frames(steady, fps=24)
    next(frames)
    tracemalloc.start()
    try:
        for _ in frames:
            pass
        assert tracemalloc.get_traced_memory()[1] < 20 * 32 * 64 * 3
    finally:
        tracemalloc.stop()


class TestBrokenFiles:
    """Each ends in one sentence that names the file."""

    @staticmethod
    def refused(path):
        with pytest.raises(InputError, match=path.name) as caught:
            read_video(path, fps=24)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_missing(self, tmp_path):
        assert "no video at" in self.refused(tmp_path / "none.mp4")

    def test_folder(self, tmp_path):
        assert "folder" in self.refused(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"some text\n" * 100, bytes(range(256)) * 50])
    @pytest.mark.parametrize("name", ["a.mp4", "a.txt", "a.bin"])
    def test_not_a_video(self, tmp_path, content, name):
        (tmp_path / name).write_bytes(content)
        self.refused(tmp_path / name)

    def test_sound_only(self, tmp_path):
        path = tmp_path / "sound.mp4"
        with av.open(str(path), "w") as output:
            stream = output.add_stream("aac", rate=44100)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate = 44100
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        assert "no video stream" in self.refused(path)

    @pytest.mark.parametrize("share", [0.8, 0.5, 0.2, 0.02])
    @pytest.mark.parametrize("kind", ["index last", "index first", "fragments", "Matroska"])
    def test_cut_off(self, tmp_path, kind, share):
        flags = {"index first": "faststart", "fragments": "frag_keyframe+empty_moov"}.get(kind, "")
        path, frames = tmp_path / ("a.mkv" if kind == "Matroska" else "a.mp4"), moving_pattern(48, 64, 96)
        with av.open(str(path), "w", options={"movflags": flags} if flags else {}) as output:
            stream = output.add_stream("libx264", rate=24)
            stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
            for pixels in frames:
                output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            output.mux(stream.encode(None))
        assert len(read_video(path).frames) == 48
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        self.refused(path)

    def test_damaged_in_the_middle(self, tmp_path):
        path = write_clip(tmp_path / "a.mp4", moving_pattern(48, 64, 96), range(48), time_base=Fraction(1, 24))
        data = bytearray(path.read_bytes())
        middle = data.index(b"mdat") + 4000
        data[middle : middle + 2000] = b"\xff" * 2000
        path.write_bytes(data)
        self.refused(path)

    def test_damage_that_the_decoder_paints_over(self, tmp_path):
        """Flip bits until the decoder reports no error but marks a frame as patched up: that is refused too."""
        path = write_clip(tmp_path / "a.mp4", moving_pattern(24, 64, 96), range(24), time_base=Fraction(1, 24))
        whole, patched_up = path.read_bytes(), 0
        for position in range(whole.index(b"mdat") + 1500, len(whole) - 3000, 97):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
            if self.frames_marked(path) > 0:
                patched_up += 1
                self.refused(path)
            if patched_up == 3:
                return
        raise AssertionError("no damage was painted over: the test needs other bits")

    @staticmethod
    def frames_marked(path):
        try:
            with av.open(str(path)) as container:
                return sum(frame.is_corrupt for frame in container.decode(video=0))
        except av.FFmpegError:
            return 0

    def test_a_playlist_does_not_open_other_files(self, tmp_path, steady):
        (tmp_path / "list.m3u8").write_text(
            f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2.5,\n{steady}\n#EXT-X-ENDLIST\n"
        )
        self.refused(tmp_path / "list.m3u8")
        (tmp_path / "list.ffconcat").write_text(f"ffconcat version 1.0\nfile '{steady}'\n")
        self.refused(tmp_path / "list.ffconcat")

    def test_probe_refuses_the_same(self, tmp_path):
        (tmp_path / "a.mp4").write_bytes(b"nothing")
        with pytest.raises(InputError, match="a.mp4"):
            probe(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    "make", [lambda: LastFrames(0), lambda: FirstFrames(-1), lambda: read_video_ends("x", fps=24, last=0)]
)
def test_no_frames_wanted_is_refused(make):
    with pytest.raises(InputError, match="1 or more"):
        make()


def test_quality_survives_reading(tmp_path):
    frames = moving_pattern(10, 64, 96)
    path = write_clip(tmp_path / "a.mp4", frames, range(10), time_base=Fraction(1, 24))
    assert psnr(read_video(path).frames, frames) > 33
