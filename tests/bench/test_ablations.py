"""The ablation script on made-up numbers and on the renderer's own clips: rule, table, figures; no model is run."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from helios.bench.toy import heldout_clips
from helios.conditioning.history import FirstFrameAnchor, History
from helios.shapes import Geometry

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import ablations
from ablations import MODELS, REFERENCE, RENDERER, RESEEDED, Renderer, Settings, judge

BASE = np.array([0.5, 0.6, 0.4, 0.5, 0.55, 0.45])
NOISE = np.array([0.02, -0.02, 0.01, -0.01, 0.02, -0.02])
SETTINGS = Settings(count=len(BASE), chunks=2)


@pytest.mark.parametrize(
    "lacking, reseeded, higher, holds",
    [
        (BASE + 0.1 + NOISE, None, False, "yes"),
        (BASE + 0.1 + NOISE, None, True, "no"),
        (BASE - 0.1 + NOISE, None, True, "yes"),
        (BASE + 0.005 + NOISE, None, False, "not resolved"),
        (BASE, None, False, "not resolved"),
        (BASE + 0.1 + NOISE, BASE + 0.05, False, "yes"),
        (BASE + 0.1 + NOISE, BASE - 0.2, False, "not resolved"),
    ],
)
def test_a_difference_counts_beyond_two_standard_errors_and_beyond_another_seed(lacking, reseeded, higher, holds):
    verdict = judge(BASE, lacking, reseeded, higher_is_better=higher)
    assert verdict.holds == holds
    assert abs(verdict.gain) == pytest.approx(abs(np.mean(BASE - lacking)))
    assert verdict.error == pytest.approx(np.std(BASE - lacking, ddof=1) / np.sqrt(len(BASE)))


def entry(name, **shifts):
    figures = ("first", "last", "colour", "saturation", "contrast", "seam", "detail", "flow", "kept")
    made = {figure: (BASE + shifts.get(figure, 0)).tolist() for figure in figures}
    made["distances"] = np.zeros((len(BASE), SETTINGS.chunks)).tolist()
    training = {"steps": 3, "seconds": 4}
    facts = {"settings": SETTINGS.of(name), "steps": [4, 4, 4], "training": training, "machine": "m", "command": "c"}
    return facts | {"figures": made}


def test_the_table_judges_what_was_measured_alike(tmp_path):
    entries = {
        RENDERER: entry(RENDERER),
        REFERENCE: entry(REFERENCE, flow=-0.1),
        "undamaged": entry("undamaged", colour=0.2, last=0.05),
        "no_i2v": entry("no_i2v", flow=-0.3),
        "no_anchor": entry("no_anchor") | {"settings": Settings(count=99).of("no_anchor")},
    }
    page = ablations.page(entries, SETTINGS)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    verdicts = {(row[0], row[1]): row[-1] for row in rows if len(row) == 8}
    assert verdicts["Easy Anti-Drifting", "colours drift less"] == "yes"
    assert verdicts["Easy Anti-Drifting", "the end still shows the sentence"] == "no"
    assert verdicts["I2V branch", "the first second after a picture moves more"] == "yes"
    assert verdicts["first-frame anchor", "colours drift less"] == "not measured"
    movement = ablations.comparable(entries, SETTINGS)[REFERENCE]["movement"]
    assert movement.mean() == pytest.approx(0.4 / 0.5)
    entries[RESEEDED] = entry(RESEEDED, colour=0.3)
    assert "0.20 ± 0.00" not in page and "+20.00 ± 0.00 | 30.00 | not resolved" in ablations.page(entries, SETTINGS)
    ablations.plot(ablations.comparable(entries, SETTINGS), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_every_claim_names_a_model_and_a_figure():
    for claim in ablations.CLAIMS:
        assert {claim.having, claim.lacking} <= set(MODELS) and claim.figure in ablations.FIGURES


def test_figures_of_real_clips_and_of_one_that_darkens():
    clips = heldout_clips(1)
    scene, _ = clips.describe(0)
    frames = Renderer(clips=clips).from_text(0, 2)
    real = ablations.read_video(frames, scene)
    assert real["first"] == real["last"] == 1 and real["distances"][0] == 0
    frames[33:] //= 2
    dark = ablations.read_video(frames, scene)
    assert dark["colour"] > real["colour"] + 0.05 and dark["detail"] == real["detail"]
    assert ablations.read_start(np.repeat(frames[:1], 33, axis=0), scene)["flow"] < 0.01
    assert set(ablations.read_video(frames[:33], scene)) == {"first", "detail"}


def test_an_empty_anchor_leaves_the_newest_latent_alone():
    geometry = Geometry()
    window = torch.randn(1, geometry.latent_channels, geometry.history.total, 4, 4)
    history = History(window_BCTHW=window, anchor_BCTHW=torch.ones_like(window[:, :, :1]), anchored=True)
    empty, usual = (policy.split(history, geometry) for policy in (ablations.EmptyAnchor(), FirstFrameAnchor()))
    assert empty.short_BCTHW[:, :, 0].abs().max() == 0 and usual.short_BCTHW[:, :, 0].min() == 1
    assert empty.short_BCTHW[:, :, 1:].equal(window[:, :, -1:]) and empty.long_BCTHW.equal(usual.long_BCTHW)
