"""Prompt sets: the benchmark's 240 prompts by index, loaders for the texts, and any table of the user's.

The texts are not shipped: they extend Meta's MovieGen Video Bench prompts. What ships is the index: which line of
Self-Forcing's ``MovieGenVideoBench_extended.txt`` each prompt is, and its duration tier.
"""

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helios.errors import InputError

OFFICIAL_SHA256 = "e8d74b4adb336db632a901f56c42f5ab89b721e425dddd596b64c9b1ce4ae2fb"
OFFICIAL_COUNT = 240
SELF_FORCING_LINES = 1003
TIERS = (120, 240, 720, 1440)

# fmt: off
_LINES_FROM_181 = (
    510, 396, 633, 328, 378, 385, 981, 790, 517, 936, 613, 454, 694, 226, 704, 295, 672, 250, 812, 952, 763, 311,
    946, 349, 693, 874, 244, 718, 400, 450, 256, 600, 663, 993, 871, 316, 439, 402, 887, 377, 701, 481, 840, 682,
    949, 279, 444, 675, 199, 817, 961, 319, 620, 639, 593, 238, 749, 650, 977, 329,
)
_TIER_240 = frozenset((
    2, 4, 5, 8, 11, 12, 20, 22, 23, 28, 32, 35, 37, 38, 39, 43, 44, 46, 48, 51, 59, 61, 63, 64, 67, 68, 69, 72, 81,
    86, 92, 98, 99, 108, 112, 113, 114, 122, 123, 124, 125, 126, 132, 137, 139, 142, 146, 147, 148, 150, 153, 155,
    158, 159, 160, 162, 168, 175, 177, 178,
))
_TIER_720 = frozenset((
    6, 7, 14, 16, 19, 24, 26, 29, 30, 31, 33, 34, 36, 40, 49, 50, 53, 54, 56, 60, 62, 66, 73, 75, 77, 79, 80, 82,
    83, 84, 87, 89, 90, 93, 96, 97, 100, 102, 106, 109, 121, 128, 134, 135, 136, 140, 141, 143, 144, 145, 149, 154,
    156, 157, 165, 166, 170, 173, 176, 179,
))
# fmt: on


def self_forcing_line(prompt_id: int) -> int:
    """1-based line of Self-Forcing's list that holds prompt ``prompt_id`` (1 to 240)."""
    _check_id(prompt_id)
    return prompt_id if prompt_id <= 180 else _LINES_FROM_181[prompt_id - 181]


def duration(prompt_id: int) -> int:
    """Duration tier of a prompt in frames: 120, 240, 720 or 1440; sixty prompts each."""
    _check_id(prompt_id)
    if prompt_id > 180:
        return 120
    return 240 if prompt_id in _TIER_240 else 720 if prompt_id in _TIER_720 else 1440


def _check_id(prompt_id: int) -> None:
    if not 1 <= prompt_id <= OFFICIAL_COUNT:
        raise InputError(f"prompt id {prompt_id} is not in the benchmark: use 1 to {OFFICIAL_COUNT}")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt.

    Attributes:
        id: number that file names begin with.
        text: what the model is given.
        duration: frames asked for.
        scene: toy-world scene that the text describes, if any.
    """

    id: int
    text: str
    duration: int
    scene: Any = None


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """Prompts by id.

    Attributes:
        name: where they come from.
        prompts: by id.
        sha256: of the file they were read from; empty when not from a file.
    """

    name: str
    prompts: Mapping[int, Prompt] = field(default_factory=dict)
    sha256: str = ""

    @property
    def official(self) -> bool:
        """Whether this is the published CSV, byte for byte."""
        return self.sha256 == OFFICIAL_SHA256

    def get(self, prompt_id: int | None) -> Prompt | None:
        return None if prompt_id is None else self.prompts.get(prompt_id)

    def __len__(self) -> int:
        return len(self.prompts)


def load_prompts(path: str | Path) -> PromptSet:
    """A prompt file: the official CSV or one of its form, or Self-Forcing's text list.

    Raises: InputError when the file is neither.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: not a readable text file; pass the benchmark's CSV or Self-Forcing's list"
        ) from error
    prompts = _from_csv(text, path) if path.suffix.lower() == ".csv" else _from_lines(text, path)
    return PromptSet(name=path.name, prompts=prompts, sha256=hashlib.sha256(content).hexdigest())


def _from_csv(text: str, path: Path) -> dict[int, Prompt]:
    rows = csv.DictReader(text.splitlines(keepends=True))
    if rows.fieldnames is None or not {"id", "prompt", "duration"} <= set(rows.fieldnames):
        raise InputError(f"{path}: columns are {rows.fieldnames}; a prompt table needs id, prompt and duration")
    found: dict[int, Prompt] = {}
    for row in rows:
        try:
            prompt = Prompt(id=int(row["id"]), text=row["prompt"].strip(), duration=int(float(row["duration"])))
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path}: line {rows.line_num} is no id,prompt,duration; correct that line") from error
        if prompt.id in found or not prompt.text:
            problem = "is there twice" if prompt.id in found else "has no text"
            raise InputError(f"{path}: id {prompt.id} {problem}; every id needs one prompt")
        found[prompt.id] = prompt
    return found


def _from_lines(text: str, path: Path) -> dict[int, Prompt]:
    lines = text.rstrip("\n").split("\n")
    if len(lines) != SELF_FORCING_LINES:
        raise InputError(
            f"{path}: has {len(lines)} lines; Self-Forcing's MovieGenVideoBench_extended.txt has {SELF_FORCING_LINES} "
            "(other prompt tables: a CSV with id,prompt,duration)"
        )
    return {
        number: Prompt(id=number, text=lines[self_forcing_line(number) - 1].strip(), duration=duration(number))
        for number in range(1, OFFICIAL_COUNT + 1)
    }
