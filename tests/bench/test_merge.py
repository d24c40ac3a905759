import json

import pytest

from helios.bench import merge as merging
from helios.bench.merge import merge_folder, read_means
from helios.bench.ratings import BASIC, OFFICIAL
from helios.errors import InputError
from tests.bench.test_ratings import REFERENCE


def write_reference(folder, **changes):
    """Result files as the published scripts write them, without our extra keys."""
    folder.mkdir(exist_ok=True)
    for name, value in {**REFERENCE, **changes}.items():
        if value is not None:
            key = "average_score" if name in BASIC else "average_drift_score"
            content = {"metric": name, key: value, "num_videos": 2, "per_video_results": []}
            (folder / f"{name}_results.json").write_text(json.dumps(content))
    return folder


def test_the_published_example(tmp_path):
    merged = merge_folder(write_reference(tmp_path), mode="long")
    summary = merged["summary"]
    assert merged["rating_scale"] == 10 and merged["per_video"] == {}
    assert summary["total_weighted_rating"] == 8.247
    assert list(summary["non_drifting"]) == sorted(BASIC)
    assert summary["non_drifting"]["motion_amplitude"] == {
        "name": "Motion Amplitude",
        "raw_score": 0.12899818271398544,
        "normalized_score": 0.12899818271398544,
        "rating": 3,
        "num_videos": 2,
    }
    assert summary["drifting"]["drifting_motion_smoothness"]["rating"] == 10
    assert json.loads((tmp_path / "merged_results.json").read_text()) == merged


def test_the_short_set_ignores_drifting_files(tmp_path):
    merged = merge_folder(write_reference(tmp_path), mode="short")
    assert merged["summary"]["total_weighted_rating"] == 7.45 and merged["summary"]["drifting"] == {}


def test_the_corrected_rules_stand_beside(tmp_path):
    corrected = merge_folder(write_reference(tmp_path), mode="long")["corrected"]
    assert corrected["total_weighted_rating"] == pytest.approx(8.247 / 0.996, abs=1e-3)


def test_a_missing_metric_is_missing_and_not_zero(tmp_path):
    folder = write_reference(tmp_path, semantic=None)
    merged = merge_folder(folder)
    assert merged["summary"]["total_weighted_rating"] is None
    assert "semantic is missing" in merged["partial_because"] and "semantic" not in merged["summary"]["non_drifting"]
    partial = merge_folder(folder, allow_partial=True)
    assert partial["summary"]["total_weighted_rating"] == pytest.approx(8.247 - 8 * 0.255)
    assert partial["total_status"] == "partial"


def test_a_mean_of_exactly_zero(tmp_path):
    """The published merge reads it as missing; the corrected rules rate it 1."""
    merged = merge_folder(write_reference(tmp_path, motion_amplitude=0.0), allow_partial=True)
    assert "motion_amplitude" not in merged["summary"]["non_drifting"]
    assert merged["summary"]["total_weighted_rating"] == pytest.approx(8.247 - 3 * 0.03)
    assert merged["corrected"]["non_drifting"]["motion_amplitude"]["rating"] == 1
    assert any("exactly 0" in reason for reason in merged["partial_because"])


def test_a_drift_of_exactly_zero_counts(tmp_path):
    merged = merge_folder(write_reference(tmp_path))
    assert merged["summary"]["drifting"]["drifting_naturalness"]["rating"] == 10


def test_failed_videos_withhold_the_total(tmp_path):
    write_reference(tmp_path)
    path = tmp_path / "aesthetic_results.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_failed": 3}))
    merged = merge_folder(tmp_path)
    assert merged["summary"]["total_weighted_rating"] is None
    assert "3 videos failed in aesthetic" in merged["partial_because"]
    assert merge_folder(tmp_path, allow_partial=True)["summary"]["total_weighted_rating"] == 8.247


def test_unknown_files_are_left_out(tmp_path, caplog):
    write_reference(tmp_path)
    (tmp_path / "speed_results.json").write_text("{}")
    assert set(read_means(tmp_path)) == set(OFFICIAL.metrics("long"))
    assert "speed_results.json" in caplog.text


@pytest.mark.parametrize("text", ["{", "[1]", '"x"'])
def test_unreadable_files_are_named(tmp_path, text):
    write_reference(tmp_path)
    (tmp_path / "semantic_results.json").write_text(text)
    with pytest.raises(InputError, match=r"semantic_results\.json"):
        merge_folder(tmp_path)


def test_a_file_without_an_average_is_missing(tmp_path):
    write_reference(tmp_path)
    (tmp_path / "semantic_results.json").write_text('{"average_score": null}')
    assert "semantic is missing" in merge_folder(tmp_path)["partial_because"]


def test_an_empty_folder(tmp_path):
    with pytest.raises(InputError, match="run the benchmark into it first"):
        merge_folder(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        merge_folder(tmp_path / "absent")


def official_files(folder, **facts):
    write_reference(folder)
    known = {
        "num_videos": 240,
        "prompts_sha256": merging.OFFICIAL_PROMPTS,
        "frames_backend": "official",
        "official_judge": True,
    }
    for path in folder.glob("*_results.json"):
        path.write_text(
            json.dumps({**json.loads(path.read_text()), **known, "tool_version": "0", "num_failed": 0, **facts})
        )
    return folder


def test_official_only_when_everything_is(tmp_path):
    merged = merge_folder(official_files(tmp_path))
    assert (merged["total_status"], merged["partial_because"]) == ("official", [])


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"num_videos": 239}, "239 of 240 videos"),
        ({"prompts_sha256": "other"}, "prompts are not the published CSV"),
        ({"frames_backend": "av"}, "read with av"),
        ({"official_judge": False}, "judge or instruction"),
        ({"num_failed": 1}, "1 videos failed"),
    ],
)
def test_one_deviation_makes_it_partial(tmp_path, facts, words):
    merged = merge_folder(official_files(tmp_path, **facts))
    assert merged["total_status"] == "partial"
    assert any(words in reason for reason in merged["partial_because"])


def test_throughput_term(tmp_path):
    merged = merge_folder(write_reference(tmp_path), throughput_fps=19.53, throughput_rule="paper-table")
    assert merged["throughput"] == {"fps": 19.53, "rule": "paper-table", "rating": 6, "total_with_throughput": 8.847}


def test_the_true_motion_length_stands_beside_the_signed_mean(tmp_path):
    write_reference(tmp_path)
    rows = [{"motion_fb": 0.1, "flow_mag": 2.0}, {"motion_fb": 0.2, "flow_mag": 3.0}]
    content = {"average_score": 0.15, "num_videos": 2, "per_video_results": rows}
    (tmp_path / "motion_amplitude_results.json").write_text(json.dumps(content))
    assert merge_folder(tmp_path)["motion"] == {"signed_mean": 0.15, "flow_mag": 2.5, "unit": "px/frame at 640 wide"}


def test_an_offline_total_is_withheld_when_videos_failed_or_sizes_are_mixed(tmp_path):
    offline = {"num_videos": 2, "averages": {}, "ratings": {}, "offline_drift": 8.0, "offline_total": 7.0}
    for extra, kept in (({}, 7.0), ({"num_failed": 1}, None), ({"frame_sizes": {"64x128": 1, "32x32": 1}}, None)):
        (tmp_path / "offline_results.json").write_text(json.dumps({**offline, **extra}))
        assert merge_folder(tmp_path)["offline"]["offline_total"] == kept
    assert merge_folder(tmp_path, allow_partial=True)["offline"]["offline_total"] == 7.0
