"""Trajectories of a teacher, recorded at the student's time values, for ODE regression.

The teacher (Mid, with guidance) rolls a video out through the same loop that streams. Its schedule holds the student's
points as well as its own, so the trajectory passes exactly through the states from which the student will have to jump.

C channels, T latent frames, H W latent height and width, S text tokens, E width of the text encoder.
"""

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from helios.conditioning.guidance import ClassifierFree, Guidance
from helios.errors import InputError
from helios.noise import AddressedNoise
from helios.sampling.denoise import Denoiser
from helios.sampling.plan import SamplingPlan
from helios.sampling.rollout import ConstantText, rollout, start_state
from helios.schedulers.config import SchedulerConfig
from helios.schedulers.solvers import Solver
from helios.schedulers.tables import LevelSchedule
from helios.training.text import Captions

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OdePair:
    """One prompt's trajectory.

    Attributes:
        captions: the prompt, alone in a tuple (so that it encodes as a clip does).
        texts_SE: its text states where they were stored, alone in a tuple.
        states: for every chunk and level, [n + 1, C, T, H, W] at the level's size: the states at the student's n
            points, and the level's end (partly noisy below full resolution).
    """

    captions: tuple[str, ...]
    states: tuple[tuple[Tensor, ...], ...]
    texts_SE: tuple[Tensor, ...] | None = None

    @property
    def finals(self) -> list[Tensor]:
        """The clean full-resolution latents [C, T, H, W] of every chunk."""
        return [levels[-1][-1] for levels in self.states]


@dataclass(frozen=True)
class _RecordingSolver:
    """A solver that keeps the states it is shown at some points, and its last result."""

    inner: Solver
    wanted: frozenset[int]
    last: int
    kept: list[Tensor]

    def step(self, index: int, velocity: Tensor, x: Tensor) -> Tensor:
        if index in self.wanted:
            self.kept.append(x.float().clone())
        x = self.inner.step(index, velocity, x)
        if index == self.last:
            self.kept.append(x.clone())
        return x


@dataclass(frozen=True, kw_only=True)
class PairScheduler:
    """The teacher's schedule merged with the student's, recording. It stands in for a checkpoint's scheduler.

    Args:
        student: scheduler of the distilled model.
        student_steps: its steps per level.
        solver: the teacher's.
    Attributes:
        levels_kept: the states of every level that was walked, in order; emptied by whoever takes them.
    """

    student: SchedulerConfig
    student_steps: tuple[int, ...]
    solver: str = "unipc"
    levels_kept: list[list[Tensor]] = field(default_factory=list)
    _merged: list[tuple[LevelSchedule, LevelSchedule]] = field(default_factory=list)  # (merged, the student's own)

    @property
    def teacher(self) -> SchedulerConfig:
        """The student's levels and shift under the teacher's solver: equal shifts make equal times of equal sigmas."""
        return replace(self.student, solver=self.solver)

    @property
    def stages(self):
        """The pyramid."""
        return self.student.stages

    @property
    def levels(self) -> int:
        """Resolution levels."""
        return self.student.levels

    def level_schedule(self, level: int, steps: int, tokens: int, *, amplified: bool = False) -> LevelSchedule:
        """The teacher's points and the student's, of an amplified first chunk or of a later one."""
        own = self.student.level_schedule(level, self.student_steps[level], tokens, amplified=amplified)
        merged = self.teacher.level_schedule(level, steps, tokens).merged(own)
        self._merged.append((merged, own))
        return merged

    def make_solver(self, schedule: LevelSchedule, start: Tensor | None = None) -> Solver:
        """The teacher's solver, recording at the student's points of this very schedule."""
        kept: list[Tensor] = []
        self.levels_kept.append(kept)
        own = next(own for merged, own in self._merged if merged is schedule)
        near = [min(abs(sigma - point) for point in own.sigmas[:-1]) < 1e-9 for sigma in schedule.sigmas[:-1]]
        wanted = frozenset(index for index, hit in enumerate(near) if hit)
        return _RecordingSolver(self.teacher.make_solver(schedule, start), wanted, schedule.steps - 1, kept)


@dataclass(frozen=True, kw_only=True)
class PairSettings:
    """How pairs are made.

    Args:
        steps: the teacher's steps per level, to which the student's points are added.
        chunks: of each video.
        guidance: of the teacher.
        negative: its negative prompt.
        seed: of the first prompt; every prompt has its own (the published code used one for all, so that all pairs
            began in the same noise).
        dtype: in which states are stored.
    """

    steps: tuple[int, ...] = (20, 20, 20)
    chunks: int = 5
    guidance: Guidance = ClassifierFree(scale=5.0)
    negative: str = ""
    seed: int = 0
    dtype: torch.dtype = torch.float16

    def __post_init__(self) -> None:
        if self.chunks < 1:
            raise InputError(f"chunks={self.chunks} makes no video: use 1 or more")


def record_pairs(
    teacher: Denoiser,
    student_plan: SamplingPlan,
    captions: Captions,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: PairSettings,
    device: torch.device | str = "cpu",
) -> list[OdePair]:
    """Roll a batch of prompts out with the teacher and keep what the student needs.

    Args:
        teacher: the network of Mid.
        student_plan: how the student will sample (steps, shift, amplified first chunk).
    """
    scheduler = PairScheduler(student=student_plan.scheduler, student_steps=student_plan.steps)
    plan = replace(student_plan, scheduler=scheduler, steps=settings.steps, guidance=settings.guidance)
    text_BSE = captions.encode_prompts(prompts).to(device)
    negative_BSE = captions.encode_prompts([settings.negative] * len(prompts)).to(device)
    with torch.no_grad():
        text = ConstantText(text=teacher.encode_text(text_BSE), negative=teacher.encode_text(negative_BSE))
        state = start_state(plan, len(prompts), device)
        for _ in rollout(teacher, plan, text, state, AddressedNoise(tuple(seeds)), chunks=settings.chunks):
            pass
    kept = [torch.stack(states, dim=1).to("cpu", settings.dtype) for states in scheduler.levels_kept]  # [B, n+1, ...]
    levels = plan.geometry.levels
    chunks = [kept[first : first + levels] for first in range(0, len(kept), levels)]
    return [
        OdePair(
            captions=(prompt,),
            texts_SE=(text_BSE[row].cpu(),),
            states=tuple(tuple(level[row].clone() for level in chunk) for chunk in chunks),
        )
        for row, prompt in enumerate(prompts)
    ]


def write_pairs(
    folder: Path,
    prompts: Sequence[str],
    record: Callable[[Sequence[str], Sequence[int]], list[OdePair]],
    *,
    batch: int = 8,
    seed: int = 0,
    store_text: bool = False,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Record one file per prompt; those that are already there stay, so an interrupted command goes on.

    Args:
        folder: of the files; they are numbered as the prompts are.
        record: makes the pairs of some prompts and seeds (:func:`record_pairs` with everything else bound).
        batch: prompts at a time.
        store_text: keep the text states beside the trajectory, where no text encoder is at hand in training.
        show: told (done, total).
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [number for number in range(len(prompts)) if not _file(folder, number).is_file()]
    for first in range(0, len(missing), batch):
        numbers = missing[first : first + batch]
        made = record([prompts[n] for n in numbers], [seed + n for n in numbers])
        for number, pair in zip(numbers, made):
            _write(_file(folder, number), pair, store_text)
        show(len(prompts) - len(missing) + first + len(numbers), len(prompts))


def all_recorded(folder: Path, prompts: Sequence[str]) -> bool:
    """Whether there is a file of every prompt.

    Raises: InputError when a file is of another prompt.
    """
    there = [number for number in range(len(prompts)) if _file(folder, number).is_file()]
    for number in there:
        recorded = _meta(_file(folder, number))["prompt"]
        if recorded != prompts[number]:
            raise InputError(
                f"{_file(folder, number)} is of the prompt {recorded[:40]!r}, not of {prompts[number][:40]!r}: delete "
                f"{folder} to record it anew, or add prompts at the end only"
            )
    return len(there) == len(prompts)


class OdePairs:
    """The pairs of a folder as a data set.

    Raises: InputError when there are none.
    """

    def __init__(self, folder: Path):
        self.files = sorted(folder.glob("pair-*.safetensors"))
        if not self.files:
            raise InputError(f"{folder} holds no pairs: make them with the teacher first")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> OdePair:
        meta = _meta(self.files[index])
        with safe_open(self.files[index], framework="pt") as file:
            states = tuple(
                tuple(file.get_tensor(f"{chunk}.{level}") for level in range(meta["levels"]))
                for chunk in range(meta["chunks"])
            )
            texts = (file.get_tensor("text"),) if meta["text"] else None
        return OdePair(captions=(meta["prompt"],), states=states, texts_SE=texts)

    def buckets(self) -> list[object]:
        """All pairs have one size."""
        return [0] * len(self.files)


def _file(folder: Path, number: int) -> Path:
    return folder / f"pair-{number:07d}.safetensors"


def _meta(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["pair"])


def _write(path: Path, pair: OdePair, store_text: bool) -> None:
    tensors = {f"{c}.{i}": states for c, levels in enumerate(pair.states) for i, states in enumerate(levels)}
    if store_text:
        tensors["text"] = pair.texts_SE[0].contiguous()
    meta = {"prompt": pair.captions[0], "chunks": len(pair.states), "levels": len(pair.states[0]), "text": store_text}
    unfinished = path.with_suffix(".unfinished")
    save_file(tensors, unfinished, metadata={"pair": json.dumps(meta)})
    os.replace(unfinished, path)
