"""The small Helios: every stage of the 14B model on the toy world, from nothing, on a CPU.

64x64 pixels at 24 fps, latents of 16x16, a transformer of 3 million parameters that is trained in full. One command per
phase, in the order of ``PHASES``; each goes on where it was stopped, and ``run.max_minutes`` stops it.
"""

from dataclasses import replace

from helios.conditioning.guidance import ClassifierFree
from helios.data.toy import SMALL_WORLD
from helios.training.adapt import MEMORY_PATCHES, FullTraining
from helios.training.checkpoint import Keep
from helios.training.corruption import PerBatchCorruption, Saturation, Stacked
from helios.training.ema import Ema
from helios.training.encode import EncodeSettings
from helios.training.methods.dmd import CoarseToFine, DmdConfig, ScoreTimes
from helios.training.methods.flow_matching import EmptyPast
from helios.training.methods.gan import AdversaryConfig
from helios.training.methods.ode import OdeLoss
from helios.training.methods.sparse import Excerpt, SparseFrames
from helios.training.methods.stage2 import OneLevel
from helios.training.methods.task import Tasks
from helios.training.methods.vae import Crop, VaeLoss
from helios.training.network import BfloatWhereFast
from helios.training.noise_levels import LogitNormal
from helios.training.optim import Cosine, MuonConfig, OptimConfig
from helios.training.phase import (
    AdaptStage,
    After,
    DmdStage,
    EncodedText,
    Heads,
    OdeStage,
    Phase,
    PretrainStage,
    PromptPairs,
    PyramidStage,
    RolloutProbes,
    Scratch,
    StudentSampling,
    ToyLatents,
    VaeStage,
)
from helios.training.sample import TaskMix
from helios.training.start import SmallModel, SmallText, SmallTransformer, SmallVae
from helios.training.toyworld import ToyWindows, ToyWorld
from helios.training.trainer import RunConfig

PHASES = (
    "vae",
    "vae_decoder",
    "pretrain",
    "pretrain_frames",
    "pretrain_motion",
    "pretrain_paths",
    "pretrain_places",
    "pretrain_times",
    "pretrain_many",
    "pretrain_small",
    "stage1_init",
    "stage1_post",
    "stage2_text",
    "stage2_init",
    "stage2_post",
    "ode",
    "dmd",
    "gan",
)

_WORLD = ToyWorld(height=64, width=64, chunks=5)
_GUIDED = ClassifierFree(scale=3.0)


def vae() -> Phase:
    """The video VAE, on random crops; the latents' statistics are measured at the end."""
    model = SmallModel(
        vae=SmallVae(width=16, widths=(1, 2, 4), channels=8),
        text=SmallText(width=128, layers=2, hidden=256, tokens=40),
        transformer=SmallTransformer(heads=5, head_width=32, rope=(12, 10, 10), hidden=640, layers=6),
        height=64,
        width=64,
        guidance=_GUIDED.scale,
    )
    return Phase(
        name="vae",
        stage=VaeStage(loss=VaeLoss(kl=1e-4), view=Crop(frames=13, size=32), halved=0.35),
        start=Scratch(model=model, corpus=_WORLD),
        data=ToyWindows(world=_WORLD, count=20_000),
        optim=MuonConfig(lr=0.015, schedule=Cosine(warmup=20, floor=0.02)),
        ema=Ema(decay=0.99),
        run=RunConfig(steps=1100, batch_size=8, seed=40, save_every=250),
        precision=BfloatWhereFast(),
    )


def vae_decoder() -> Phase:
    """The decoder alone on whole chunks, whose colours it would shift towards their end; latents stay what they are."""
    base = vae()
    return replace(
        base,
        name="vae_decoder",
        stage=replace(base.stage, view=Crop(frames=33, size=32), halved=0.2),
        start=After(phase="vae"),
        training=FullTraining(frozen=("encoder", "quant_conv")),
        optim=replace(base.optim, lr=0.004, schedule=Cosine(warmup=10, floor=0.02)),
        run=replace(base.run, steps=120, batch_size=4, seed=41, save_every=60),
    )


def pretrain() -> Phase:
    """Our stand-in for Wan: text to video on single chunks, with the text encoder."""
    base = vae()
    return replace(
        base,
        name="pretrain",
        stage=PretrainStage(excerpts=(Excerpt(share=0.8, shrink=2), Excerpt(share=0.2))),
        start=After(phase="vae_decoder"),
        data=ToyLatents(world=replace(_WORLD, chunks=3), encode=EncodeSettings(count=1152, stills=0.25)),
        text=EncodedText(trained=True, dropout=0.1),
        training=FullTraining(frozen=MEMORY_PATCHES),
        optim=MuonConfig(lr=0.02, schedule=Cosine(warmup=50)),
        ema=Ema(decay=0.995),
        run=RunConfig(
            steps=850,
            batch_size=16,
            seed=42,
            save_every=200,
            probe_every=850,
            keep=Keep(last=2, best_by="probe/rollout/attributes", lower_is_better=False),
        ),
        probes=RolloutProbes(count=16, steps=(12,), guidance=_GUIDED, long_chunks=0),
    )


def pretrain_frames() -> Phase:
    """One or two frames of a chunk at full size: what pictures look like."""
    base = pretrain()
    return replace(
        base,
        name="pretrain_frames",
        stage=PretrainStage(excerpts=(Excerpt(frames=SparseFrames(most=2)),)),
        start=After(phase="pretrain"),
        optim=MuonConfig(lr=0.02, schedule=Cosine(warmup=20, floor=0.1)),
        run=replace(base.run, steps=900, batch_size=48, seed=51, probe_every=900),
    )


def pretrain_motion() -> Phase:
    """What is where and how it moves: whole chunks where they are small, a few frames where they are not."""
    base = pretrain_frames()
    few = SparseFrames(most=3, adjacent=0.6)
    return replace(
        base,
        name="pretrain_motion",
        stage=PretrainStage(
            excerpts=(
                Excerpt(share=0.3, shrink=4),
                Excerpt(share=0.25, shrink=2),
                Excerpt(share=0.2, shrink=2, frames=few),
                Excerpt(share=0.25, frames=few),
            )
        ),
        start=After(phase="pretrain_frames"),
        data=ToyLatents(
            folder="latents_short",
            world=replace(_WORLD, chunks=1, seed=1, wordings=12),
            encode=EncodeSettings(count=4096, stills=0.0, seed=1),
        ),
        run=replace(base.run, steps=950, batch_size=64, seed=52, probe_every=950),
    )


def pretrain_paths() -> Phase:
    """Where things go: near-pure noise, in which that is decided, and fewer frames in the less noisy rest."""
    base = pretrain_motion()
    adjacent = SparseFrames(most=3, adjacent=1.0)
    return replace(
        base,
        name="pretrain_paths",
        stage=PretrainStage(
            excerpts=(
                Excerpt(share=0.35, shrink=4, law=LogitNormal(mean=-0.8, std=1.2)),
                Excerpt(share=0.3, shrink=2, law=LogitNormal(mean=-1.2, std=1.2)),
                Excerpt(share=0.2, frames=SparseFrames(most=4, adjacent=0.3), law=LogitNormal(mean=-1.5, std=1.2)),
                Excerpt(share=0.15, frames=adjacent),
            )
        ),
        start=After(phase="pretrain_motion"),
        run=replace(base.run, steps=1050, seed=53, probe_every=1050),
    )


def pretrain_places() -> Phase:
    """The same world with little variety: a frame is then decided by its sentence and its time."""
    base = pretrain_paths()
    far = LogitNormal(mean=-1.2, std=1.2)
    return replace(
        base,
        name="pretrain_places",
        stage=PretrainStage(
            excerpts=(
                Excerpt(share=0.2, shrink=4, law=LogitNormal(mean=-0.8, std=1.2)),
                Excerpt(share=0.38, shrink=2, law=far),
                Excerpt(share=0.32, frames=SparseFrames(most=4, adjacent=0.3), law=far),
                Excerpt(share=0.1, frames=SparseFrames(most=3, adjacent=1.0)),
            )
        ),
        start=After(phase="pretrain_paths"),
        data=replace(
            base.data,
            folder="latents_places",
            world=replace(base.data.world, seed=2, variety=SMALL_WORLD),
            encode=replace(base.data.encode, seed=2),
        ),
        run=replace(base.run, steps=440, seed=54, probe_every=440),
    )


def pretrain_times() -> Phase:
    """The same with an empty history, from which frames learn what time it is: motion and camera."""
    base = pretrain_places()
    return replace(
        base,
        name="pretrain_times",
        stage=PretrainStage(
            excerpts=(
                Excerpt(share=0.25, shrink=4, law=LogitNormal(mean=-0.8, std=1.2)),
                Excerpt(share=0.45, shrink=2, law=LogitNormal(mean=-1.2, std=1.2)),
                Excerpt(share=0.3, frames=SparseFrames(most=3, adjacent=0.3), law=LogitNormal(mean=-0.9, std=1.2)),
            ),
            past=EmptyPast(),
        ),
        start=After(phase="pretrain_places"),
        run=replace(base.run, steps=250, seed=55, probe_every=250),
    )


def pretrain_many() -> Phase:
    """Whole chunks where they are small, of so many clips that their motions cannot be learnt by heart."""
    base = pretrain_times()
    return replace(
        base,
        name="pretrain_many",
        stage=replace(
            base.stage,
            excerpts=(
                Excerpt(share=0.4, shrink=4, law=LogitNormal(mean=-0.8, std=1.2)),
                Excerpt(share=0.45, shrink=2, law=LogitNormal(mean=-1.2, std=1.2)),
                Excerpt(share=0.15, frames=SparseFrames(most=3, adjacent=0.5), law=LogitNormal(mean=-0.7, std=1.2)),
            ),
        ),
        start=After(phase="pretrain_times"),
        data=replace(
            base.data,
            folder="latents_many",
            world=replace(base.data.world, seed=4),
            encode=replace(base.data.encode, count=12_288, seed=4),
        ),
        run=replace(base.run, steps=1100, seed=56, probe_every=1100),
    )


def pretrain_small() -> Phase:
    """The same clips once more, nearly all of them at a half and a quarter of the size: what the pyramid begins with.

    The last weights are kept, not the best: probes sample at full size, which is hardly trained here.
    """
    base = pretrain_many()
    far = LogitNormal(mean=-1.2, std=1.2)
    return replace(
        base,
        name="pretrain_small",
        stage=replace(
            base.stage,
            excerpts=(
                Excerpt(share=0.42, shrink=4, law=far),
                Excerpt(share=0.5, shrink=2, law=far),
                Excerpt(share=0.08, frames=SparseFrames(most=4, adjacent=0.2), law=LogitNormal(mean=-0.9, std=1.2)),
            ),
        ),
        start=After(phase="pretrain_many"),
        run=replace(base.run, steps=960, seed=57, probe_every=960, keep=Keep(last=2)),
    )


def stage1_init() -> Phase:
    """The backbone learns to go on from a history; text encoder frozen from here on.

    Text to video is the first chunk of a clip, one sample in three: later ones begin anywhere.
    """
    base = pretrain()
    tasks = Tasks(
        mix=TaskMix(t2v=0.0, i2v=0.2, v2v=0.25, full=0.55, still=0.7),
        corruption=Stacked(parts=(PerBatchCorruption(mode="random"), Saturation())),
    )
    return replace(
        base,
        name="stage1_init",
        stage=AdaptStage(
            tasks=tasks,
            law=LogitNormal(mean=-0.7, std=1.3),
            sparse=SparseFrames(share=0.7, most=4, adjacent=0.6),
        ),
        start=After(phase="pretrain_small"),
        data=replace(base.data, folder="latents_small", world=replace(base.data.world, seed=3, variety=SMALL_WORLD)),
        text=EncodedText(dropout=0.1),
        training=FullTraining(),
        optim=replace(base.optim, lr=0.01, schedule=Cosine(warmup=20, floor=0.3)),
        run=replace(base.run, steps=180, batch_size=16, seed=43, probe_every=180),
        probes=replace(base.probes, count=8, chunks=2),
    )


def stage1_post() -> Phase:
    """Base: the same at a lower rate, with more whole chunks."""
    base = stage1_init()
    return replace(
        base,
        name="stage1_post",
        start=After(phase="stage1_init"),
        stage=replace(base.stage, sparse=replace(base.stage.sparse, share=0.5)),
        optim=replace(base.optim, lr=0.004, schedule=Cosine(warmup=5, floor=0.02)),
        run=replace(base.run, steps=40, seed=44, probe_every=40),
    )


def stage2_text() -> Phase:
    """Three resolutions, one per step: first chunks alone, of as many clips as pretraining saw."""
    base = stage1_post()
    return replace(
        base,
        name="stage2_text",
        stage=PyramidStage(
            tasks=Tasks(mix=TaskMix(t2v=1.0, i2v=0.0, v2v=0.0, full=0.0)),
            draws=OneLevel(shares=(0.4, 0.4, 0.2), finest=replace(base.stage.sparse, share=0.6)),
        ),
        start=After(phase="stage1_post"),
        data=pretrain_many().data,
        training=FullTraining(frozen=MEMORY_PATCHES),
        optim=replace(base.optim, lr=0.01, schedule=Cosine(warmup=10, floor=0.3)),
        run=replace(base.run, steps=240, batch_size=32, seed=58, probe_every=240),
        probes=replace(base.probes, steps=(6, 6, 6), chunks=1),
    )


def stage2_init() -> Phase:
    """Three resolutions, one per step: first and later chunks."""
    before, base = stage2_text(), stage1_post()
    return replace(
        base,
        name="stage2_init",
        stage=replace(before.stage, tasks=base.stage.tasks),
        start=After(phase="stage2_text"),
        optim=replace(base.optim, lr=0.01, schedule=Cosine(warmup=10, floor=0.2)),
        run=replace(base.run, steps=480, seed=45, probe_every=480),
        probes=replace(before.probes, chunks=2),
    )


def stage2_post() -> Phase:
    """Mid: whole chunks, finer levels more often, at a lower rate."""
    base = stage2_init()
    return replace(
        base,
        name="stage2_post",
        stage=replace(base.stage, draws=OneLevel(shares=(0.3, 0.4, 0.3))),
        start=After(phase="stage2_init"),
        optim=replace(base.optim, lr=0.004, schedule=Cosine(warmup=5, floor=0.02)),
        run=replace(base.run, steps=50, seed=46, probe_every=50),
    )


def ode() -> Phase:
    """Distilled, first half: jump to the teacher's endpoints."""
    base = stage2_post()
    return replace(
        base,
        name="ode",
        stage=OdeStage(loss=OdeLoss(chunks=2), student=StudentSampling(steps=(2, 2, 2))),
        start=After(phase="stage2_post"),
        data=PromptPairs(count=64, steps=(6, 6, 6), chunks=2, guidance=_GUIDED, batch=16),
        text=EncodedText(),
        optim=MuonConfig(lr=0.004, clip=10.0, schedule=Cosine(warmup=5)),
        ema=Ema(decay=0.95, start=10),
        run=replace(base.run, steps=64, batch_size=8, seed=47, probe_every=64),
        probes=replace(base.probes, steps=None, guidance=None),
    )


def dmd() -> Phase:
    """Distilled, second half: distribution matching to Base, with a critic that is trained in full.

    Few steps, so the student moves in every second one, at a higher rate than the published share of the critic's.
    """
    base = ode()
    mix = TaskMix(t2v=0.0, i2v=0.1, v2v=0.4, full=0.5, still=0.7)
    config = DmdConfig(
        tasks=Tasks(mix=mix, corruption=PerBatchCorruption(mode="noise")),
        student_damage=Saturation(),
        times=ScoreTimes(schedule=CoarseToFine(over=10)),
        guidance=2.0,
        student_every=2,
    )
    return replace(
        base,
        name="dmd",
        stage=DmdStage(
            teacher=After(phase="stage1_post"),
            config=config,
            student=base.stage.student,
            critic=FullTraining(),
            critic_optim=OptimConfig(lr=3e-4, betas=(0.0, 0.999), clip=10.0, weight_decay=1e-3),
        ),
        start=After(phase="ode"),
        data=stage1_init().data,
        optim=OptimConfig(lr=1e-4, betas=(0.0, 0.999), clip=10.0, weight_decay=1e-3),
        ema=Ema(decay=0.8, start=2),
        run=replace(base.run, steps=20, seed=49, save_every=10, probe_every=20),
    )


def gan() -> Phase:
    """The last polish: an adversary on real clips."""
    base = dmd()
    heads = Heads(taps=(1, 3, 5), width=96, weights=AdversaryConfig(start=0, smoothness=1.0))
    return replace(
        base,
        name="gan",
        stage=replace(base.stage, adversary=heads),
        start=After(phase="dmd"),
        run=replace(base.run, steps=10, seed=50, save_every=5, probe_every=10),
    )
