"""Our MP4 in a real browser: headless Chromium, where one is installed, plays files and live fragments."""

import json
import queue
import re
import shutil
import subprocess
from fractions import Fraction
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from helios.media import open_writer
from helios.media.containers.base import VideoShape
from helios.media.containers.mp4 import FragmentEncoder
from tests.media.clips import moving_pattern

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; `apt-get install chromium` adds one")

FPS, HEIGHT, WIDTH, CHUNK, CHUNKS = 24, 96, 160, 33, 3
FRAMES = CHUNK * CHUNKS

PAGE = """
<script>
const video = () => Object.assign(document.body.appendChild(document.createElement("video")), {muted: true});
const seen = v => ({duration: v.duration, width: v.videoWidth, height: v.videoHeight, at: v.currentTime});
const ended = v => new Promise((done, fail) => {
  v.onended = done; v.onerror = () => fail(v.error.message); v.playbackRate = 4; v.play().catch(fail);
});
async function playFile(url) {
  const v = video(); v.src = url; await ended(v); return seen(v);
}
async function playStream(url) {
  const v = video(), source = new MediaSource(), ends = [];
  v.src = URL.createObjectURL(source);
  await new Promise(done => source.onsourceopen = done);
  const {codec, parts} = await (await fetch(url)).json();
  const buffer = source.addSourceBuffer(`video/mp4; codecs="${codec}"`);
  for (const name of parts) {
    const bytes = await (await fetch(name)).arrayBuffer();
    await new Promise(done => { buffer.onupdateend = done; buffer.appendBuffer(bytes); });
    ends.push(buffer.buffered.length ? buffer.buffered.end(0) : 0);
  }
  const ranges = buffer.buffered.length;
  source.endOfStream(); await ended(v); return {...seen(v), ends, ranges};
}
async function countFrames(url, type) {
  const decoder = new ImageDecoder({data: await (await fetch(url)).arrayBuffer(), type});
  await decoder.tracks.ready; await decoder.completed;
  const last = decoder.tracks.selectedTrack.frameCount - 1, {image} = await decoder.decode({frameIndex: last});
  return {frames: last + 1, width: image.codedWidth, height: image.codedHeight, ends: image.timestamp + image.duration};
}
onload = async () => {
  const jobs = {
    whole: () => playFile("whole.mp4"), streamed: () => playFile("unranged/whole.mp4"),
    interrupted: () => playFile("interrupted.mp4"), live: () => playStream("live.json"),
    gif: () => countFrames("a.gif", "image/gif"), webp: () => countFrames("a.webp", "image/webp")};
  const report = {};
  await Promise.all(Object.entries(jobs).map(async ([name, job]) => {
    report[name] = await job().catch(e => ({error: String(e)}));
  }));
  fetch("report", {method: "POST", body: JSON.stringify(report)});
};
</script><body></body>"""


class Site(BaseHTTPRequestHandler):
    """Serves pages from memory, with byte ranges except under ``unranged/``, and takes the page's report."""

    def __init__(self, pages, reports, *args):
        self.pages, self.reports = pages, reports
        super().__init__(*args)

    def do_GET(self):
        name = self.path.lstrip("/")
        body = self.pages.get(name.removeprefix("unranged/"))
        if body is None:
            return self.send_error(404)
        ranged = not name.startswith("unranged/")
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if ranged else None
        first = int(asked[1]) if asked else 0
        last = int(asked[2]) if asked and asked[2] else len(body) - 1
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(body)}")
        if ranged:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Type", "video/mp4" if name.endswith(".mp4") else "text/html")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(body[first : last + 1])

    def do_POST(self):
        self.reports.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        """Keep test output quiet."""


def visit(pages, profile):
    """Open ``index.html`` of ``pages`` in Chromium and return what it reports."""
    reports = queue.Queue()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, pages, reports))
    Thread(target=server.serve_forever, daemon=True).start()
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--mute-audio"]
    flags += ["--autoplay-policy=no-user-gesture-required", f"--user-data-dir={profile}", "--disable-dev-shm-usage"]
    browser = subprocess.Popen(
        [CHROMIUM, *flags, f"http://127.0.0.1:{server.server_port}/index.html"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return reports.get(timeout=120)
    finally:
        browser.terminate()
        browser.wait(timeout=30)
        server.shutdown()
        server.server_close()


def write(path, frames, chunks=CHUNKS):
    """Write ``chunks`` of ``frames``; with fewer than all, as a run that is interrupted."""
    sizes = {"fps": FPS, "height": HEIGHT, "width": WIDTH, "num_frames": FRAMES}
    with open_writer(path, **sizes, record={"seed": 1}) as writer:
        for index in range(chunks):
            writer.write(frames[index * CHUNK : (index + 1) * CHUNK])
        if chunks < CHUNKS:
            raise KeyboardInterrupt
    return path.read_bytes()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """What Chromium saw of our files: one visit for all tests."""
    folder, frames = tmp_path_factory.mktemp("site"), moving_pattern(FRAMES, HEIGHT, WIDTH)
    with pytest.raises(KeyboardInterrupt):
        write(folder / "interrupted.mp4", frames, chunks=2)
    encoder = FragmentEncoder(VideoShape(fps=Fraction(FPS), height=HEIGHT, width=WIDTH), {})
    parts = [encoder.init_segment]
    parts += [encoder.fragment(frames[start : start + CHUNK]) for start in range(0, FRAMES, CHUNK)]
    named = {f"part{index}": part for index, part in enumerate(parts)}
    pages = {
        "index.html": PAGE.encode(),
        "whole.mp4": write(folder / "whole.mp4", frames),
        "interrupted.mp4": (folder / "interrupted.mp4.part").read_bytes(),
        "live.json": json.dumps({"codec": encoder.codec, "parts": list(named)}).encode(),
        "a.gif": write(folder / "a.gif", frames),
        "a.webp": write(folder / "a.webp", frames),
        **named,
    }
    return visit(pages, folder / "profile")


def test_the_video_element_plays_a_finished_file_to_its_end(report):
    played = report["whole"]
    assert "error" not in played
    assert (played["height"], played["width"]) == (HEIGHT, WIDTH)
    assert played["duration"] == pytest.approx(FRAMES / FPS, abs=0.001)
    assert played["at"] == pytest.approx(FRAMES / FPS, abs=0.05)


def test_it_plays_from_a_server_without_byte_ranges(report):
    played = report["streamed"]
    assert "error" not in played
    # The browser cannot look ahead: it learns the length as it plays, up to the start of the last frame.
    assert played["duration"] == pytest.approx(FRAMES / FPS, abs=1.1 / FPS)


def test_it_plays_what_an_interrupted_run_left(report):
    played = report["interrupted"]
    assert "error" not in played
    assert played["duration"] == pytest.approx(2 * CHUNK / FPS, abs=0.001)


def test_media_source_extensions_take_the_fragments_one_by_one(report):
    played = report["live"]
    assert "error" not in played
    assert (played["height"], played["width"]) == (HEIGHT, WIDTH)
    assert played["ranges"] == 1, "no gap between fragments"
    assert played["ends"] == pytest.approx([0, *(CHUNK * k / FPS for k in (1, 2, 3))], abs=0.001)
    assert played["at"] == pytest.approx(FRAMES / FPS, abs=0.05)


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_animations_have_every_frame_and_the_right_length(report, kind):
    seen = report[kind]
    assert "error" not in seen
    assert (seen["frames"], seen["height"], seen["width"]) == (FRAMES, HEIGHT, WIDTH)
    assert seen["ends"] == pytest.approx(1e6 * FRAMES / FPS, abs=1e4)
