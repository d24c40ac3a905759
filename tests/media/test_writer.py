"""Writing: what goes in comes out, chunk by chunk, and whatever happens the finished chunks are there."""

import errno
import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from helios.errors import GenerationError, InputError
from helios.media import open_writer, probe, read_video
from helios.media.part_file import PartFile
from tests.media.clips import moving_pattern, psnr

FILES = ["a.mp4", "a.gif", "a.webp", "a.npy"]
EVERYTHING = [*FILES, "frames/"]
CHUNK = 5
FLOOR = {".mp4": 38, ".gif": 26, ".webp": 34, ".npy": float("inf"), "": float("inf")}
FRAMES = moving_pattern(3 * CHUNK, 48, 64)


def opened(path, *, num_frames=3 * CHUNK, fps=24, height=48, width=64, record=None, **more):
    return open_writer(path, fps=fps, height=height, width=width, num_frames=num_frames, record=record or {}, **more)


def chunks(count=3):
    return [FRAMES[index * CHUNK : (index + 1) * CHUNK] for index in range(count)]


def write(path, parts=None, **settings):
    with opened(path, **settings) as writer:
        for part in chunks() if parts is None else parts:
            writer.write(part)
    return writer.path


def write_larger(path):
    """A video with enough rows that x264 can share them among threads."""
    write(path, [moving_pattern(12, 192, 256)], height=192, width=256, num_frames=12)


def frames_of(path):
    """All frames of a file in any of our formats, finished or ``.part``, as [F, H, W, 3] uint8."""
    if path.is_dir():
        return np.stack([np.asarray(Image.open(file)) for file in sorted(path.glob("*.png"))])
    kind = path.name.removesuffix(".part").rpartition(".")[2]
    if kind == "npy":
        return np.load(path)
    if kind == "mp4":
        return read_video(path).frames
    with Image.open(path) as image:
        frames = []
        for index in range(image.n_frames):
            image.seek(index)
            frames.append(np.asarray(image.convert("RGB")))
        return np.stack(frames)


def interrupted(path, count, **settings):
    """Write ``count`` chunks and stop as Ctrl-C does; returns the partial file."""
    with pytest.raises(KeyboardInterrupt), opened(path, **settings) as writer:
        for part in chunks(count):
            writer.write(part)
        raise KeyboardInterrupt
    return writer.part_path


def in_a_process(code):
    """Run Python code, with this file importable, in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2])


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="uses limits and signals as Linux has them")


class TestContent:
    @pytest.mark.parametrize("name", EVERYTHING)
    def test_frames_come_back(self, tmp_path, name):
        path = write(f"{tmp_path}/{name}")
        back = frames_of(path)
        assert back.shape == FRAMES.shape and back.dtype == np.uint8
        assert psnr(back, FRAMES) >= FLOOR[path.suffix]

    @pytest.mark.parametrize("name", EVERYTHING)
    def test_nothing_else_is_left(self, tmp_path, name):
        path = write(f"{tmp_path}/{name}")
        assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([path.name, path.name + ".json"])

    @pytest.mark.parametrize("name", EVERYTHING)
    def test_chunks_may_have_any_length(self, tmp_path, name):
        path = write(f"{tmp_path}/{name}", [FRAMES[:1], FRAMES[1:9], FRAMES[9:]])
        assert psnr(frames_of(path), FRAMES) >= FLOOR[path.suffix]

    @pytest.mark.parametrize("fps", [8, 16, 24, 24000 / 1001, 29.97, 12.5, 60])
    def test_mp4_states_its_rate_and_length(self, tmp_path, fps):
        info = probe(write(tmp_path / "a.mp4", fps=fps))
        assert info.fps == pytest.approx(fps, rel=1e-6)
        assert info.num_frames == len(FRAMES)
        assert info.duration_s == pytest.approx(len(FRAMES) / fps, rel=1e-4)
        assert info.codec == "h264"

    def test_mp4_has_one_keyframe_and_one_fragment_per_chunk(self, tmp_path):
        path = write(tmp_path / "a.mp4", [FRAMES[:4], FRAMES[4:7], FRAMES[7:]])
        assert probe(path).keyframes == (0, 4, 7)
        assert path.read_bytes().count(b"moof") == 3

    def test_mp4_times_are_even_across_chunks(self, tmp_path):
        import av

        with av.open(str(write(tmp_path / "a.mp4"))) as container:
            times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
        assert times == pytest.approx([index / 24 for index in range(len(FRAMES))], abs=1e-6)

    def test_mp4_is_what_browsers_take(self, tmp_path):
        import av

        with av.open(str(write(tmp_path / "a.mp4"))) as container:
            context = container.streams.video[0].codec_context
            assert (context.pix_fmt, context.colorspace, context.color_range) == ("yuv420p", 1, 1)

    @pytest.mark.parametrize(("height", "width"), [(47, 63), (48, 63), (47, 64)])
    def test_mp4_of_odd_sizes_gains_a_repeated_edge(self, tmp_path, height, width):
        odd = FRAMES[:CHUNK, :height, :width]
        back = frames_of(write(tmp_path / "a.mp4", [odd], height=height, width=width, num_frames=CHUNK))
        assert back.shape[1:3] == (48, 64)
        assert psnr(back[:, :height, :width], odd) > 38

    @pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.npy", "frames/"])
    def test_other_formats_keep_odd_sizes(self, tmp_path, name):
        odd = FRAMES[:CHUNK, :47, :63]
        path = write(f"{tmp_path}/{name}", [odd], height=47, width=63, num_frames=CHUNK)
        assert psnr(frames_of(path), odd) >= FLOOR[path.suffix]

    @pytest.mark.parametrize("name", ["a.gif", "a.webp"])
    @pytest.mark.parametrize("fps", [8, 24, 24000 / 1001])
    def test_animations_last_as_long_as_they_should(self, tmp_path, name, fps):
        total = 0
        with Image.open(write(tmp_path / name, fps=fps)) as image:
            assert image.info["loop"] == 0, "for ever"
            for index in range(image.n_frames):
                image.seek(index)
                image.load()
                total += image.info["duration"]
        assert total == pytest.approx(1000 * len(FRAMES) / fps, abs=10 if name == "a.gif" else 1)

    def test_npy_of_floats_is_exact(self, tmp_path):
        floats = np.random.default_rng(0).random(FRAMES.shape, np.float32)
        write(tmp_path / "a.npy", [floats[:4], floats[4:]], as_float=True)
        back = np.load(tmp_path / "a.npy")
        assert back.dtype == np.float32 and np.array_equal(back, floats)

    def test_npy_of_floats_from_bytes_is_in_the_unit_range(self, tmp_path):
        write(tmp_path / "a.npy", as_float=True)
        assert np.array_equal(np.load(tmp_path / "a.npy"), FRAMES.astype(np.float32) / np.float32(255))

    @pytest.mark.parametrize("name", ["a.npy", "frames/"])
    def test_floats_are_rounded_to_bytes(self, tmp_path, name):
        path = write(f"{tmp_path}/{name}", [part / np.float32(255) + np.float32(0.001) for part in chunks()])
        assert np.array_equal(frames_of(path), FRAMES)

    def test_npy_can_be_mapped(self, tmp_path):
        write(tmp_path / "a.npy")
        assert np.array_equal(np.load(tmp_path / "a.npy", mmap_mode="r")[7], FRAMES[7])

    @pytest.mark.parametrize("name", EVERYTHING)
    def test_the_same_video_twice_is_the_same_bytes(self, tmp_path, name):
        paths = [write(f"{tmp_path}/{run}/{name}", record={"seed": 1, "prompt": "狐"}) for run in (1, 2)]
        files = [sorted(p.rglob("*")) if p.is_dir() else [p] for p in paths]
        assert [f.read_bytes() for f in files[0]] == [f.read_bytes() for f in files[1]]
        assert (
            paths[0].with_name(paths[0].name + ".json").read_bytes()
            == paths[1].with_name(paths[1].name + ".json").read_bytes()
        )

    @on_linux
    def test_mp4_bytes_do_not_depend_on_the_processors(self, tmp_path):
        """Encoding in a process that may use one core only gives the same file."""
        write_larger(tmp_path / "here.mp4")
        code = f"""
            import os; os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
            from tests.media.test_writer import write_larger; write_larger({str(tmp_path / "there.mp4")!r})
        """
        assert in_a_process(code).returncode == 0
        assert (tmp_path / "here.mp4").read_bytes() == (tmp_path / "there.mp4").read_bytes()


class TestLength:
    def test_a_live_stream_is_whole_whenever_it_ends(self, tmp_path):
        write(tmp_path / "a.mp4", chunks(2), num_frames=None)
        assert probe(tmp_path / "a.mp4").num_frames == 2 * CHUNK

    def test_too_few_frames_are_not_a_whole_video(self, tmp_path):
        with pytest.raises(GenerationError, match="frame 5 of 15") as caught:
            write(tmp_path / "a.mp4", chunks(1))
        assert "a.mp4.part" in str(caught.value)
        assert not (tmp_path / "a.mp4").exists()
        assert len(frames_of(tmp_path / "a.mp4.part")) == CHUNK

    def test_no_frames_leave_nothing(self, tmp_path):
        with pytest.raises(GenerationError):
            write(tmp_path / "a.mp4", [], num_frames=None)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "part",
        [
            np.zeros((16, 48, 64, 3), np.uint8),
            np.zeros((0, 48, 64, 3), np.uint8),
            np.zeros((1, 48, 32, 3), np.uint8),
            np.zeros((48, 64, 3), np.uint8),
            np.zeros((1, 48, 64, 3), np.int32),
        ],
        ids=["too many", "none", "wrong width", "no frame axis", "int32"],
    )
    def test_frames_that_do_not_belong_are_our_bug(self, tmp_path, part):
        with pytest.raises(ValueError):
            write(tmp_path / "a.npy", [part])

    def test_a_closed_writer_stays_closed(self, tmp_path):
        with opened(tmp_path / "a.npy") as writer:
            for part in chunks():
                writer.write(part)
        for late in (lambda: writer.write(FRAMES[:1]), writer.finish):
            with pytest.raises(ValueError, match="closed"):
                late()


class TestPlace:
    @pytest.mark.parametrize("name", EVERYTHING)
    def test_the_name_appears_only_when_the_video_is_whole(self, tmp_path, name):
        with opened(f"{tmp_path}/{name}") as writer:
            for part in chunks():
                writer.write(part)
                assert not writer.path.exists() and writer.part_path.exists()
        assert writer.path.exists() and not writer.part_path.exists()

    @pytest.mark.parametrize("name", EVERYTHING)
    def test_an_old_video_stays_until_the_new_one_is_whole(self, tmp_path, name):
        path = write(f"{tmp_path}/{name}", record={"run": 1})
        before = frames_of(path)
        with pytest.raises(InputError, match="exists"):
            opened(f"{tmp_path}/{name}")
        interrupted(f"{tmp_path}/{name}", 1, overwrite=True)
        assert np.array_equal(frames_of(path), before)
        assert json.loads(path.with_name(path.name + ".json").read_text()) == {"run": 1}
        write(f"{tmp_path}/{name}", [part[:, ::-1] for part in chunks()], record={"run": 2}, overwrite=True)
        assert psnr(frames_of(path), FRAMES[:, ::-1]) >= FLOOR[path.suffix]
        assert json.loads(path.with_name(path.name + ".json").read_text()) == {"run": 2}
        assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([path.name, path.name + ".json"])

    def test_an_unfinished_run_is_not_overwritten_unasked(self, tmp_path):
        part = interrupted(tmp_path / "a.mp4", 2)
        with pytest.raises(InputError, match="a.mp4.part"):
            opened(tmp_path / "a.mp4")
        assert len(frames_of(part)) == 2 * CHUNK

    def test_a_file_that_appears_meanwhile_is_left_alone(self, tmp_path):
        with pytest.raises(GenerationError, match="another program"), opened(tmp_path / "a.npy") as writer:
            for part in chunks():
                writer.write(part)
            (tmp_path / "a.npy").write_text("theirs")
        assert (tmp_path / "a.npy").read_text() == "theirs"
        assert np.array_equal(np.load(tmp_path / "a.npy.part"), FRAMES)

    def test_missing_folders_are_made(self, tmp_path):
        assert write(tmp_path / "x" / "y" / "a.npy").exists()

    @pytest.mark.parametrize(
        ("name", "settings"),
        [
            ("a.gif", {"fps": 60}),
            ("a.webp", {"width": 16384}),
            ("a.mp4", {"width": 16386}),
            ("a.mp4", {"fps": 0}),
            ("a.mp4", {"num_frames": 0}),
            ("a.mp4", {"height": 0}),
            ("a.mp4", {"as_float": True}),
        ],
    )
    def test_what_a_format_cannot_hold_is_refused(self, tmp_path, name, settings):
        with pytest.raises(InputError):
            opened(tmp_path / name, **settings)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", EVERYTHING)
    def test_no_room_for_the_record_leaves_nothing(self, tmp_path, name, monkeypatch):
        def full(path, text):
            path.touch()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("helios.media.writer._write_text", full)
        with pytest.raises(InputError, match="No space left"):
            opened(f"{tmp_path}/{name}")
        assert list(tmp_path.iterdir()) == []


class TestInterrupted:
    @pytest.mark.parametrize("name", EVERYTHING)
    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_finished_chunks_are_there_and_play(self, tmp_path, name, count):
        part = interrupted(f"{tmp_path}/{name}", count)
        back = frames_of(part)
        assert len(back) == count * CHUNK
        suffix = part.name.removesuffix(".part").rpartition(".")[2]
        assert psnr(back, FRAMES[: count * CHUNK]) >= FLOOR["." + suffix if suffix != "frames" else ""]

    @pytest.mark.parametrize("name", EVERYTHING)
    def test_without_a_finished_chunk_nothing_is_left(self, tmp_path, name):
        interrupted(f"{tmp_path}/{name}", 0)
        assert list(tmp_path.iterdir()) == []

    def test_it_says_what_is_kept(self, tmp_path, caplog):
        interrupted(tmp_path / "a.mp4", 2)
        assert "2 finished chunks (10 frames)" in caplog.text and "a.mp4.part" in caplog.text

    @pytest.mark.parametrize("name", FILES)
    def test_dying_at_any_byte_of_a_chunk_leaves_the_chunks_before(self, tmp_path, name, monkeypatch):
        """Cut the third chunk's write off after every so many bytes, without any clean-up."""
        pieces, real_append = [], PartFile.append

        def append(part, piece):
            pieces.append((part.path.read_bytes(), piece))
            real_append(part, piece)

        monkeypatch.setattr(PartFile, "append", append)
        write(tmp_path / name)
        before, piece = pieces[-1]
        data = bytes(memoryview(piece.data).cast("B"))
        torn = tmp_path / f"torn-{name}.part"
        for length in sorted({0, 1, 7, 8, 9, 30, len(data) // 3, len(data) - 1, len(data)}):
            torn.write_bytes(before[: piece.offset] + data[:length] + before[piece.offset + length :])
            assert len(frames_of(torn)) == 2 * CHUNK, f"{length} of {len(data)} bytes"
        offset, commit = piece.commit
        whole = bytearray(before[: piece.offset] + data)
        whole[offset : offset + len(commit)] = commit
        torn.write_bytes(whole)
        assert len(frames_of(torn)) == 3 * CHUNK

    @on_linux
    @pytest.mark.parametrize("name", EVERYTHING)
    def test_a_killed_process_leaves_the_finished_chunks(self, tmp_path, name):
        code = f"""
            import os, signal
            from tests.media.test_writer import chunks, opened
            with opened({f"{tmp_path}/{name}"!r}) as writer:
                for part in chunks(2):
                    writer.write(part)
                os.kill(os.getpid(), signal.SIGKILL)
        """
        killed = in_a_process(code)
        assert killed.returncode == -signal.SIGKILL
        assert len(frames_of(tmp_path / (name.rstrip("/") + ".part"))) == 2 * CHUNK

    def test_a_failure_of_ours_keeps_its_own_error(self, tmp_path):
        with pytest.raises(ZeroDivisionError), opened(tmp_path / "a.mp4") as writer:
            writer.write(chunks()[0])
            raise ZeroDivisionError
        assert len(frames_of(tmp_path / "a.mp4.part")) == CHUNK


class FullDisk:
    """Stands for a file on a disk that holds ``room`` bytes: writes what fits, then fails as the system does."""

    def __init__(self, file, room):
        self._file, self._room = file, room

    def write(self, data):
        space = self._room - self._file.tell()
        if space <= 0 < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(data[: max(space, 0)] if len(data) > space else data)

    def __getattr__(self, name):
        return getattr(self._file, name)


class TestFullDisk:
    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("spare", [0, 1, 500])
    def test_finished_chunks_are_kept_and_play(self, tmp_path, name, spare):
        with pytest.raises(GenerationError) as caught, opened(tmp_path / name) as writer:
            for part in chunks(2):
                writer.write(part)
            store = writer._store._part
            finished = store.size
            store._file = FullDisk(store._file, finished + spare)
            writer.write(chunks()[2])
        message = str(caught.value)
        assert "No space left" in message and "2 finished chunks (10 frames)" in message and f"{name}.part" in message
        assert len(frames_of(tmp_path / f"{name}.part")) == 2 * CHUNK
        assert (tmp_path / f"{name}.part").stat().st_size == finished, "what did not fit takes no room"
        assert not (tmp_path / name).exists()

    def test_the_first_chunk_already_does_not_fit(self, tmp_path):
        with pytest.raises(GenerationError, match="nothing is kept"), opened(tmp_path / "a.mp4") as writer:
            writer._store._part._file = FullDisk(writer._store._part._file, 100)
            writer.write(chunks()[0])
        assert list(tmp_path.iterdir()) == []

    def test_frames_of_a_folder_are_taken_back_to_the_last_chunk(self, tmp_path, monkeypatch):
        from helios.media import stores

        real, calls = stores._write_png, []

        def write_png(path, frame):
            calls.append(path)
            if len(calls) == CHUNK + 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(path, frame)

        monkeypatch.setattr(stores, "_write_png", write_png)
        with pytest.raises(GenerationError, match="No space left"):
            write(f"{tmp_path}/frames/")
        assert len(list((tmp_path / "frames.part").iterdir())) == CHUNK

    @on_linux
    @pytest.mark.parametrize("name", FILES)
    def test_a_limit_of_the_system_is_met_the_same_way(self, tmp_path, name):
        """A real failing write: the process may not make files above what the first chunk and a bit need."""
        write(tmp_path / f"first-{name}", chunks(1), num_frames=CHUNK)
        limit = (tmp_path / f"first-{name}").stat().st_size + 200
        code = f"""
            import resource, sys
            from helios.errors import GenerationError
            from tests.media.test_writer import chunks, opened
            resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
            try:
                with opened({str(tmp_path / name)!r}) as writer:
                    for part in chunks():
                        writer.write(part)
            except GenerationError as error:
                sys.exit(str(error))
        """
        ran = in_a_process(code)
        assert ran.returncode == 1
        assert "File too large" in ran.stderr and "1 finished chunk (5 frames)" in ran.stderr
        assert len(frames_of(tmp_path / f"{name}.part")) == CHUNK

    def test_there_is_no_room_to_change_the_record(self, tmp_path, monkeypatch):
        def full(*arguments):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("helios.media.part_file.shutil.copyfileobj", full)
        with pytest.raises(GenerationError, match="No space left"), opened(tmp_path / "a.mp4") as writer:
            for part in chunks():
                writer.write(part)
            writer.record["more"] = "words"
        assert len(frames_of(tmp_path / "a.mp4.part")) == 3 * CHUNK
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.mp4.json.part", "a.mp4.part"]

    def test_a_disk_that_fills_up_at_the_very_end(self, tmp_path, monkeypatch):
        def full(descriptor):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(GenerationError, match="No space left"):
            write(tmp_path / "a.mp4")
        assert len(frames_of(tmp_path / "a.mp4.part")) == 3 * CHUNK


class TestMemory:
    @staticmethod
    def levels_while_writing(path, frames):
        """(traced by Python, resident in the process) bytes after 40 and after 200 chunks."""
        levels, process = [], psutil.Process()
        height, width = frames.shape[1:3]
        with opened(path, num_frames=None, height=height, width=width) as writer:
            for index in range(200):
                writer.write(frames)
                if index in (39, 199):
                    gc.collect()
                    levels.append((tracemalloc.get_traced_memory()[0], process.memory_info().rss))
        assert len(frames_of(writer.path)) == 200
        return levels

    @pytest.mark.parametrize("name", EVERYTHING)
    def test_nothing_is_held_back_in_python(self, tmp_path, name):
        tracemalloc.start()
        try:
            (before, _), (after, _) = self.levels_while_writing(f"{tmp_path}/{name}", FRAMES[:1, :24, :32])
        finally:
            tracemalloc.stop()
        assert after - before < 40 << 10, "160 frames take 370 kB, or 60 kB and more compressed"

    def test_nothing_is_held_back_in_the_encoder(self, tmp_path):
        levels = self.levels_while_writing(tmp_path / "a.mp4", moving_pattern(1, 256, 384))
        assert levels[1][1] - levels[0][1] < 10 << 20, "160 frames take 23 MB as yuv420p"
