import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from helios.bench.frames.sizes import NominalSize
from helios.bench.judge import JudgeConfig
from helios.bench.maker import HeliosMaker
from helios.bench.metrics.motion import MotionAmplitude
from helios.bench.prompts import Prompt, PromptSet
from helios.bench.quality import QualityConfig, run
from helios.bench.report import write_report
from helios.bench.results import OFFICIAL_FILES
from helios.bench.videos import MadeVideo, Reading, from_files, from_folder, from_model
from helios.cli.main import run as command
from helios.engine.precision import Precision
from helios.errors import InputError
from tests.bench.clips import moving, write_mp4
from tests.bench.test_judge import FakeJudge

PROMPTS = PromptSet(name="test set", prompts={i: Prompt(id=i, text=f"prompt {i}", duration=120) for i in (2, 7, 30)})


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos") / "my-model"
    folder.mkdir()
    for number in (30, 2, 7):
        write_mp4(folder / f"{number}_120_ori30.mp4", moving(30, seed=number))
    return folder


def config(out, **changes) -> QualityConfig:
    reading = Reading(backend="av", size=NominalSize(height=96, width=160))
    options = {"tier": "offline", "workers": 1, "prompts": PROMPTS, "reading": reading, **changes}
    return QualityConfig(out=out, **options)


def offline(out):
    return json.loads((out / "offline_results.json").read_text())


def test_a_folder_is_scored_in_the_order_of_ids(videos, tmp_path):
    seen = []
    outcome = run(from_folder(videos, PROMPTS), config(tmp_path), progress=seen.append)
    assert (outcome.scored, outcome.kept, outcome.failed, outcome.exit_code) == (3, 0, {}, 0)
    assert [(event.done, event.total, event.state) for event in seen] == [(i, 3, "scored") for i in (1, 2, 3)]
    content = offline(tmp_path)
    assert [row["id"] for row in content["per_video_results"]] == [2, 7, 30]
    assert content["frames_backend"] == "av" and content["frame_sizes"] == {"72x128": 3}
    values = [row["values"]["flicker"] for row in content["per_video_results"]]
    assert content["averages"]["flicker"] == pytest.approx(np.mean(values))
    assert content["offline_drift"] is not None and content["offline_total"] is None  # no captions to check
    assert outcome.merged["offline"]["ratings"] == content["ratings"]
    assert (tmp_path / "sheets" / "2_120_ori30.mp4.jpg").read_bytes()[:2] == b"\xff\xd8"


def test_a_second_run_measures_nothing(videos, tmp_path):
    listing = from_folder(videos, PROMPTS)
    run(listing, config(tmp_path))
    before = (tmp_path / "offline_results.json").read_text()
    states = []
    outcome = run(listing, config(tmp_path), progress=lambda event: states.append(event.state))
    assert states == ["kept"] * 3 and (outcome.scored, outcome.kept) == (0, 3)
    assert (tmp_path / "offline_results.json").read_text() == before
    assert run(listing, config(tmp_path, fresh=True)).scored == 3


def states_of(listing, out, **changes):
    states = {}
    run(listing, config(out, **changes), progress=lambda event: states.update({event.name: event.state}))
    return states


def test_only_what_changed_is_measured_again(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in (2, 7):
        write_mp4(folder / f"{number}_120_ori30.mp4", moving(30, seed=number))
    out = tmp_path / "out"
    names = ("temporal",)
    states_of(from_folder(folder, PROMPTS), out, metrics=names)
    write_mp4(folder / "7_120_ori30.mp4", moving(30, seed=8))
    assert states_of(from_folder(folder, PROMPTS), out, metrics=names) == {
        "2_120_ori30.mp4": "kept",
        "7_120_ori30.mp4": "scored",
    }
    assert set(states_of(from_folder(folder, PROMPTS), out, metrics=("temporal", "repeats")).values()) == {"scored"}
    assert set(states_of(from_folder(folder, PROMPTS), out, metrics=names).values()) == {"kept"}
    other = {"metrics": names, "reading": Reading(backend="cv2")}
    assert set(states_of(from_folder(folder, PROMPTS), out, **other).values()) == {"scored"}


def test_another_metric_version_is_measured_again(videos, tmp_path, monkeypatch):
    from helios.bench.metrics.temporal import Temporal

    listing = from_folder(videos, PROMPTS)
    states_of(listing, tmp_path, metrics=("temporal",))
    monkeypatch.setattr(Temporal.__init__, "__kwdefaults__", {**Temporal.__init__.__kwdefaults__, "version": "2"})
    assert set(states_of(listing, tmp_path, metrics=("temporal",)).values()) == {"scored"}


def test_a_damaged_record_is_made_anew(videos, tmp_path):
    listing = from_folder(videos, PROMPTS)
    states_of(listing, tmp_path, metrics=("temporal",))
    (tmp_path / "records" / "2_120_ori30.mp4.json").write_text("{ half")
    assert states_of(listing, tmp_path, metrics=("temporal",))["2_120_ori30.mp4"] == "scored"


def test_bad_videos_are_named_counted_and_never_averaged(videos, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    good = (videos / "2_120_ori30.mp4").read_bytes()
    (folder / "2_120_ori30.mp4").write_bytes(good)
    (folder / "7_120_ori30.mp4").write_bytes(good[: len(good) // 2])  # truncated
    (folder / "30_120_ori31.mp4").write_bytes(good)  # one frame less than its name says
    (folder / "preview.mp4").write_bytes(good)  # wrong name
    (folder / "99_120_ori30.mp4").write_bytes(good)  # id without a prompt
    (folder / "notes.txt").write_text("not a video")
    outcome = run(from_folder(folder, PROMPTS), config(tmp_path / "out"))
    assert outcome.exit_code == 1 and outcome.scored == 1
    assert set(outcome.failed) == {"7_120_ori30.mp4", "30_120_ori31.mp4"}
    assert "holds 30 frames and its name says 31" in outcome.failed["30_120_ori31.mp4"]
    assert outcome.skipped["preview.mp4"].startswith("its name is not")
    assert outcome.skipped["99_120_ori30.mp4"] == "prompt id 99 is not in test set"
    content = offline(tmp_path / "out")
    assert (content["num_videos"], content["num_failed"], content["num_skipped"]) == (1, 2, 2)
    assert outcome.merged["offline"]["offline_drift"] is None
    assert "2 videos failed" in outcome.merged["offline"]["partial_because"]


def test_too_few_frames_for_one_metric_leave_the_others(tmp_path):
    (tmp_path / "v").mkdir()
    write_mp4(tmp_path / "v" / "2_120_ori10.mp4", moving(10))
    outcome = run(from_folder(tmp_path / "v", PROMPTS), config(tmp_path / "out"))
    assert "repeats needs 24 frames" in outcome.failed["2_120_ori10.mp4"] and outcome.exit_code == 1
    values = offline(tmp_path / "out")["per_video_results"][0]["values"]
    assert "flicker" in values and "repeat_ratio" not in values


def test_mixed_frame_sizes_withhold_the_offline_numbers(tmp_path):
    (tmp_path / "v").mkdir()
    write_mp4(tmp_path / "v" / "2_120_ori30.mp4", moving(30))
    write_mp4(tmp_path / "v" / "7_120_ori30.mp4", moving(30, height=48, width=64))
    outcome = run(from_folder(tmp_path / "v", PROMPTS), config(tmp_path / "out"))
    assert outcome.exit_code == 0
    assert outcome.merged["offline"]["partial_because"] == ["frame sizes are mixed: 72x128, 48x64"]
    assert outcome.merged["offline"]["offline_drift"] is None


def test_official_files_have_the_published_layout(videos, tmp_path):
    outcome = run(from_folder(videos, PROMPTS), config(tmp_path, tier="official"))
    content = json.loads((tmp_path / "motion_amplitude_results.json").read_text())
    assert list(content)[:3] == ["metric", "average_score", "num_videos"]
    assert content["metric"] == "motion_fb" and content["num_videos"] == 3 and content["num_failed"] == 0
    assert list(content["per_video_results"][0])[:3] == ["id", "video_name", "motion_fb"]
    assert (tmp_path / "motion_amplitude_results.json").read_text().startswith('{\n  "metric"')
    assert set(outcome.missing) == {"aesthetic", "motion_smoothness", "semantic", "naturalness"}
    assert not (tmp_path / "aesthetic_results.json").exists()
    assert outcome.merged["summary"]["total_weighted_rating"] is None


def test_names_of_the_nine_files():
    assert {file.path for file in OFFICIAL_FILES} == {
        *(
            f"{m}_results.json"
            for m in ("aesthetic", "motion_amplitude", "motion_smoothness", "semantic", "naturalness")
        ),
        *(f"drifting_{m}_results.json" for m in ("aesthetic", "motion_smoothness", "semantic", "naturalness")),
    }


def test_two_processes_give_the_same_numbers(videos, tmp_path):
    for workers in (1, 2):
        listing = from_folder(videos, PROMPTS)
        run(listing, config(tmp_path / str(workers), workers=workers, metrics=("temporal", "drift")))
    one, two = offline(tmp_path / "1"), offline(tmp_path / "2")
    assert one["averages"] == two["averages"]
    assert [row["id"] for row in one["per_video_results"]] == [row["id"] for row in two["per_video_results"]]


@dataclass
class Camera:
    """Plays a model: a pan whose scenery depends on the seed."""

    name: str = "camera"
    identity: str = "camera-1"
    fps: float = 24.0
    chunk_frames: int = 11
    made: int = 0

    def make(self, prompt, num_frames, seed):
        clip = moving(-(-num_frames // 11) * 11, seed=seed)
        for start in range(0, len(clip), 11):
            self.made += 1
            yield clip[start : start + 11]


def test_a_model_is_driven_and_resumed(tmp_path):
    camera = Camera()
    outcome = run(from_model(camera, PROMPTS, num_frames=30), config(tmp_path))
    assert outcome.scored == 3 and camera.made == 9
    content = offline(tmp_path)
    assert content["frames_backend"] == "lossless" and content["model"] == "camera"
    assert content["per_video_results"][0]["info"]["chunk_frames"] == 11
    assert len(content["per_video_results"][0]["seam_ratios"]) == 2
    assert run(from_model(camera, PROMPTS, num_frames=30), config(tmp_path)).kept == 3 and camera.made == 9
    camera.identity = "camera-2"
    assert run(from_model(camera, PROMPTS, num_frames=30), config(tmp_path)).scored == 3 and camera.made == 18


@pytest.mark.parametrize("change", ["precision", "device", "version", "settings", "weights"])
def test_figures_of_another_run_are_not_kept(change, monkeypatch):
    """Whatever may change a frame changes the identity under which records are kept."""
    facts = {"precision": Precision(dtype="float32"), "device": torch.device("cpu:0")}
    info = {"identity": "weights 1", "path": Path("m"), "geometry": SimpleNamespace(chunk_frames=33)}
    settings = {"steps": (1, 1, 1)}

    def fingerprint():
        maker = HeliosMaker(SimpleNamespace(info=SimpleNamespace(**info), **facts), settings)
        return MadeVideo(maker=maker, id=2, prompt="a", num_frames=33, seed=0).fingerprint()

    before = fingerprint()
    assert fingerprint() == before
    if change == "precision":
        facts["precision"] = Precision(dtype="float32", vae_dtype="bfloat16")
    elif change == "device":
        facts["device"] = torch.device("cuda:0")
    elif change == "version":
        monkeypatch.setattr("helios.bench.maker.__version__", "99.0")
    elif change == "settings":
        settings["steps"] = (2, 2, 2)
    else:
        info["identity"] = "weights 2"
    assert fingerprint() != before


def test_the_plot_library_is_asked_for_before_the_measurement(monkeypatch, capsys, videos, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("helios.bench.quality.run", lambda *given: pytest.fail("measured first"))
    assert command(["bench", "quality", str(videos), "-o", str(tmp_path)]) == 2
    assert "helios[bench]" in capsys.readouterr().err


def test_a_model_that_stops_early_is_a_failed_video(tmp_path):
    class Short(Camera):
        def make(self, prompt, num_frames, seed):
            yield from list(super().make(prompt, num_frames, seed))[:-1]

    outcome = run(from_model(Short(), PROMPTS, num_frames=30), config(tmp_path))
    assert len(outcome.failed) == 3 and outcome.exit_code == 1
    assert "only 22 of 30 frames" in next(iter(outcome.failed.values()))


def test_the_same_clip_scores_alike_from_memory_and_from_a_nearly_lossless_file(tmp_path):
    clip = moving(40, seed=2)
    (tmp_path / "v").mkdir()
    write_mp4(tmp_path / "v" / "2_120_ori40.mp4", clip, crf=1)

    class Player(Camera):
        def make(self, prompt, num_frames, seed):
            yield clip

    listings = {
        "file": from_folder(tmp_path / "v", PROMPTS),
        "memory": from_model(Player(), [PROMPTS.get(2)], num_frames=40),
    }
    found = {}
    for name, listing in listings.items():
        reading = Reading(backend="av", chunk_frames=11)
        found[name] = run(listing, config(tmp_path / name, reading=reading)).merged["offline"]["averages"]
    for value in ("smoothness_dis", "drift_luma_mean", "flicker", "seam_max", "flow_mag_dis", "repeat_ratio"):
        assert found["file"][value] == pytest.approx(found["memory"][value], rel=0.1, abs=3e-3), value


def test_a_list_of_files(videos, tmp_path):
    other = tmp_path / "holiday.mp4"
    other.write_bytes((videos / "2_120_ori30.mp4").read_bytes())
    listing = from_files([videos / "7_120_ori30.mp4", other], PROMPTS)
    assert [(video.id, video.prompt) for video in listing.videos] == [(7, "prompt 7"), (None, None)]
    assert run(listing, config(tmp_path / "out", metrics=("temporal",))).scored == 2
    with pytest.raises(InputError, match="two files are named"):
        from_files([other, other])
    with pytest.raises(InputError, match="no files given"):
        from_files([])


def test_folders_that_cannot_be_scored(tmp_path):
    with pytest.raises(InputError, match="holds no videos"):
        from_folder(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        from_folder(tmp_path / "absent")
    with pytest.raises(InputError, match="0 prompts"):
        from_model(Camera(), [])


def test_two_files_of_one_id(videos, tmp_path):
    for name in ("2_120_ori30.mp4", "2_240_ori30.mp4"):
        (tmp_path / name).write_bytes((videos / "2_120_ori30.mp4").read_bytes())
    listing = from_folder(tmp_path)
    assert len(listing.videos) == 1 and listing.skipped[0] == (
        "2_240_ori30.mp4",
        "prompt id 2 is already taken by 2_120_ori30.mp4",
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": "medium"}, "mode='medium'"),
        ({"tier": "b"}, "tier='b'"),
        ({"rules": "mine"}, "rules='mine'"),
        ({"workers": -1}, "workers=-1"),
    ],
)
def test_settings_are_checked(tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        config(tmp_path, **changes)


def test_a_run_in_which_no_metric_can_run(videos, tmp_path):
    with pytest.raises(InputError, match="none of the metrics can run: aesthetic needs"):
        run(from_folder(videos, PROMPTS), config(tmp_path, tier="official", metrics=("aesthetic",)))


def test_the_official_rules_keep_the_zero_of_a_single_frame(tmp_path):
    (tmp_path / "v").mkdir()
    write_mp4(tmp_path / "v" / "2_120_ori1.mp4", moving(1))
    listing = from_folder(tmp_path / "v", PROMPTS)
    official = run(listing, config(tmp_path / "a", tier="official", rules="official"))
    assert (
        official.failed == {}
        and json.loads((tmp_path / "a" / "motion_amplitude_results.json").read_text())["average_score"] == 0
    )
    corrected = run(listing, config(tmp_path / "b", tier="official"))
    assert "needs 2 frames" in corrected.failed["2_120_ori1.mp4"]
    assert not (tmp_path / "b" / "motion_amplitude_results.json").exists()


def test_amplitude_can_be_added_to_the_offline_tier(videos, tmp_path):
    outcome = run(from_folder(videos, PROMPTS), config(tmp_path, metrics=("temporal", MotionAmplitude().name)))
    assert "motion_amplitude" in outcome.merged["summary"]["non_drifting"]
    assert "flow_mag" in offline(tmp_path)["averages"]


def test_the_report_holds_everything_in_one_file(videos, tmp_path):
    for name in ("first", "second"):
        run(from_folder(videos, PROMPTS), config(tmp_path / name, tier="all"))
    page = write_report(
        [tmp_path / "first", tmp_path / "second"], tmp_path / "report.html", fps={"first": 3.1}
    ).read_text()
    assert page.startswith("<!doctype html>")
    for text in ("Drift over time", "Contact sheets", "Helios-Distilled", "motion_amplitude", "missing aesthetic"):
        assert text in page
    assert page.count("data:image/jpeg;base64,") == 6 and page.count("<svg") >= 8
    assert 'src="http' not in page and "<script" not in page and "<link" not in page


def test_the_report_escapes_names(videos, tmp_path):
    run(from_folder(videos, PROMPTS), config(tmp_path / "a", metrics=("temporal",)))
    page = write_report({"<b>bold</b>": tmp_path / "a"}, tmp_path / "r.html").read_text()
    assert "<b>bold</b>" not in page and "&lt;b&gt;bold&lt;/b&gt;" in page


def test_a_judge_that_babbles_drops_that_video_and_says_so(videos, tmp_path):
    server = FakeJudge()
    server.replies = ["4", "I cannot rate this", "2"]
    judge = JudgeConfig(base_url=server.url, model="local", backoff_s=0)
    settings = {"tier": "official", "mode": "short", "metrics": ("naturalness",), "judge": judge}
    outcome = run(from_folder(videos, PROMPTS), config(tmp_path, **settings))
    server.server.shutdown()
    content = json.loads((tmp_path / "naturalness_results.json").read_text())
    assert content["average_score"] == 0.5 and content["num_videos"] == 2 and content["num_failed"] == 1
    assert "I cannot rate this" in content["failed"]["7_120_ori30.mp4"] and outcome.exit_code == 1
    assert (content["model_name"], content["num_frames_per_video"]) == ("local", 16)
    assert [row["raw_score"] for row in content["per_video_results"]] == ["4", "2"]
    assert outcome.merged["summary"]["total_weighted_rating"] is None
