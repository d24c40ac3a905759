"""What each part of the method is worth on the toy world: short runs that differ in one thing.

They live in the workspace of the toy recipe and take its latents, its pairs and its models from there:

helios train ablations.reference -w runs/toy
python benchmarks/ablations.py runs/toy

All runs about the history are as long as ``reference`` and start from a backbone that has never seen one, so that what
a run leaves out was not learnt before. What they are compared for is in docs/ablations.md.
"""

from dataclasses import replace

from helios.training.checkpoint import Keep
from helios.training.corruption import AnyCorruption, NoCorruption, PerBatchCorruption
from helios.training.ema import NoEma
from helios.training.methods.stage2 import OneLevel
from helios.training.optim import Cosine
from helios.training.phase import AdaptStage, After, NoProbes, Phase, Start
from helios.training.sample import TaskMix
from recipes import toy

PHASES = (
    "reference",
    "reseeded",
    "undamaged",
    "noise_only",
    "blur_only",
    "no_anchor",
    "no_i2v",
    "base",
    "ode",
    "ode_then_dmd",
    "dmd_only",
    "dmd",
    "dmd_gan",
)

STEPS = 80
DISTILLATION_STEPS = 24
ONE_LEVEL_STEP_S = 1.1
FULL_SIZE_STEP_S = 3.0
"""Seconds of a training step of 16 whole chunks on two CPU cores: at one level of the pyramid, on average over the
levels, and at full size. Their ratio decides how many steps ``base`` has; set both to what the machine takes."""


_MIX = TaskMix(t2v=0.3, i2v=0.1, v2v=0.2, full=0.4, still=0.7)


def reference() -> Phase:
    """Mid in a hurry, with everything: all damages, the anchor, the image branch."""
    base = toy.stage2_init()
    return _short(
        replace(
            base,
            stage=replace(
                base.stage, tasks=replace(base.stage.tasks, mix=_MIX), draws=OneLevel(shares=(0.4, 0.45, 0.15))
            ),
            start=After(phase="pretrain_frames"),
            data=toy.pretrain().data,
            optim=replace(base.optim, lr=0.015, schedule=Cosine(warmup=10, floor=0.02)),
            run=replace(base.run, batch_size=16, seed=61),
        ),
        "reference",
        STEPS,
    )


def reseeded() -> Phase:
    """The reference with another seed: how far two runs differ that differ in nothing."""
    base = reference()
    return replace(base, name="ablations.reseeded", run=replace(base.run, seed=62))


def undamaged() -> Phase:
    """Without Easy Anti-Drifting: a history that is always right."""
    return _with_tasks("undamaged", corruption=NoCorruption())


def noise_only() -> Phase:
    """Of the damages noise alone, as in the published configuration of Base and Mid."""
    return _with_tasks("noise_only", corruption=PerBatchCorruption(mode="noise"))


def blur_only() -> Phase:
    """Of the damages loss of detail alone, down and up again."""
    return _with_tasks("blur_only", corruption=PerBatchCorruption(mode="random", noise=0.0))


def no_anchor() -> Phase:
    """Without the first frame: its slot is always empty, and has to be when the model is sampled."""
    return _with_tasks("no_anchor", mix=replace(_mix(), anchored=False))


def no_i2v() -> Phase:
    """Without the image branch; its share goes to whole histories."""
    mix = _mix()
    return _with_tasks("no_i2v", mix=replace(mix, i2v=0.0, full=mix.full + mix.i2v))


def base() -> Phase:
    """Base instead of Mid, in as many seconds: whole chunks at full size."""
    mid = reference()
    return replace(
        mid,
        name="ablations.base",
        stage=AdaptStage(tasks=mid.stage.tasks),
        run=replace(mid.run, steps=round(STEPS * ONE_LEVEL_STEP_S / FULL_SIZE_STEP_S)),
    )


def ode() -> Phase:
    """The first half of ``ode_then_dmd``, on the pairs of the toy recipe."""
    base = toy.ode()
    changed = replace(base, optim=replace(base.optim, lr=0.008), ema=NoEma(), run=replace(base.run, seed=63))
    return _short(changed, "ode", DISTILLATION_STEPS // 2)


def ode_then_dmd() -> Phase:
    """Half of the steps of ``dmd_only`` after an ODE start that took the other half."""
    return _distilled("ode_then_dmd", After(phase="ablations.ode"), DISTILLATION_STEPS // 2)


def dmd_only() -> Phase:
    """Distribution matching straight from Mid."""
    return _distilled("dmd_only", After(phase="stage2_post"), DISTILLATION_STEPS)


def dmd() -> Phase:
    """Distribution matching from the toy recipe's own ODE student."""
    return _distilled("dmd", After(phase="ode"), DISTILLATION_STEPS)


def dmd_gan() -> Phase:
    """The same with an adversary from the first step on."""
    base = dmd()
    return replace(base, name="ablations.dmd_gan", stage=replace(base.stage, adversary=toy.gan().stage.adversary))


def _short(phase: Phase, name: str, steps: int) -> Phase:
    """A run that is looked at afterwards and not on the way."""
    run = replace(phase.run, steps=steps, save_every=20, probe_every=0, keep=Keep(last=1))
    return replace(phase, name=f"ablations.{name}", run=run, probes=NoProbes())


def _mix() -> TaskMix:
    return reference().stage.tasks.mix


def _with_tasks(name: str, **changes: AnyCorruption | TaskMix) -> Phase:
    base = reference()
    tasks = replace(base.stage.tasks, **changes)
    return replace(base, name=f"ablations.{name}", stage=replace(base.stage, tasks=tasks))


def _distilled(name: str, start: Start, steps: int) -> Phase:
    """The toy recipe's distribution matching, shorter still and without an average."""
    base = toy.dmd()
    return _short(replace(base, start=start, ema=NoEma(), run=replace(base.run, seed=64)), name, steps)
