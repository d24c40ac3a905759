"""The vision-language judge: a client for any OpenAI-compatible chat endpoint, on the standard library alone."""

import base64
import hashlib
import json
import logging
import math
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from helios.bench.metrics.base import Refused, Unavailable
from helios.errors import InputError

log = logging.getLogger(__name__)
OPENAI_URL = "https://api.openai.com/v1"
OFFICIAL_MODEL = "gpt-5.2-2025-12-11"
OFFICIAL_SHA256 = "d4f41b8ff87f5d0cceab3bd46d5df0f8159355ef57e82ca5d3bffe9561aec7c7"
PLACEHOLDER = "##NUM_FRAMES##"
INSTRUCTION = f"""You see {PLACEHOLDER} frames, in order, taken far apart from one long video. Decide whether the video \
was filmed in the real world or produced by a machine.

Because the frames are sparse, large changes between them are normal: cuts, camera moves and new scenes say nothing. Look \
inside the frames instead:
- rendering: textures that melt, smear or repeat; edges with halos; waxy or plastic surfaces;
- local physics: shadows, reflections, contact with the ground, fluids and cloth;
- anatomy: hands, faces, limbs, animals, their number and joints;
- ghosting: doubled contours, half-transparent objects, parts that fade in or out.

Answer with one integer and nothing else:
1 surely machine-made, 2 probably machine-made, 3 cannot tell, 4 probably real, 5 surely real."""
_RETRIED_STATUS = {408, 409, 429, 500, 502, 503, 504}


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """How to reach a judge.

    Args:
        base_url: the endpoint up to and including its version, ``/chat/completions`` is added.
        model: model id; the published scores were made with the default.
        api_key_env: environment variable that holds the key; a local endpoint may do without.
        instruction_file: the official instruction as a text file; None takes our own wording.
        timeout_s, retries, backoff_s: per request; the wait doubles from ``backoff_s`` with every retry.
    """

    base_url: str = OPENAI_URL
    model: str = OFFICIAL_MODEL
    api_key_env: str = "OPENAI_API_KEY"
    instruction_file: Path | None = None
    timeout_s: float = 120.0
    retries: int = 3
    backoff_s: float = 2.0

    def __post_init__(self):
        if not self.base_url.startswith(("http://", "https://")):
            raise InputError(f"base_url={self.base_url!r} is no web address: pass one such as {OPENAI_URL}")
        if self.retries < 0 or self.timeout_s <= 0 or self.backoff_s < 0:
            raise InputError(
                f"retries={self.retries}, timeout_s={self.timeout_s}, backoff_s={self.backoff_s}: pass 0 or more retries "
                "and positive times"
            )

    @property
    def instruction(self) -> str:
        """The text with its placeholder. Raises: InputError when the file cannot be read or lacks the placeholder."""
        if self.instruction_file is None:
            return INSTRUCTION
        try:
            text = Path(self.instruction_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self.instruction_file}: not a readable text; pass the official instruction") from error
        if PLACEHOLDER not in text:
            raise InputError(f"{self.instruction_file}: lacks {PLACEHOLDER}; pass the official instruction")
        return text

    @property
    def official_instruction(self) -> bool:
        """Whether the instruction is the published text, to the letter."""
        return sha256(self.instruction) == OFFICIAL_SHA256

    @property
    def official(self) -> bool:
        """Whether instruction and model are the published ones: only then may a score be called official."""
        return self.official_instruction and self.model == OFFICIAL_MODEL

    @property
    def identity(self) -> str:
        """Model and instruction, for the resume key."""
        return f"{self.model}:{sha256(self.instruction)[:12]}"


def sha256(text: str) -> str:
    """SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


class Judge:
    """Asks for a rating of a list of JPEG pictures."""

    def __init__(self, config: JudgeConfig):
        self.config = config

    def check(self) -> None:
        """Raises: Unavailable when the endpoint wants a key and there is none."""
        if self.config.base_url == OPENAI_URL and not self._key():
            raise Unavailable(f"needs a key for {OPENAI_URL}: set {self.config.api_key_env}")

    def rate(self, pictures: list[bytes], *, announced: int) -> str:
        """The judge's answer as it came.

        Args:
            pictures: JPEG files, in order; they come before the text in one user message.
            announced: the number of frames that the instruction names.
        Raises: Refused when the endpoint gives no answer after all retries.
        """
        request = self._request(pictures, announced)
        for attempt in range(self.config.retries + 1):
            try:
                return _answer(self._send(request))
            except _Temporary as problem:
                if attempt == self.config.retries:
                    raise Refused(f"the judge gave no answer after {attempt + 1} attempts: {problem}") from problem
                wait = self.config.backoff_s * 2**attempt
                log.warning("judge: %s; trying again in %.1f s", problem, wait)
                time.sleep(wait)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _request(self, pictures: list[bytes], announced: int) -> urllib.request.Request:
        content = [{"type": "image_url", "image_url": {"url": data_url(picture)}} for picture in pictures]
        text = self.config.instruction.replace(PLACEHOLDER, str(announced))
        body = {
            "model": self.config.model,
            "temperature": 0,
            "stream": False,
            "messages": [{"role": "user", "content": [*content, {"type": "text", "text": text}]}],
        }
        headers = {"Content-Type": "application/json"}
        if key := self._key():
            headers["Authorization"] = f"Bearer {key}"
        address = self.config.base_url.rstrip("/") + "/chat/completions"
        return urllib.request.Request(address, json.dumps(body).encode(), headers, method="POST")

    def _send(self, request: urllib.request.Request) -> bytes:
        try:
            with urllib.request.urlopen(request, timeout=self.config.timeout_s) as response:
                return response.read()
        except urllib.error.HTTPError as error:
            problem = f"HTTP {error.code} {error.reason}"
            if error.code in _RETRIED_STATUS:
                raise _Temporary(problem) from error
            raise Refused(f"the judge refused: {problem}") from error
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise _Temporary(str(getattr(error, "reason", error))) from error

    def _key(self) -> str | None:
        return os.environ.get(self.config.api_key_env)


class _Temporary(Exception):
    """Worth another attempt."""


def _answer(body: bytes) -> str:
    try:
        return str(json.loads(body)["choices"][0]["message"]["content"])
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise _Temporary(f"an answer without choices ({body[:80]!r})") from error


def data_url(jpeg: bytes) -> str:
    """A JPEG as a data URL."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def parse_rating(answer: str) -> float:
    """The number in an answer, clamped to 1..5. Raises: Refused when the answer is not a number."""
    try:
        value = float(answer.strip())
    except ValueError as error:
        raise Refused(f"the judge answered {answer[:60]!r} instead of a number") from error
    if math.isnan(value):
        raise Refused("the judge answered nan instead of a number")
    return min(5.0, max(1.0, value))


def naturalness(rating: float) -> float:
    """1..5 to 0..1."""
    return (rating - 1) / 4
