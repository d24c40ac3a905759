from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helios.conditioning.timeline import Blend, Cue, Cut, Mix, Timeline, change_of, read_timeline, timeline_of
from helios.errors import InputError


def test_a_single_prompt_governs_every_chunk():
    timeline = Timeline.single("a")
    assert {timeline.at(chunk).prompts for chunk in (0, 1, 500)} == {("a",)}


def test_a_cut_takes_effect_at_its_own_chunk():
    timeline = Timeline(cues=(Cue(chunk=0, prompt="a"), Cue(chunk=3, prompt="b", change=Cut())))
    assert [timeline.at(chunk).prompts for chunk in range(5)] == [("a",)] * 3 + [("b",)] * 2


def test_a_blend_loses_no_chunk():
    """The published weights begin at 0, so that the first chunk after the change still shows the old prompt (B9)."""
    timeline = Timeline(cues=(Cue(chunk=0, prompt="a"), Cue(chunk=2, prompt="b", change=Blend(chunks=4))))
    assert [timeline.at(chunk).weight for chunk in range(2, 8)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert timeline.at(2) == Mix(steps=(("a", 1.0), ("b", 0.25)))


def test_a_blend_inside_a_blend_goes_on_from_where_it_stands():
    cues = (Cue(chunk=0, prompt="a"), Cue(chunk=1, prompt="b", change=Blend(chunks=4)))
    timeline = Timeline(cues=(*cues, Cue(chunk=2, prompt="c", change=Blend(chunks=4))))
    shares = []
    for chunk in range(8):
        share = {"a": 0.0, "b": 0.0, "c": 0.0}
        for prompt, weight in timeline.at(chunk).steps:
            share = {name: value * (1 - weight) + (weight if name == prompt else 0) for name, value in share.items()}
        shares.append(share)
    assert all(sum(share.values()) == pytest.approx(1) for share in shares)
    jumps = [max(abs(x[n] - y[n]) for n in "abc") for x, y in pairwise(shares)]
    assert max(jumps) < 0.4 and shares[-1]["c"] == 1.0


def test_the_last_prompt_holds_to_the_end():
    """The published code falls back to the first prompt past the schedule (Q16)."""
    timeline = timeline_of([(0, "a"), (5.5, "b")], fps=24, chunk_frames=33)
    assert timeline.at(10**6).after == "b"


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(2, 5))
def test_weights_rise_to_one_within_the_blend(gaps, blend):
    chunks = [0]
    for gap in gaps:
        chunks.append(chunks[-1] + gap + blend)
    cues = tuple(Cue(chunk=c, prompt=str(i), change=Blend(chunks=blend)) for i, c in enumerate(chunks))
    timeline = Timeline(cues=cues)
    for cue in cues[1:]:
        weights = [timeline.at(cue.chunk + k).weight for k in range(blend)]
        assert weights == sorted(weights) and weights[0] > 0 and weights[-1] == 1.0


def test_times_are_moved_to_the_nearest_chunk_boundary():
    timeline = timeline_of([(0, "a"), (1.4, "b"), (4.0, "c")], fps=24, chunk_frames=33)
    assert [cue.chunk for cue in timeline.cues] == [0, 1, 3]


def test_two_prompts_on_one_boundary_keep_the_later():
    timeline = timeline_of([(0, "a"), (1.3, "b"), (1.4, "c")], fps=24, chunk_frames=33)
    assert [cue.prompt for cue in timeline.cues] == ["a", "c"]


def test_changing_the_prompt_while_running_drops_later_cues():
    timeline = timeline_of([(0, "a"), (10, "b")], fps=24, chunk_frames=33)
    changed = timeline.with_cue(Cue(chunk=2, prompt="c"))
    assert [changed.at(chunk).after for chunk in (1, 2, 50)] == ["a", "c", "c"]
    assert timeline.with_cue(Cue(chunk=0, prompt="c")).prompts == ("c",)


def test_json_round_trip():
    timeline = timeline_of([(0, "a"), (3, "b")], fps=24, chunk_frames=33, blend=3)
    assert Timeline.from_json(timeline.to_json()) == timeline


@pytest.mark.parametrize(
    "entries,words",
    [
        ([(0, "a"), (5, "b"), (4, "c")], "4 s is out of order"),
        ([(0, "a"), (0, "b")], "out of order"),
        ([(1, "a")], "first prompt must be at time 0"),
        ([(-1, "a")], "-1 s is out of order"),
        ([(0, " ")], "is empty"),
        ([(0, "a"), (float("nan"), "b")], "out of order"),
        ([(0, "a"), (float("inf"), "b")], "out of order"),
        ([], "timeline is empty"),
    ],
)
def test_bad_timelines_are_refused(entries, words):
    with pytest.raises(InputError, match=words):
        timeline_of(entries, fps=24, chunk_frames=33)


def test_bad_blends_are_refused():
    assert change_of(0) == change_of(1) == Cut()
    with pytest.raises(InputError, match="blend=-1"):
        change_of(-1)
    with pytest.raises(InputError, match="no blend"):
        Blend(chunks=1)


def test_reading_a_file(tmp_path):
    file = tmp_path / "story.txt"
    file.write_text("# a story\n0 a red ball\n\n4.5s: 2 dogs\n1:02, the end\n")
    assert read_timeline(file) == [(0.0, "a red ball"), (4.5, "2 dogs"), (62.0, "the end")]


@pytest.mark.parametrize(
    "text,words", [("a red ball\n", "line 1"), ("0 a\nlater b\n", "line 2"), ("# nothing\n", "no prompts")]
)
def test_unreadable_files_are_named(tmp_path, text, words):
    file = tmp_path / "story.txt"
    file.write_text(text)
    with pytest.raises(InputError, match=words):
        read_timeline(file)
    with pytest.raises(InputError, match="nowhere.txt"):
        read_timeline(tmp_path / "nowhere.txt")
