"""How well the small models do what they are told, read from the pixels: attributes, tasks, drift, speed.

python benchmarks/small_models.py text --model small-distilled --steps 2,2,2
python benchmarks/small_models.py image|video|timeline|drift|renderer --model small-distilled

Every run adds one entry to benchmarks/results/small/results.json and writes the tables of docs/small-model.md from all of
them.
Sentences are held out: combinations of attributes and phrasings that training never sees; seeds are their numbers.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from helios import Helios
from helios.bench.records import write_json
from helios.bench.speed.machine import cpu_line
from helios.bench.toy import SEED, heldout_clips
from helios.cli.options import parse_steps
from helios.conditioning.timeline import Cue, Timeline
from helios.data.toy import (
    ATTRIBUTES,
    CHANCE,
    CHUNK_FRAMES,
    FPS,
    SMALL_WORLD,
    ToyChanges,
    ToyClips,
    score,
    score_segments,
)

RESULTS = Path(__file__).parent / "results" / "small"
PAGE = Path(__file__).parents[1] / "docs" / "small-model.md"
BEGIN, END = "<!-- tables of benchmarks/small_models.py -->", "<!-- end of tables -->"
DRIFT_FRAMES = 1452

Verdicts = list[dict[str, bool]]


class Run:
    """One model with its settings; counts frames and seconds."""

    def __init__(self, model: str, steps: tuple[int, ...] | None, guidance: float | None, threads: int):
        torch.set_num_threads(threads)
        self.helios = Helios.from_pretrained(model, device="cpu", dtype="float32")
        preset = self.helios.info.preset
        self.steps = preset.steps if steps is None else steps
        self.guidance = getattr(preset.guidance, "scale", 1.0) if guidance is None else guidance
        self.frames, self.seconds = 0, 0.0

    def __call__(self, prompt: str | None, num_frames: int, seed: int, **more) -> np.ndarray:
        began = time.perf_counter()
        frames = self.helios.generate(
            prompt, num_frames=num_frames, seed=seed, steps=self.steps, guidance=self.guidance, **more
        ).frames
        self.frames, self.seconds = self.frames + len(frames), self.seconds + time.perf_counter() - began
        return frames


def text(run: Run, count: int) -> dict[str, Verdicts]:
    """One chunk from a sentence."""
    clips = heldout_clips(count)
    return {"": [_judge(run(_sentence(clips, k), CHUNK_FRAMES, seed=k), clips, k) for k in _progress(count)]}


def image(run: Run, count: int) -> dict[str, Verdicts]:
    """Two chunks from a sentence and its first picture: is the object kept?"""
    clips = heldout_clips(count)
    made = (run(_sentence(clips, k), 66, seed=k, image=clips.chunk(k, 0)[0]) for k in _progress(count))
    return {"": [_judge(frames, clips, k) for k, frames in enumerate(made)]}


def video(run: Run, count: int) -> dict[str, Verdicts]:
    """Two chunks after two chunks of a clip: does the motion go on?"""
    clips = heldout_clips(count, chunks=2)
    starts = (np.concatenate([clips.chunk(k, c) for c in range(2)]) for k in _progress(count))
    made = (run(_sentence(clips, k), 66, seed=k, video=start) for k, start in enumerate(starts))
    return {"": [_judge(frames, clips, k) for k, frames in enumerate(made)]}


def timeline(run: Run, count: int) -> dict[str, Verdicts]:
    """Three chunks of one sentence, three of another that differs in one attribute: does the change arrive?"""
    clips = ToyChanges(seed=SEED, count=count, chunks=6, split="heldout", complete=True, variety=SMALL_WORLD)
    before, after, changed = [], [], []
    for k in _progress(count):
        change, captions = clips.describe(k)
        first = change.at // CHUNK_FRAMES
        cues = (Cue(chunk=0, prompt=str(captions[0])), Cue(chunk=first, prompt=str(captions[1])))
        halves = score_segments(run(None, 198, seed=k, timeline=Timeline(cues=cues)), change)
        before.append(halves[0])
        after.append(halves[1])
        different = [name for name in ATTRIBUTES if getattr(change.before, name) != getattr(change.after, name)]
        changed.append({"changed": all(halves[1][name] for name in different)})
    return {"before": before, "after": after, "changed": changed}


def drift(run: Run, count: int) -> dict[str, Verdicts]:
    """A minute of one sentence: the first and the last five seconds."""
    clips, window = heldout_clips(count), 5 * FPS
    found: dict[str, Verdicts] = {"first 5 s": [], "last 5 s": []}
    for k in _progress(count):
        frames = run(_sentence(clips, k), DRIFT_FRAMES, seed=k)
        for name, part in (("first 5 s", frames[:window]), ("last 5 s", frames[-window:])):
            found[name].append(_judge(part, clips, k) | _colours(part))
    return found


def renderer(run: Run, count: int) -> dict[str, Verdicts]:
    """The renderer's own clips, through the VAE and back."""
    from helios.checkpoints import load_vae
    from helios.training.methods.vae import to_signed

    clips, vae = heldout_clips(count), load_vae(run.helios.info, "cpu")
    drawn, rebuilt = [], []
    for k in _progress(count):
        frames = clips.chunk(k, 0)
        drawn.append(_judge(frames, clips, k))
        with torch.no_grad():
            latents, _ = vae.encode_moments(to_signed(torch.from_numpy(frames)[None]))
            pixels = vae.to_uint8(vae.decode_raw(latents).clamp(-1, 1))
        rebuilt.append(_judge(pixels[0].numpy(), clips, k))
    return {"renderer": drawn, "renderer, VAE": rebuilt}


TASKS: dict[str, Callable[[Run, int], dict[str, Verdicts]]] = {
    "text": text,
    "image": image,
    "video": video,
    "timeline": timeline,
    "drift": drift,
    "renderer": renderer,
}
COUNTS = {"text": 200, "image": 40, "video": 40, "timeline": 24, "drift": 6, "renderer": 200}


def main(
    task: Annotated[str, typer.Argument(help=", ".join(TASKS))],
    model: Annotated[str, typer.Option("--model", "-m")] = "small-distilled",
    steps: Annotated[str | None, typer.Option("--steps")] = None,
    guidance: Annotated[float | None, typer.Option("--guidance")] = None,
    count: Annotated[int | None, typer.Option("--count", "-n")] = None,
    threads: Annotated[int, typer.Option("--threads")] = 2,
    label: Annotated[str | None, typer.Option("--label", help="In the tables; default: the model's name.")] = None,
) -> None:
    """Measure one task of one model."""
    count = count or COUNTS[task]
    run = Run(model, parse_steps(steps), guidance, threads)
    found = TASKS[task](run, count)
    entry = {
        "task": task,
        "model": label or model,
        "steps": "+".join(map(str, run.steps)),
        "guidance": run.guidance,
        "count": count,
        "accuracy": {name: _means(verdicts) for name, verdicts in found.items()},
        "fps": run.frames / run.seconds if run.seconds else None,
        "hardware": cpu_line(threads),
        "command": "python benchmarks/small_models.py " + " ".join(sys.argv[1:]),
    }
    entries = keep(RESULTS / "results.json", entry, key=("task", "model", "steps", "guidance"))
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables(entries)}\n{END}{rest.split(END)[1]}")
    typer.echo(json.dumps(entry, indent=1))


def keep(path: Path, entry: dict, key: tuple[str, ...]) -> list[dict]:
    """Write an entry into a file of entries, in place of the one with the same ``key``; returns all of them."""
    entries = json.loads(path.read_text()) if path.is_file() else []
    entries = [other for other in entries if any(other[name] != entry[name] for name in key)] + [entry]
    write_json(path, entries)
    return entries


def tables(entries: list[dict]) -> str:
    """One Markdown table per task."""
    lines = []
    for task in TASKS:
        own = [entry for entry in entries if entry["task"] == task]
        if not own:
            continue
        names = list(dict.fromkeys(name for entry in own for part in entry["accuracy"].values() for name in part))
        lines += [f"### {task}", "", f"| model | steps | guidance | videos | {' | '.join(names)} | fps |"]
        lines += ["|---|---|--:|--:|" + "--:|" * (len(names) + 1)]
        for entry in own:
            for part, means in entry["accuracy"].items():
                title = f"{entry['model']}{f', {part}' if part else ''}"
                shares = " | ".join(f"{100 * means[name]:.0f}" if name in means else "" for name in names)
                speed = f"{entry['fps']:.1f}" if entry["fps"] else ""
                lines.append(
                    f"| {title} | {entry['steps']} | {entry['guidance']:g} | {entry['count']} | {shares} | {speed} |"
                )
        if task == "text":
            chance = " | ".join(f"{100 * CHANCE[name]:.0f}" if name in CHANCE else "" for name in names)
            lines.append(f"| chance | | | | {chance} | |")
        lines += ["", *(f"`{entry['command']}`  " for entry in own), f"{own[-1]['hardware']}", ""]
    return "\n".join(lines)


def _sentence(clips: ToyClips, number: int) -> str:
    return str(clips.describe(number)[1])


def _judge(frames: np.ndarray, clips: ToyClips, number: int) -> dict[str, bool]:
    right = score(frames, clips.describe(number)[0])
    return right | {"mean": float(np.mean(list(right.values()))), "all": all(right.values())}


def _colours(frames: np.ndarray) -> dict[str, float]:
    return {"brightness": float(frames.mean()) / 255, "contrast": float(frames.std(axis=(1, 2)).mean()) / 255}


def _means(verdicts: Verdicts) -> dict[str, float]:
    return {name: float(np.mean([verdict[name] for verdict in verdicts])) for name in verdicts[0]}


def _progress(count: int) -> Iterator[int]:
    from rich.progress import track

    return iter(track(range(count), disable=not sys.stderr.isatty()))


if __name__ == "__main__":
    typer.run(main)
