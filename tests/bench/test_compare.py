import csv
import io
import json

import pytest

from helios.bench import anchors
from helios.bench.anchors import PUBLISHED, Anchor, beside_published
from helios.bench.compare import TOTAL, compare_folders, to_csv, to_markdown, write_all_models
from helios.bench.merge import merge_folder
from helios.bench.plots import bars, drift_curves, radar, save, svg
from helios.errors import InputError
from tests.bench.test_merge import write_reference


@pytest.fixture
def folders(tmp_path):
    for name, changes in (("ours", {}), ("theirs", {"semantic": None})):
        merge_folder(write_reference(tmp_path / name, **changes))
    return [tmp_path / "ours", tmp_path / "theirs"]


def test_all_models_file(folders, tmp_path):
    content = write_all_models(compare_folders(folders), tmp_path / "all_models_merged.json", "rating")
    assert (content["num_models"], content["score_type"], content["rating_scale"]) == (2, "rating", 10)
    assert content["metrics"][:-1] == sorted(content["metrics"][:-1]) and content["metrics"][-1] == TOTAL
    assert content["models"]["ours"][TOTAL] == 8.247 and content["models"]["ours"]["semantic"] == 8
    assert content["models"]["theirs"]["semantic"] is None and content["models"]["theirs"][TOTAL] is None
    assert json.loads((tmp_path / "all_models_merged.json").read_text()) == content


def test_models_without_official_metrics_have_no_official_table(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "offline_results.json").write_text('{"averages": {"flicker": 0.01}, "ratings": {"flicker": 7}}')
    merge_folder(tmp_path / "a")
    comparison = compare_folders([tmp_path / "a"])
    assert comparison.official() == {"a": {}} and comparison.offline() == {"a": {"flicker": 0.01}}


def test_score_types(folders):
    comparison = compare_folders(folders)
    assert comparison.official("raw")["ours"]["semantic"] == 0.2817579507827759
    assert comparison.official("normalized")["ours"]["semantic"] == 0.2817579507827759
    with pytest.raises(InputError, match="'points' is unknown"):
        comparison.official("points")


def test_tables_put_the_total_first_and_leave_holes(folders):
    rows = compare_folders(folders).official("rating")
    markdown = to_markdown(rows).splitlines()
    assert markdown[0].startswith(f"| model | {TOTAL} | aesthetic | motion_amplitude |")
    assert markdown[2].startswith("| ours | 8.2470 | 9 | 3 |") and markdown[3].startswith("| theirs |  | 9 |")
    table = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert table[0]["semantic"] == "8" and table[1]["semantic"] == ""


def test_names(folders):
    assert list(compare_folders({"a": folders[0], "b": folders[1]}).models) == ["a", "b"]
    with pytest.raises(InputError, match="two results folders are named ours"):
        compare_folders([folders[0], folders[0]])
    with pytest.raises(InputError, match="no results folders"):
        compare_folders([])


def test_a_folder_without_results(tmp_path):
    with pytest.raises(InputError, match="no merged results there"):
        compare_folders([tmp_path])
    (tmp_path / "merged_results.json").write_text('{"summary": 3}')
    with pytest.raises(InputError, match="no merged results there"):
        compare_folders([tmp_path])


def test_published_table():
    by_name = {row.model: row for row in PUBLISHED}
    assert len(by_name) == len(PUBLISHED) == 22
    assert (by_name["Helios-Distilled"].fps, by_name["Helios-Distilled"].long_total) == (19.53, 6.34)
    assert by_name["Helios-Mid"].long_total is None
    shorts = [row.short_total for row in PUBLISHED if row.short_total is not None]
    assert all(abs(total * 20 - round(total * 20)) < 1e-9 for total in shorts)  # weights make multiples of .05


def test_our_row_takes_its_place():
    ours = Anchor(model="small", size="20M", fps=3.0, long_total=6.4, ours=True)
    order = [row.model for row in beside_published([ours])]
    assert order[:3] == ["Helios-Base", "small", "Helios-Distilled"]
    table = anchors.markdown([ours])
    assert "| **small** | 20M | 3.00 |  | 6.40 |" in table and "| Helios-Mid | 14B | 1.05† |  |  |" in table


def test_plots_are_drawn_and_saved(tmp_path):
    rows = {"a": {"x": 3, "y": 7, "z": 9}, "b": {"x": 4, "y": None, "z": 2}}
    assert "</svg>" in svg(bars(rows, "t"))
    assert radar(rows, "t") is None  # only two metrics are common
    assert "</svg>" in svg(radar({"a": rows["a"]}, "t"))
    path = save(drift_curves({"clip": ([0, 1, 2], [0.1, 0.2, 0.1])}, "luma"), tmp_path / "plots" / "luma.png")
    assert path.read_bytes()[:4] == b"\x89PNG"
