"""The judge's client against a local server that plays an OpenAI-compatible endpoint."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import cv2
import numpy as np
import pytest

from helios.bench import judge as judging
from helios.bench.judge import INSTRUCTION, OPENAI_URL, Judge, JudgeConfig, naturalness, parse_rating
from helios.bench.metrics.base import Refused, Unavailable
from helios.bench.metrics.naturalness import Naturalness, judge_picture
from helios.errors import InputError
from tests.bench.clips import moving
from tests.bench.scoring import measure


class FakeJudge:
    """Answers with what is in ``replies``, in turn: a status code, a text, or raw bytes."""

    def __init__(self):
        self.replies, self.requests, self.headers = [], [], []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                fake.requests.append((self.path, json.loads(body)))
                fake.headers.append(dict(self.headers))
                reply = fake.replies.pop(0) if len(fake.replies) > 1 else fake.replies[0]
                self.send_response(reply if isinstance(reply, int) else 200)
                self.end_headers()
                if isinstance(reply, bytes):
                    self.wfile.write(reply)
                elif isinstance(reply, str):
                    self.wfile.write(json.dumps({"choices": [{"message": {"content": reply}}]}).encode())

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def server():
    fake = FakeJudge()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


def config(server, **changes) -> JudgeConfig:
    return JudgeConfig(base_url=server.url, backoff_s=0.0, timeout_s=5, **changes)


def test_one_user_message_with_the_pictures_first_and_the_text_last(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    server.replies = ["3"]
    assert Judge(config(server, model="m", api_key_env="MY_KEY")).rate([b"one", b"two"], announced=2) == "3"
    path, body = server.requests[0]
    assert path == "/v1/chat/completions"
    assert (body["model"], body["temperature"], body["stream"]) == ("m", 0, False)
    (message,) = body["messages"]
    assert message["role"] == "user"
    kinds = [part["type"] for part in message["content"]]
    assert kinds == ["image_url", "image_url", "text"]
    urls = [part["image_url"]["url"] for part in message["content"][:2]]
    assert [base64.b64decode(url.removeprefix("data:image/jpeg;base64,")) for url in urls] == [b"one", b"two"]
    assert message["content"][-1]["text"].startswith("You see 2 frames")
    assert server.headers[0]["Authorization"] == "Bearer secret"


def test_temporary_failures_are_tried_again(server):
    server.replies = [500, 429, b"not json", "4"]
    assert Judge(config(server)).rate([b"x"], announced=1) == "4"
    assert len(server.requests) == 4


def test_it_gives_up_after_the_retries(server):
    server.replies = [503]
    with pytest.raises(Refused, match="no answer after 3 attempts: HTTP 503"):
        Judge(config(server, retries=2)).rate([b"x"], announced=1)
    assert len(server.requests) == 3


def test_a_refusal_is_not_tried_again(server):
    server.replies = [401]
    with pytest.raises(Refused, match="HTTP 401"):
        Judge(config(server)).rate([b"x"], announced=1)
    assert len(server.requests) == 1


def test_nobody_listening():
    with pytest.raises(Refused, match="no answer after 1 attempts"):
        Judge(JudgeConfig(base_url="http://127.0.0.1:9", retries=0)).rate([b"x"], announced=1)


@pytest.mark.parametrize(("answer", "value"), [("3", 3), (" 4.5\n", 4.5), ("9", 5), ("-2", 1), ("1e9", 5)])
def test_parsing_clamps(answer, value):
    assert parse_rating(answer) == value


@pytest.mark.parametrize("answer", ["three", "", "nan", "4/5"])
def test_an_answer_that_is_no_number_is_refused(answer):
    with pytest.raises(Refused, match="instead of a number"):
        parse_rating(answer)


def test_the_scale():
    assert [naturalness(x) for x in (1, 2, 3, 4, 5)] == [0, 0.25, 0.5, 0.75, 1]


def test_our_wording_is_ours_and_a_matching_file_is_official(tmp_path, monkeypatch):
    assert "##NUM_FRAMES##" in INSTRUCTION
    assert not JudgeConfig().official and JudgeConfig().model == "gpt-5.2-2025-12-11"
    text = "rate ##NUM_FRAMES## frames"
    (tmp_path / "i.txt").write_text(text)
    monkeypatch.setattr(judging, "OFFICIAL_SHA256", judging.sha256(text))
    assert JudgeConfig(instruction_file=tmp_path / "i.txt").official
    other = JudgeConfig(instruction_file=tmp_path / "i.txt", model="other")
    assert other.official_instruction and not other.official
    assert other.identity != JudgeConfig().identity


def test_bad_settings(tmp_path):
    (tmp_path / "bare.txt").write_text("no placeholder")
    for path, words in (
        (tmp_path / "bare.txt", "lacks ##NUM_FRAMES##"),
        (tmp_path / "absent.txt", "not a readable text"),
    ):
        with pytest.raises(InputError, match=words):
            _ = JudgeConfig(instruction_file=path).instruction
    with pytest.raises(InputError, match="no web address"):
        JudgeConfig(base_url="localhost:8000")
    with pytest.raises(InputError, match="retries=-1"):
        JudgeConfig(retries=-1)


def test_openai_without_a_key_is_unavailable(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(Unavailable, match="set OPENAI_API_KEY"):
        Naturalness(judge=JudgeConfig(base_url=OPENAI_URL)).check()
    with pytest.raises(Unavailable, match="needs a judge"):
        Naturalness().check()


def test_pictures_are_512_on_the_long_side():
    jpeg = judge_picture(np.full((480, 832, 3), 90, np.uint8))
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (295, 512, 3)
    tall = judge_picture(np.full((832, 480, 3), 90, np.uint8))
    assert cv2.imdecode(np.frombuffer(tall, np.uint8), cv2.IMREAD_COLOR).shape == (512, 295, 3)


def test_pictures_keep_their_colours():
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 200
    bgr = cv2.imdecode(np.frombuffer(judge_picture(red), np.uint8), cv2.IMREAD_COLOR)
    assert bgr[..., 2].min() > 190 and bgr[..., :2].max() < 10


def sent(server):
    return [len(body["messages"][0]["content"]) - 1 for _, body in server.requests]


def test_sixteen_pictures_of_the_clip_and_fewer_of_short_windows(server):
    server.replies = ["4", "2", "5"]
    found = measure(moving(48), Naturalness(judge=config(server)))
    assert sent(server) == [16, 7, 7]  # int(0.15 * 48) = 7 frames in a window
    assert found["naturalness_score"] == 0.75 and found["raw_score"] == "4"
    assert (found["start_naturalness_score"], found["end_naturalness_score"]) == (0.25, 1.0)
    assert found["drift_naturalness_score"] == 0.75
    assert [body["messages"][0]["content"][-1]["text"][8:11].strip() for _, body in server.requests] == [
        "16",
        "7 f",
        "7 f",
    ]


def test_the_official_instruction_announces_sixteen_regardless(server, tmp_path, monkeypatch):
    (tmp_path / "i.txt").write_text("##NUM_FRAMES##")
    monkeypatch.setattr(judging, "OFFICIAL_SHA256", judging.sha256("##NUM_FRAMES##"))
    server.replies = ["3"]
    measure(moving(20), Naturalness(judge=config(server, instruction_file=tmp_path / "i.txt")))
    assert [body["messages"][0]["content"][-1]["text"] for _, body in server.requests] == ["16"] * 3
    assert sent(server) == [16, 3, 3]


def test_the_short_set_asks_once(server):
    server.replies = ["3"]
    found = measure(moving(20), Naturalness(judge=config(server), with_drift=False))
    assert len(server.requests) == 1 and set(found) == {"naturalness_score", "raw_score"}
