"""What each part of the method is worth on the toy world: short runs that differ in one thing, and a verdict per claim.

helios train ablations -w runs/toy
python benchmarks/ablations.py runs/toy

Rolls out what the phases of `recipes/ablations.py` exported, on sentences that training never sees; a sentence's number
is the seed, so all models draw from the same noise. Writes ablations.json, ablations.md and ablations.png into
benchmarks/results/ablations. A model that was measured with the same weights and settings is not measured again; one
that is not trained yet is left out.

K sentences, F pixel frames, H W pixel height and width.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import torch
import typer
from rich.progress import track

from helios import Helios
from helios.bench.frames.lossless import ChunkSource
from helios.bench.metrics.motion import farneback
from helios.bench.metrics.statistics import NAMES, frame_statistics
from helios.bench.metrics.temporal import seam_ratios
from helios.bench.plots import save
from helios.bench.records import write_json
from helios.bench.speed.machine import cpu_line
from helios.bench.speed.work import count_chunk
from helios.bench.toy import heldout_clips
from helios.bench.vision import opencv
from helios.checkpoints import CheckpointInfo, Variant, inspect
from helios.cli.options import parse_steps
from helios.conditioning.guidance import ClassifierFree, Guidance, NoGuidance
from helios.conditioning.history import AnchorPolicy, FirstFrameAnchor, History
from helios.data.toy import CHUNK_FRAMES, FPS, Scene, ToyClips, score
from helios.extras import load_extra
from helios.models.transformer.context import HistoryLatents
from helios.sampling.plan import SamplingPlan
from helios.shapes import Geometry
from helios.training.plans import geometry_for, scheduler_of

RESULTS = Path(__file__).parent / "results" / "ablations"
RENDERER, REFERENCE, RESEEDED, NO_ANCHOR, BASE = "renderer", "reference", "reseeded", "no_anchor", "base"
VARIED = ("undamaged", "noise_only", "blur_only", NO_ANCHOR, "no_i2v")
HISTORY = (REFERENCE, RESEEDED, *VARIED)
DISTILLED = ("ode_then_dmd", "dmd_only", "dmd", "dmd_gan")
MODELS = (RENDERER, *HISTORY, BASE, *DISTILLED)
TRAINED_BEFORE = {"ode_then_dmd": ("ode",)}
COLOURS = ("luma_mean", "lab_a", "lab_b")


@dataclass(frozen=True)
class Figure:
    """One number per sentence; what is shown is ``factor`` times its mean."""

    title: str
    factor: float = 1.0
    higher_is_better: bool = False


FIGURES = {
    "first": Figure("right, first chunk, %", 100, higher_is_better=True),
    "last": Figure("right, last chunk, %", 100, higher_is_better=True),
    "colour": Figure("colour drift", 100),
    "saturation": Figure("saturation drift", 100),
    "contrast": Figure("contrast drift", 100),
    "seam": Figure("seam"),
    "detail_gap": Figure("detail, distance from real clips", 100),
    "movement": Figure("movement after a picture, % of real clips, at most 100", 100, higher_is_better=True),
    "kept": Figure("right after a picture, %", 100, higher_is_better=True),
}


@dataclass(frozen=True)
class Claim:
    """A part of the method, what it is said to do, the models with it and without it, the figure that should show it."""

    part: str
    says: str
    having: str
    lacking: str
    figure: str


CLAIMS = (
    Claim("Easy Anti-Drifting", "colours drift less", REFERENCE, "undamaged", "colour"),
    Claim("Easy Anti-Drifting", "the end still shows the sentence", REFERENCE, "undamaged", "last"),
    Claim("all damages, not noise alone", "colours drift less", REFERENCE, "noise_only", "colour"),
    Claim("all damages, not blur alone", "colours drift less", REFERENCE, "blur_only", "colour"),
    Claim("first-frame anchor", "colours drift less", REFERENCE, NO_ANCHOR, "colour"),
    Claim("I2V branch", "the first second after a picture moves more", REFERENCE, "no_i2v", "movement"),
    Claim("I2V branch", "what the picture shows is kept", REFERENCE, "no_i2v", "kept"),
    Claim("Mid, not Base, at equal compute", "the sentence comes true", REFERENCE, BASE, "first"),
    Claim("ODE start", "the sentence comes true", "ode_then_dmd", "dmd_only", "first"),
    Claim("ODE start", "as much detail as real clips", "ode_then_dmd", "dmd_only", "detail_gap"),
    Claim("GAN beside DMD", "as much detail as real clips", "dmd_gan", "dmd", "detail_gap"),
    Claim("GAN beside DMD", "the sentence comes true", "dmd_gan", "dmd", "first"),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the models are rolled out.

    Args:
        count: sentences.
        chunks: of a video, where the history is what differs; one chunk elsewhere.
        steps: of Mid per level; Base gets as many as cost the same.
        guidance: plain classifier-free guidance of Base and Mid; 1 for none. Distilled has none.
    """

    count: int = 24
    chunks: int = 10
    steps: tuple[int, ...] = (4, 4, 4)
    guidance: float = 3.0

    @property
    def guide(self) -> Guidance:
        """The rule behind the scale."""
        return ClassifierFree(scale=self.guidance) if self.guidance > 1 else NoGuidance()

    def of(self, model: str) -> dict[str, Any]:
        """The settings that decide a model's figures, as JSON gives them back."""
        known = asdict(self) | {"steps": list(self.steps)}
        if model in DISTILLED:
            return {"count": self.count}
        less = {RENDERER: ("steps", "guidance"), BASE: ("chunks",)}.get(model, ())
        return {name: value for name, value in known.items() if name not in less}


@dataclass(frozen=True, kw_only=True)
class EmptyAnchor(FirstFrameAnchor):
    """The anchor's slot stays empty, also after a picture: what a model sees that was trained without one."""

    def split(self, history: History, geometry: Geometry) -> HistoryLatents:
        return super().split(history.with_anchor(torch.zeros_like(history.anchor_BCTHW)), geometry)


class Maker(Protocol):
    """Makes frames uint8 [F, H, W, 3] for a sentence, from the text alone or from the first picture of its clip."""

    def from_text(self, sentence: int, chunks: int) -> np.ndarray: ...

    def from_picture(self, sentence: int) -> np.ndarray: ...


@dataclass(frozen=True, kw_only=True)
class Renderer:
    """The clips that the sentences describe: what a perfect model would draw."""

    clips: ToyClips

    def from_text(self, sentence: int, chunks: int) -> np.ndarray:
        return np.concatenate([self.clips.chunk(sentence, number) for number in range(chunks)])

    def from_picture(self, sentence: int) -> np.ndarray:
        return self.clips.chunk(sentence, 0)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A loaded checkpoint and how it samples; no steps are those of its preset."""

    helios: Helios
    clips: ToyClips
    steps: tuple[int, ...] | None = None
    guidance: Guidance = NoGuidance()
    anchor: AnchorPolicy = FirstFrameAnchor()

    def from_text(self, sentence: int, chunks: int) -> np.ndarray:
        return self._roll(sentence, chunks)

    def from_picture(self, sentence: int) -> np.ndarray:
        return self._roll(sentence, 1, image=self.clips.chunk(sentence, 0)[0])

    def _roll(self, sentence: int, chunks: int, **start) -> np.ndarray:
        text, frames = str(self.clips.describe(sentence)[1]), chunks * CHUNK_FRAMES
        prepared = self.helios.prepare(text, num_frames=frames, seed=sentence, steps=self.steps, **start)
        plan = replace(prepared.plan, guidance=self.guidance, anchor=self.anchor)
        return np.concatenate([chunk.frames for chunk in self.helios.open(replace(prepared, plan=plan))])


def make_model(name: str, loaded: Helios, clips: ToyClips, settings: Settings) -> Model:
    """A model with the sampling that it is measured with."""
    if name in DISTILLED:
        return Model(helios=loaded, clips=clips)
    steps = settings.steps
    if name == BASE:
        steps = (equal_steps(loaded.info, settings),)
    anchor = EmptyAnchor() if name == NO_ANCHOR else FirstFrameAnchor()
    return Model(helios=loaded, clips=clips, steps=steps, guidance=settings.guide, anchor=anchor)


def equal_steps(info: CheckpointInfo, settings: Settings) -> int:
    """Steps of Base whose chunk takes as much arithmetic as Mid's, without the VAE."""

    def work(variant: Variant, steps: tuple[int, ...]):
        plan = SamplingPlan(
            geometry=geometry_for(info, variant),
            scheduler=scheduler_of(variant),
            height=info.preset.height,
            width=info.preset.width,
            steps=steps,
            guidance=settings.guide,
        )
        return count_chunk(info.transformer_config, info.vae_config, plan, text_tokens=info.text_tokens)

    one = work(Variant.BASE, (1,))
    return max(1, round((work(Variant.MID, settings.steps).denoise - one.history) / one.levels[0]))


def measure(maker: Maker, clips: ToyClips, chunks: int, *, pictures: bool) -> dict[str, list]:
    """Figures of every sentence."""
    rows = []
    for sentence in track(range(len(clips)), disable=not sys.stderr.isatty()):
        scene, _ = clips.describe(sentence)
        row = read_video(maker.from_text(sentence, chunks), scene)
        rows.append(row | (read_start(maker.from_picture(sentence), scene) if pictures else {}))
    return {name: [row[name] for row in rows] for name in rows[0]}


def read_video(frames_FHWC: np.ndarray, scene: Scene) -> dict[str, Any]:
    """Figures of a video of whole chunks; those about drift are of its first chunk against its last."""
    chunks = frames_FHWC.reshape(-1, CHUNK_FRAMES, *frames_FHWC.shape[1:])
    looks = [_look(chunk) for chunk in chunks]
    first, last = looks[0], looks[-1]
    row: dict[str, Any] = {"first": _right(chunks[0], scene), "detail": first["sharpness"]}
    if len(chunks) == 1:
        return row
    steps = np.abs(np.diff(frames_FHWC.astype(np.int16), axis=0)).mean((1, 2, 3)) / 255
    distances = [float(np.linalg.norm([look[name] - first[name] for name in COLOURS])) for look in looks]
    return row | {
        "last": _right(chunks[-1], scene),
        "colour": distances[-1],
        "saturation": abs(last["saturation"] - first["saturation"]),
        "contrast": abs(last["luma_std"] - first["luma_std"]),
        "seam": float(seam_ratios(steps, CHUNK_FRAMES).mean()),
        "distances": distances,
    }


def read_start(frames_FHWC: np.ndarray, scene: Scene) -> dict[str, float]:
    """Figures of a chunk that began with a picture: mean length of the optical flow in its first second, in pixels a
    frame, and the share of right attributes.
    """
    grey = [opencv().cvtColor(frame, opencv().COLOR_RGB2GRAY) for frame in frames_FHWC[:FPS]]
    flow = [np.linalg.norm(farneback(before, after), axis=-1).mean() for before, after in pairwise(grey)]
    return {"flow": float(np.mean(flow)), "kept": _right(frames_FHWC, scene)}


def _look(frames_FHWC: np.ndarray) -> dict[str, float]:
    """Exposure, colour and sharpness, averaged over frames."""
    source = ChunkSource([frames_FHWC], name="chunk", num_frames=len(frames_FHWC))
    rows = [frame_statistics(frame.offline, frame.grey, frame.lab) for frame in source.frames()]
    return dict(zip(NAMES, np.mean(rows, axis=0).tolist()))


def _right(frames_FHWC: np.ndarray, scene: Scene) -> float:
    return float(np.mean(list(score(frames_FHWC, scene).values())))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a claim holds for these models.

    Attributes:
        gain: mean advantage over sentences of having the part, in the figure's own unit; below 0 a disadvantage.
        error: its standard error over sentences.
        chance: what another seed of training makes of the same figure; 0 where that was not measured.
        holds: yes, no (the opposite is true), or not resolved.
    """

    gain: float
    error: float
    chance: float
    holds: str


def judge(
    having_K: np.ndarray, lacking_K: np.ndarray, reseeded_K: np.ndarray | None = None, *, higher_is_better: bool
) -> Verdict:
    """The rule: a difference counts when it is more than two standard errors over sentences, and more than the
    difference to the same model trained from another seed.

    Args:
        having_K, lacking_K: a figure of the models with and without the part, on the same sentences from the same noise.
        reseeded_K: of the model with the part, trained from another seed; None where there is none.
    """
    gain_K = (having_K - lacking_K) * (1 if higher_is_better else -1)
    gain, error = float(gain_K.mean()), float(gain_K.std(ddof=1) / np.sqrt(len(gain_K)))
    chance = 0.0 if reseeded_K is None else abs(float((having_K - reseeded_K).mean()))
    least = max(2 * error, chance)
    holds = "yes" if gain > least else "no" if gain < -least else "not resolved"
    return Verdict(gain=gain, error=error, chance=chance, holds=holds)


def comparable(entries: Mapping[str, dict], settings: Settings) -> dict[str, dict[str, np.ndarray]]:
    """Per model its figures by sentence, of those that were measured with these settings.

    Movement is in shares of the renderer's mean, cut at 1 because flicker counts as movement; detail becomes its distance from the renderer's on the same sentence.
    """
    found = {
        name: {figure: np.array(values) for figure, values in entries[name]["figures"].items()}
        for name in MODELS
        if name in entries and entries[name]["settings"] == settings.of(name)
    }
    for figures in found.values() if RENDERER in found else ():
        figures["detail_gap"] = np.abs(figures["detail"] - found[RENDERER]["detail"])
        if "flow" in figures:
            figures["movement"] = np.minimum(figures["flow"] / found[RENDERER]["flow"].mean(), 1.0)
    return found


def verdicts(found: Mapping[str, Mapping[str, np.ndarray]]) -> dict[Claim, Verdict]:
    """Of the claims whose two models were measured."""
    judged = {}
    for claim in CLAIMS:
        having, lacking = (found.get(name, {}).get(claim.figure) for name in (claim.having, claim.lacking))
        if having is not None and lacking is not None:
            reseeded = found.get(RESEEDED, {}).get(claim.figure) if claim.having == REFERENCE else None
            higher = FIGURES[claim.figure].higher_is_better
            judged[claim] = judge(having, lacking, reseeded, higher_is_better=higher)
    return judged


def claims_table(found: Mapping[str, Mapping[str, np.ndarray]]) -> list[str]:
    """One row per claim; Markdown."""
    lines = [
        "| part | claim | figure | with | without | gain | another seed | holds here? |",
        "|---|---|---|--:|--:|--:|--:|---|",
    ]
    judged = verdicts(found)
    for claim in CLAIMS:
        figure, verdict = FIGURES[claim.figure], judged.get(claim)
        start = f"| {claim.part} | {claim.says} | {figure.title} |"
        if verdict is None:
            lines.append(f"{start} | | | | not measured |")
            continue
        with_, without = (found[name][claim.figure].mean() * figure.factor for name in (claim.having, claim.lacking))
        gain, error, chance = (value * figure.factor for value in (verdict.gain, verdict.error, verdict.chance))
        seed = f"{chance:.2f}" if chance else ""
        lines.append(f"{start} {with_:.2f} | {without:.2f} | {gain:+.2f} ± {error:.2f} | {seed} | {verdict.holds} |")
    return lines


def models_table(entries: Mapping[str, dict], found: Mapping[str, Mapping[str, np.ndarray]]) -> list[str]:
    """One row per model: training, sampling, every figure; Markdown."""
    titles = " | ".join(figure.title for figure in FIGURES.values())
    lines = [f"| model | trained: steps, s | sampling | {titles} |", "|---|--:|---|" + "--:|" * len(FIGURES)]
    for name, figures in found.items():
        entry = entries[name]
        training = ", ".join(str(value) for value in entry["training"].values() if value)
        steps = "+".join(map(str, entry["steps"]))
        cells = (
            f"{figures[key].mean() * figure.factor:.2f}" if key in figures else "" for key, figure in FIGURES.items()
        )
        lines.append(f"| {name} | {training} | {steps} | {' | '.join(cells)} |")
    return lines


RULE = """A claim holds (yes) when the part's advantage, over the same sentences from the same noise, is more than two standard
errors over sentences and, where another seed was trained, more than the difference that it makes; no when that is true of the
disadvantage; otherwise not resolved. After ± stands one standard error. No other repetition of training is in it."""


def page(entries: Mapping[str, dict], settings: Settings) -> str:
    """Both tables, the rule, and where the numbers come from; Markdown."""
    found = comparable(entries, settings)
    where = dict.fromkeys(f"`{entries[name]['command']}`, {entries[name]['machine']}  " for name in found)
    parts = [claims_table(found), [RULE], models_table(entries, found), [f"{_described(settings)}  ", *where]]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _described(settings: Settings) -> str:
    guided = f"guidance {settings.guidance:g}" if settings.guidance > 1 else "no guidance"
    return (
        f"{settings.count} sentences; {settings.chunks} chunks a video where the history differs, one elsewhere; "
        f"Base and Mid with {guided}, Distilled without."
    )


def plot(found: Mapping[str, Mapping[str, np.ndarray]], path: Path) -> None:
    """Left the gain of every claim in standard errors, right how colours leave those of the first chunk."""
    load_extra("matplotlib", extra="bench")
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(10, 4), layout="constrained")
    left, right = canvas.subplots(1, 2, width_ratios=(1, 1))
    _plot_gains(left, verdicts(found))
    _plot_distances(right, {name: found[name]["distances"] for name in found if "distances" in found[name]})
    save(canvas, path)


def _plot_gains(axes, judged: Mapping[Claim, Verdict]) -> None:
    colours = {"yes": "tab:green", "no": "tab:red", "not resolved": "tab:gray"}
    axes.axvspan(-2, 2, color="tab:gray", alpha=0.15)
    for row, verdict in enumerate(judged.values()):
        errors = verdict.gain / verdict.error if verdict.error else 0.0
        axes.plot(float(np.clip(errors, -10, 10)), row, "o", color=colours[verdict.holds])
    axes.set_yticks(range(len(judged)), [f"{claim.part}: {claim.figure}" for claim in judged], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("gain / standard error; green holds, red is the opposite")


def _plot_distances(axes, distances: Mapping[str, np.ndarray]) -> None:
    for name, distances_KN in distances.items():
        seconds = (np.arange(distances_KN.shape[1]) + 0.5) * CHUNK_FRAMES / FPS
        own = {RENDERER: ":", REFERENCE: "-"}.get(name, "--")
        axes.plot(seconds, 100 * distances_KN.mean(0), own, linewidth=1.2, label=name)
    axes.set_xlabel("seconds")
    axes.set_title("colour distance from the first chunk", fontsize=9)
    if distances:
        axes.legend(fontsize=6)


def main(
    workspace: Annotated[Path, typer.Argument(help="Of `helios train ablations`.")],
    only: Annotated[str | None, typer.Option("--only", help="Measure these, separated by commas.")] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=2, help="Sentences.")] = 24,
    chunks: Annotated[int, typer.Option("--chunks", min=2, help="Of a video, where the history differs.")] = 10,
    steps: Annotated[str, typer.Option("--steps", help="Of Mid.")] = "4,4,4",
    guidance: Annotated[float, typer.Option("--guidance", help="Of Base and Mid; 1 for none.")] = 3.0,
    threads: Annotated[int, typer.Option("--threads")] = 2,
    out: Annotated[Path, typer.Option("--out", "-o")] = RESULTS,
) -> None:
    """Measure what is trained and not measured yet; write the tables and the plot."""
    torch.set_num_threads(threads)
    settings = Settings(count=count, chunks=chunks, steps=parse_steps(steps), guidance=guidance)
    out.mkdir(parents=True, exist_ok=True)
    file = out / "ablations.json"
    entries = json.loads(file.read_text()) if file.is_file() else {}
    for name in _chosen(only):
        model = folder_of(workspace, name) / "model"
        if name != RENDERER and not model.is_dir():
            typer.echo(f"{name}: not trained yet, left out", err=True)
            continue
        identity = RENDERER if name == RENDERER else inspect(model).identity
        known = entries.get(name, {})
        if (known.get("identity"), known.get("settings")) == (identity, settings.of(name)):
            typer.echo(f"{name}: measured already", err=True)
            continue
        typer.echo(name, err=True)
        entries[name] = {"identity": identity, **measured(name, workspace, settings)}
        write_json(file, entries)
    (out / "ablations.md").write_text(page(entries, settings))
    plot(comparable(entries, settings), out / "ablations.png")
    typer.echo(page(entries, settings))


def measured(name: str, workspace: Path, settings: Settings) -> dict[str, Any]:
    """What is kept of a model."""
    clips = heldout_clips(settings.count)
    maker: Maker = Renderer(clips=clips)
    used: Sequence[int] = ()
    if name != RENDERER:
        loaded = Helios.from_pretrained(folder_of(workspace, name) / "model", device="cpu", dtype="float32")
        maker = make_model(name, loaded, clips, settings)
        used = maker.steps or loaded.info.preset.steps
    began = time.perf_counter()
    long = name == RENDERER or name in HISTORY
    figures = measure(maker, clips, settings.chunks if long else 1, pictures=long)
    return {
        "settings": settings.of(name),
        "steps": list(used),
        "training": trained([folder_of(workspace, phase) for phase in (*TRAINED_BEFORE.get(name, ()), name)]),
        "seconds": round(time.perf_counter() - began, 1),
        "machine": cpu_line(torch.get_num_threads()),
        "command": "python benchmarks/ablations.py " + " ".join(sys.argv[1:]),
        "figures": figures,
    }


def folder_of(workspace: Path, name: str) -> Path:
    """Where a phase of the recipe ran."""
    return workspace / f"ablations.{name}"


def trained(folders: Sequence[Path]) -> dict[str, int]:
    """Steps of some phases, and seconds: their steps times what one took on average in the end."""
    total = {"steps": 0, "seconds": 0}
    for folder in folders:
        file = folder / "metrics.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
        for line in [line for line in lines if "seconds_per_step" in line][-1:]:
            total["steps"] += line["step"]
            total["seconds"] += round(line["step"] * line["seconds_per_step"])
    return total


def _chosen(only: str | None) -> list[str]:
    names = list(MODELS) if only is None else [RENDERER, *(name.strip() for name in only.split(","))]
    for name in names:
        if name not in MODELS:
            raise typer.BadParameter(f"there is no ablation {name!r}: use {', '.join(MODELS)}")
    return list(dict.fromkeys(names))


if __name__ == "__main__":
    typer.run(main)
