"""Sampling plans of training: how the network in training will be sampled."""

from dataclasses import dataclass, replace

from helios.checkpoints import CheckpointInfo, Variant
from helios.conditioning.guidance import NoGuidance
from helios.sampling.plan import SamplingPlan
from helios.schedulers.config import SchedulerConfig
from helios.schedulers.shift import DynamicShift
from helios.schedulers.stages import PyramidStages, SingleStage
from helios.schedulers.tables import LevelSchedule
from helios.shapes import Geometry
from helios.training.phase import StudentSampling

LEVELS = 3


@dataclass(frozen=True, kw_only=True)
class OwnSizePlan(SamplingPlan):
    """A plan that takes the shift of a level from the level's own size, as the published training does."""

    def _build(self, level: int, amplified: bool) -> LevelSchedule:
        tokens = self.geometry.noisy_tokens(self.height, self.width, level)
        return self.scheduler.level_schedule(level, self.steps[level], tokens, amplified=amplified)


def scheduler_of(variant: Variant, student: StudentSampling | None = None) -> SchedulerConfig:
    """The scheduler that a checkpoint of a variant is written with."""
    if variant is Variant.BASE:
        return SchedulerConfig(solver="unipc", stages=SingleStage(), shift=DynamicShift(kind="exponential"))
    if variant is Variant.MID:
        return SchedulerConfig(solver="unipc", stages=PyramidStages(), shift=DynamicShift(kind="exponential"))
    shift = DynamicShift(kind="linear") if student is None else student.shift
    return SchedulerConfig(solver="distilled", stages=PyramidStages(), shift=shift)


def geometry_for(info: CheckpointInfo, variant: Variant) -> Geometry:
    """The checkpoint's sizes with the levels of the variant that training makes of it."""
    return replace(info.geometry, levels=1 if variant is Variant.BASE else LEVELS)


def student_plan(info: CheckpointInfo, student: StudentSampling) -> SamplingPlan:
    """How the distilled model samples."""
    plan = OwnSizePlan if student.own_size else SamplingPlan
    return plan(
        geometry=geometry_for(info, Variant.DISTILLED),
        scheduler=scheduler_of(Variant.DISTILLED, student),
        height=info.preset.height,
        width=info.preset.width,
        steps=student.steps,
        guidance=NoGuidance(),
        amplify_first_chunk=student.amplify_first_chunk,
    )


def probe_plan(info: CheckpointInfo, variant: Variant, *, steps, guidance, student: StudentSampling | None):
    """How a network in training is rolled out to be looked at: as the exported model will be sampled.

    Args:
        steps, guidance: None for what the variant is released with.
        student: settings of a distilled model.
    """
    if student is not None:
        plan = student_plan(info, replace(student, own_size=False))
        return plan if steps is None else replace(plan, steps=steps)
    from helios.checkpoints.presets import preset_for

    geometry = geometry_for(info, variant)
    preset = preset_for(variant, levels=geometry.levels, zero_star=variant is Variant.MID)
    return SamplingPlan(
        geometry=geometry,
        scheduler=scheduler_of(variant),
        height=info.preset.height,
        width=info.preset.width,
        steps=steps or preset.steps,
        guidance=guidance or preset.guidance,
    )
