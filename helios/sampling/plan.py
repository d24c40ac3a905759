"""Everything that is fixed while a video is made: sizes, schedule, steps, guidance, anchor."""

from dataclasses import dataclass
from functools import cached_property

from helios.conditioning.guidance import Guidance, NoGuidance
from helios.conditioning.history import AnchorPolicy, FirstFrameAnchor
from helios.errors import InputError
from helios.schedulers.config import SchedulerConfig
from helios.schedulers.tables import LevelSchedule
from helios.shapes import Geometry


@dataclass(frozen=True, kw_only=True)
class SamplingPlan:
    """How one chunk after another is denoised.

    Args:
        geometry: pixel, latent and token arithmetic of the checkpoint.
        scheduler: the checkpoint's schedule and solver.
        height, width: pixel size of the frames.
        steps: denoising steps per level, coarsest first; one entry for Base.
        guidance: how conditional and unconditional velocity combine.
        anchor: what the first slot of the short history holds.
        amplify_first_chunk: twice the steps for a chunk without any past (the published setting of Distilled).
    Raises: InputError when the size or the steps do not fit the checkpoint.
    """

    geometry: Geometry
    scheduler: SchedulerConfig
    height: int
    width: int
    steps: tuple[int, ...]
    guidance: Guidance = NoGuidance()
    anchor: AnchorPolicy = FirstFrameAnchor()
    amplify_first_chunk: bool = False

    def __post_init__(self) -> None:
        self.geometry.check_size(self.height, self.width)
        levels = self.geometry.levels
        if len(self.steps) != levels:
            given = ",".join(map(str, self.steps))
            raise InputError(f"steps={given} has {len(self.steps)} entries, the checkpoint has {levels} level(s)")
        if min(self.steps) < 1:
            raise InputError(f"steps={','.join(map(str, self.steps))} has a level without steps: use 1 or more each")

    def schedule(self, level: int, *, amplified: bool) -> LevelSchedule:
        """Sigmas and timesteps of one level; ``amplified`` for the first chunk of a video without a past."""
        return self._schedules[level, amplified and self.amplify_first_chunk]

    @cached_property
    def _schedules(self) -> dict[tuple[int, bool], LevelSchedule]:
        kinds = (False, True) if self.amplify_first_chunk else (False,)
        return {(level, kind): self._build(level, kind) for level in range(self.geometry.levels) for kind in kinds}

    def _build(self, level: int, amplified: bool) -> LevelSchedule:
        # The published pipelines take the shift of a level from the token count before its upsampling.
        tokens = self.geometry.noisy_tokens(self.height, self.width, max(0, level - 1))
        return self.scheduler.level_schedule(level, self.steps[level], tokens, amplified=amplified)

    @property
    def gamma(self) -> float:
        """Correlation of the noise that joins two levels."""
        return self.scheduler.stages.gamma

    def latent_shape(self, batch: int) -> tuple[int, int, int, int, int]:
        """[B, C, T, H, W] of a chunk at full resolution."""
        rows, columns = self.geometry.latent_size(self.height, self.width)
        return batch, self.geometry.latent_channels, self.geometry.chunk_latent_frames, rows, columns

    def level_shape(self, batch: int, level: int) -> tuple[int, int, int, int, int]:
        """[B, C, T, H, W] of a chunk at a pyramid level."""
        rows, columns = self.geometry.level_size(self.height, self.width, level)
        return batch, self.geometry.latent_channels, self.geometry.chunk_latent_frames, rows, columns

    def total_steps(self, *, amplified: bool) -> int:
        """Denoising steps of one chunk over all levels."""
        levels = range(self.geometry.levels)
        return sum(len(self.schedule(level, amplified=amplified).timesteps) for level in levels)
