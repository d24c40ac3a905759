"""Two kinds of tables: the few points a solver visits, and the noise levels that training draws from.

Both are plain Python floats (float64) on the host. Tensors come in later, so no device has to know float64 and
reading a table never waits for one.
"""

from dataclasses import dataclass
from itertools import pairwise

from helios.schedulers.shift import NoShift, Shift, shift_sigma

MERGE_DISTANCE = 1e-3  # in sigma


@dataclass(frozen=True, kw_only=True)
class LevelSchedule:
    """What one resolution level of one chunk visits.

    Attributes:
        sigmas: in-level noise, 1 is the level's start and 0 its end; one more entry than steps, falling, last 0.0.
        timesteps: the time value of each step in 0..1000, fractional; what the solver looks things up with.
        model_timesteps: what the network is given: whole numbers in the pyramid (the released models were sampled
            so), fractional at a single resolution.
    """

    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]
    model_timesteps: tuple[float, ...]

    def __post_init__(self):
        steps = len(self.timesteps)
        if steps < 1 or len(self.sigmas) != steps + 1 or len(self.model_timesteps) != steps:
            raise ValueError(f"{len(self.sigmas)} sigmas do not fit {steps} timesteps")
        if self.sigmas[-1] != 0.0 or any(b >= a for a, b in pairwise(self.sigmas)):
            raise ValueError(f"sigmas must fall and end at 0, got {self.sigmas}")

    @property
    def steps(self) -> int:
        """Network evaluations (times two under guidance)."""
        return len(self.timesteps)

    def merged(self, other: "LevelSchedule") -> "LevelSchedule":
        """This schedule with all points of another one put in, in falling order.

        Used to make distillation pairs: the teacher's trajectory passes exactly through the student's points. Both
        schedules must be of the same level and shift, so that equal sigmas mean equal timesteps. Own points within
        ``MERGE_DISTANCE`` of one of the other's give way to it: after a very short step, a multistep solver divides
        rounding errors by that step.
        """
        theirs = other._points()
        mine = [point for point in self._points() if all(abs(point[0] - p[0]) > MERGE_DISTANCE for p in theirs)]
        sigmas, timesteps, model_timesteps = zip(*sorted([*mine, *theirs], reverse=True))
        return LevelSchedule(sigmas=(*sigmas, 0.0), timesteps=timesteps, model_timesteps=model_timesteps)

    def _points(self) -> list[tuple[float, float, float]]:
        return list(zip(self.sigmas, self.timesteps, self.model_timesteps))


@dataclass(frozen=True, kw_only=True)
class NoiseTable:
    """Pairs of (sigma, timestep), falling.

    Attributes:
        sigmas: noise fractions in [0, 1].
        timesteps: the time value of each sigma.
        low_timestep, high_timestep: time values that a *shifted* sigma of 0 and of 1 maps to.
    """

    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]
    low_timestep: float
    high_timestep: float

    def __len__(self) -> int:
        return len(self.sigmas)

    def shifted(self, shift: Shift, tokens: int) -> "NoiseTable":
        """The table with every sigma bent by the shift's factor for ``tokens``, and the timesteps that follow.

            timestep = low_timestep + sigma * (high_timestep - low_timestep)

        A factor of 1 is not the same as no shift: in a pyramid level the line above passes a little inside the
        unshifted table (at sigma 0.999 it is short of ``high_timestep``). The published code does the same.
        """
        if isinstance(shift, NoShift):
            return self
        factor = shift.factor(tokens)
        sigmas = tuple(shift_sigma(sigma, factor) for sigma in self.sigmas)
        span = self.high_timestep - self.low_timestep
        timesteps = tuple(self.low_timestep + sigma * span for sigma in sigmas)
        return NoiseTable(
            sigmas=sigmas, timesteps=timesteps, low_timestep=self.low_timestep, high_timestep=self.high_timestep
        )

    def without_last(self, count: int = 1) -> "NoiseTable":
        """The table without its ``count`` least noisy entries."""
        return NoiseTable(
            sigmas=self.sigmas[:-count],
            timesteps=self.timesteps[:-count],
            low_timestep=self.low_timestep,
            high_timestep=self.high_timestep,
        )

    def nearest(self, timestep: float) -> int:
        """Position of the entry whose timestep is closest; the noisier one when two are equally close."""
        return nearest_index(self.timesteps, timestep)

    def schedule(self, *, whole_timesteps: bool) -> LevelSchedule:
        """The table as the points of a solver, with 0 appended; the network's timesteps cut to integers or not."""
        given = tuple(float(int(timestep)) for timestep in self.timesteps) if whole_timesteps else self.timesteps
        return LevelSchedule(sigmas=(*self.sigmas, 0.0), timesteps=self.timesteps, model_timesteps=given)


def nearest_index(values: tuple[float, ...], wanted: float) -> int:
    """Position of the value closest to ``wanted``, the first one on a tie."""
    return min(range(len(values)), key=lambda position: abs(values[position] - wanted))
