from collections import Counter

import pytest

from helios.bench.prompts import SELF_FORCING_LINES, duration, load_prompts, self_forcing_line
from helios.errors import InputError


def test_the_index_is_a_choice_of_distinct_lines():
    lines = [self_forcing_line(number) for number in range(1, 241)]
    assert lines[:180] == list(range(1, 181))
    assert (lines[180], lines[199], lines[200], lines[239]) == (510, 952, 763, 329)
    assert len(set(lines)) == 240 and max(lines) <= SELF_FORCING_LINES


def test_sixty_prompts_per_duration():
    assert Counter(duration(number) for number in range(1, 241)) == {120: 60, 240: 60, 720: 60, 1440: 60}
    assert (duration(2), duration(239), duration(6), duration(1), duration(180)) == (240, 120, 720, 1440, 1440)


@pytest.mark.parametrize("number", [0, 241, -1])
def test_other_ids_are_refused(number):
    with pytest.raises(InputError, match=str(number)):
        self_forcing_line(number)


def test_self_forcing_list(tmp_path):
    path = tmp_path / "MovieGenVideoBench_extended.txt"
    path.write_text("".join(f"prompt of line {i}\n" for i in range(1, SELF_FORCING_LINES + 1)))
    prompts = load_prompts(path)
    assert len(prompts) == 240
    assert prompts.get(181).text == "prompt of line 510" and prompts.get(181).duration == 120
    assert not prompts.official


def test_csv_with_quotes_and_line_breaks(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text('id,prompt,duration\n7,"A dog, running\nfast",120\n3,A cat,240\n')
    prompts = load_prompts(path)
    assert prompts.get(7).text == "A dog, running\nfast"
    assert prompts.get(3).duration == 240 and prompts.get(4) is None and prompts.get(None) is None


def test_the_published_csv_is_known_by_its_hash(tmp_path, monkeypatch):
    path = tmp_path / "prompts.csv"
    path.write_text("id,prompt,duration\n1,A cat,120\n")
    monkeypatch.setattr("helios.bench.prompts.OFFICIAL_SHA256", load_prompts(path).sha256)
    assert load_prompts(path).official


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "number,text\n1,A cat\n", "needs id, prompt and duration"),
        ("a.csv", "id,prompt,duration\none,A cat,120\n", "line 2"),
        ("a.csv", "id,prompt,duration\n1,A cat,120\n1,A dog,120\n", "id 1 is there twice"),
        ("a.csv", "id,prompt,duration\n1,,120\n", "id 1 has no text"),
        ("a.txt", "only one line\n", "has 1 lines"),
    ],
)
def test_other_tables_are_refused(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words):
        load_prompts(tmp_path / name)


def test_a_binary_or_absent_file_is_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00\x81")
    for name in ("a.csv", "absent.csv"):
        with pytest.raises(InputError, match="not a readable text file"):
            load_prompts(tmp_path / name)
