"""Helios 14B, with the published figures (paper arXiv 2603.04379 and its released configurations).

Global batches are those of the paper; start with ``torchrun`` on as many devices as divide them. Where the authors or
their users found a mistake in the published runs, the corrected setting is here and the docstring says so.
"""

from dataclasses import replace

from helios.training.adapt import MEMORY_PATCHES, LoraTraining
from helios.training.corruption import PerBatchCorruption, Saturation, Stacked
from helios.training.ema import Ema
from helios.training.methods.dmd import DmdConfig
from helios.training.methods.gan import AdversaryConfig
from helios.training.methods.stage2 import PyramidDraws
from helios.training.methods.task import Tasks
from helios.training.network import Bfloat16
from helios.training.optim import Constant, OptimConfig
from helios.training.phase import (
    AdaptStage,
    After,
    DmdStage,
    Heads,
    OdeStage,
    Phase,
    PreparedData,
    PromptPairs,
    PyramidStage,
    StoredText,
    StudentSampling,
    Wan,
)
from helios.training.sample import TaskMix
from helios.training.trainer import RunConfig

PHASES = ("stage1_init", "stage1_post", "stage2_init", "stage2_post", "ode", "dmd", "gan")

# What guidance of the teachers in `ode` and `dmd` leads away from. The published runs used one long fixed text: fill in
# the negative prompt that you sample Base and Mid with, before the pairs of `ode` are recorded.
NEGATIVE = ""

_ALL_PATCHES = ("patch_embedding", *MEMORY_PATCHES)


def stage1_init() -> Phase:
    """Wan to an autoregressive model: fast structural change.

    Corrected: memory patches start from the loaded patch embedding, the image branch is on, all three damages of the
    history are on, and every rank draws for itself.
    """
    corruption = Stacked(parts=(PerBatchCorruption(mode="random"), Saturation()))
    tasks = Tasks(mix=TaskMix.nested(t2v=0.4, i2v=0.1, v2v=0.4), corruption=corruption)
    return Phase(
        name="stage1_init",
        stage=AdaptStage(tasks=tasks),
        start=Wan(source="Wan-AI/Wan2.1-T2V-14B-Diffusers"),
        data=PreparedData(folder="data"),
        text=StoredText(),
        training=LoraTraining(rank=128, patches=("patch_embedding",), full=MEMORY_PATCHES),
        optim=OptimConfig(lr=5e-5, betas=(0.9, 0.999), weight_decay=1e-4, clip=1.0),
        run=RunConfig(steps=5500, batch_size=128, seed=43, save_every=500),
        precision=Bfloat16(),
        dense="bfloat16",
        recompute=True,
    )


def stage1_post() -> Phase:
    """Base: the same with a fresh adapter at a lower rate."""
    base = stage1_init()
    return replace(
        base,
        name="stage1_post",
        start=After(phase="stage1_init"),
        optim=replace(base.optim, lr=3e-5),
        run=replace(base.run, steps=7500, seed=44),
    )


def stage2_init() -> Phase:
    """Three resolutions at once; 64 clips of four draws each are the paper's batch of 256."""
    base = stage1_post()
    return replace(
        base,
        name="stage2_init",
        stage=PyramidStage(tasks=base.stage.tasks, draws=PyramidDraws(per_level=(1, 2, 1))),
        start=After(phase="stage1_post"),
        training=LoraTraining(rank=256, patches=(), full=()),
        optim=replace(base.optim, lr=1e-4, schedule=Constant(warmup=1000)),
        run=replace(base.run, steps=16_000, batch_size=64, seed=45),
    )


def stage2_post() -> Phase:
    """Mid: every level once, patch layers adapted too."""
    base = stage2_init()
    return replace(
        base,
        name="stage2_post",
        stage=replace(base.stage, draws=PyramidDraws(per_level=(1, 1, 1))),
        start=After(phase="stage2_init"),
        training=LoraTraining(rank=256, patches=_ALL_PATCHES, full=()),
        optim=replace(base.optim, lr=3e-5, schedule=Constant(warmup=500)),
        run=replace(base.run, steps=20_000, seed=46),
    )


def ode() -> Phase:
    """Distilled, first half: jump to the teacher's endpoints. 2 to 5 thousand pairs are said to be enough.

    Corrected: every prompt has a seed of its own. Give the prompts as a text file, and ``NEGATIVE``.
    """
    base = stage2_post()
    return replace(
        base,
        name="ode",
        stage=OdeStage(student=StudentSampling(steps=(2, 2, 2), amplify_first_chunk=True, own_size=True)),
        start=After(phase="stage2_post"),
        data=PromptPairs(
            folder="pairs",
            prompts="prompts.txt",
            count=3000,
            steps=(20, 20, 20),
            chunks=5,
            negative=NEGATIVE,
            batch=1,
        ),
        training=LoraTraining(rank=256, patches=MEMORY_PATCHES, full=()),
        optim=OptimConfig(lr=2e-6, betas=(0.0, 0.999), weight_decay=1e-3, clip=10.0),
        ema=Ema(decay=0.99, start=250),
        run=replace(base.run, steps=3759, batch_size=128, seed=47, save_every=250),
    )


def dmd() -> Phase:
    """Distilled, second half: distribution matching to Base. The student's exported weights are its average.

    The moving average starts counting with the student's own updates: 150 of them are the published 750 steps.
    """
    base = ode()
    mix = TaskMix.nested(t2v=0.4, i2v=0.0, v2v=0.5)
    tasks = Tasks(mix=mix, corruption=PerBatchCorruption(mode="noise"))
    config = DmdConfig(tasks=tasks, student_damage=Saturation(), negative=NEGATIVE)
    return replace(
        base,
        name="dmd",
        stage=DmdStage(
            teacher=After(phase="stage1_post"),
            config=config,
            student=base.stage.student,
            critic=LoraTraining(rank=256, patches=(), full=()),
            critic_optim=replace(base.optim, lr=4e-7),
            one_at_a_time=True,
        ),
        start=After(phase="ode"),
        data=PreparedData(folder="data"),
        ema=Ema(decay=0.99, start=150),
        run=replace(base.run, steps=2250, batch_size=128, seed=49),
    )


def gan() -> Phase:
    """A last polish with an adversary on real clips, from a good distilled model.

    Corrected: real chunks are judged under their own history, crops are shared, and the critic takes one optimiser step
    for all of its losses. The smoothness weight starts at a hundredth of the published one, whose two crops differed.
    """
    base = dmd()
    noisy = PerBatchCorruption(mode="random")
    return replace(
        base,
        name="gan",
        stage=replace(
            base.stage,
            config=replace(base.stage.config, tasks=replace(base.stage.config.tasks, corruption=noisy)),
            adversary=Heads(taps=(5, 15, 25, 35), width=768, weights=AdversaryConfig(start=0, smoothness=1.0)),
        ),
        start=After(phase="dmd"),
        run=replace(base.run, steps=2000, seed=50),
    )
