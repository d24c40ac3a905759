"""How a noise schedule leans with the size of the picture: the timestep shift of rectified-flow models.

A larger picture needs more of its steps at high noise, because neighbouring pixels carry redundant signal. The shift
bends every sigma by one factor (paper arXiv 2603.04379; Esser et al. 2024, section 5.3.2):

    shift(sigma) = factor * sigma / (1 + (factor - 1) * sigma)  =  factor / (factor + 1 / sigma - 1)

It keeps 0 and 1, keeps the order, and is undone by the factor ``1 / factor``.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from torch import Tensor

from helios.errors import InputError

Sigma = TypeVar("Sigma", float, Tensor)
ShiftKind = Literal["exponential", "linear"]


class Shift(Protocol):
    """Where the factor of the shift comes from."""

    def factor(self, tokens: int) -> float:
        """The factor for a chunk of ``tokens`` noisy video tokens; above 1 it leans towards noise."""
        ...


@dataclass(frozen=True, kw_only=True)
class NoShift:
    """Sigmas stay where they are."""

    def factor(self, tokens: int) -> float:
        """1, whatever the size."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class StaticShift:
    """The same factor at every size.

    For a single resolution. Diffusers' scheduler knows it, but its pipeline hands over finished sigmas and so passes it
    by; no published model has one.

    Raises: InputError when the factor is not a positive number.
    """

    shift: float

    def __post_init__(self):
        if not (math.isfinite(self.shift) and self.shift > 0):
            raise InputError(f"shift={self.shift} turns the schedule around: pass a positive number (1 is none)")

    def factor(self, tokens: int) -> float:
        """``shift``, whatever the size."""
        return self.shift


@dataclass(frozen=True, kw_only=True)
class DynamicShift:
    """A factor that grows with the number of tokens.

        mu = base_shift + (tokens - base_tokens) * (max_shift - base_shift) / (max_tokens - base_tokens)
        factor = exp(mu)   ("exponential": Base and Mid)       factor = mu   ("linear": Distilled)

    The line goes on beyond both ends, as in the published code. In the linear kind small pictures have a factor below
    1 and so lean towards *low* noise.

    Args:
        kind: exponential or linear.
        base_tokens, max_tokens: sizes at which mu is ``base_shift`` and ``max_shift``.
        base_shift, max_shift: mu at these sizes.
        max_factor: ceiling of the exponential factor, None for no ceiling. The authors' training-side validation
            clamps it at 7 (mu at ln 7), the released pipelines do not; 384x640 stays below it (6.815).
    Raises: InputError for constants that contradict each other, and from :meth:`factor` when mu is not positive.
    """

    kind: ShiftKind
    base_tokens: int = 256
    max_tokens: int = 4096
    base_shift: float = 0.5
    max_shift: float = 1.15
    max_factor: float | None = None

    def __post_init__(self):
        if self.kind not in ("exponential", "linear"):
            raise InputError(f"shift kind {self.kind!r} is unknown: use 'exponential' or 'linear'")
        if self.base_tokens == self.max_tokens:
            raise InputError(f"base_tokens and max_tokens are both {self.max_tokens}: mu needs two different sizes")
        if self.max_factor is not None and (self.kind == "linear" or self.max_factor <= 0):
            raise InputError(f"max_factor={self.max_factor} needs the exponential kind and a positive value")

    def mu(self, tokens: int) -> float:
        """Position on the line; 1.9192 for the 8640 tokens of 384x640."""
        if tokens < 1:
            raise InputError(f"tokens={tokens} is no picture: pass the number of noisy tokens, 1 or more")
        slope = (self.max_shift - self.base_shift) / (self.max_tokens - self.base_tokens)
        return self.base_shift + (tokens - self.base_tokens) * slope

    def factor(self, tokens: int) -> float:
        """exp(mu) or mu; 6.8153 or 1.9192 for the 8640 tokens of 384x640."""
        mu = self.mu(tokens)
        if self.kind == "exponential":
            return min(math.exp(mu), self.max_factor or math.inf)
        if mu <= 0:
            raise InputError(f"the linear shift of {tokens} tokens is {mu:.4g}: use a larger size or base_shift")
        return mu


def shift_sigma(sigma: Sigma, factor: float) -> Sigma:
    """Bend a sigma in [0, 1] by a positive factor; a tensor keeps its dtype.

    Written without 1 / sigma, so that 0 maps to 0; ``shift_sigma(shift_sigma(s, f), 1 / f)`` is ``s``.
    """
    return factor * sigma / (1 + (factor - 1) * sigma)
