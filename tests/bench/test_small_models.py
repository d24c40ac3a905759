"""The script that measures the small models: its tables are those of the page, and every task judges the right frames."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from helios.data.toy import CHUNK_FRAMES, SMALL_WORLD, ToyChanges, ToyClips

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import small_models
from small_models import BEGIN, END, PAGE, RESULTS, SEED, TASKS, tables


class Perfect:
    """In place of a model: draws the clip that the sentence is of, from ``begin`` frames on."""

    def __init__(self, clips: ToyClips, begin: int = 0):
        self.clips, self.begin = clips, begin

    def __call__(self, prompt, num_frames, seed, **given) -> np.ndarray:
        chunks = range(self.begin // CHUNK_FRAMES, -(-(self.begin + num_frames) // CHUNK_FRAMES))
        return np.concatenate([self.clips.chunk(seed, chunk) for chunk in chunks])[:num_frames]


def test_the_page_shows_what_was_kept():
    entries = json.loads((RESULTS / "results.json").read_text())
    assert PAGE.read_text().split(BEGIN)[1].split(END)[0].strip() == tables(entries).strip()


@pytest.mark.parametrize("task, begin", [("text", 0), ("image", 0), ("video", 66), ("drift", 0)])
def test_true_clips_are_all_right(task, begin, monkeypatch):
    monkeypatch.setattr(small_models, "DRIFT_FRAMES", 330)
    found = TASKS[task](Perfect(small_models.heldout_clips(2, chunks=2), begin), 2)
    assert all(verdict["all"] == 1 and verdict["mean"] == 1 for verdicts in found.values() for verdict in verdicts)


def test_a_change_that_arrives_is_counted():
    clips = ToyChanges(seed=SEED, count=2, chunks=6, split="heldout", complete=True, variety=SMALL_WORLD)
    found = TASKS["timeline"](lambda prompt, num_frames, seed, **given: clips[seed].frames, 2)
    assert [verdict["changed"] for verdict in found["changed"]] == [True] * 2
    missed = TASKS["timeline"](
        lambda prompt, num_frames, seed, **given: np.tile(clips[seed].frames[:33], (6, 1, 1, 1)), 2
    )
    assert [verdict["changed"] for verdict in missed["changed"]] == [False] * 2
