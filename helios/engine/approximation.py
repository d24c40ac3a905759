"""Ways to make a loaded transformer faster or smaller that change its mathematics. Each is a choice, none is made by
default, and :meth:`helios.Helios.approximate` measures what it costs on the run it is made for.

Both take adapters that were loaded before, and that are not fused afterwards; neither goes with packages of compiled
blocks, which hold the exact ones.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log10
from typing import TYPE_CHECKING, Protocol

import numpy as np

from helios.device import has_fp8_units
from helios.errors import InputError
from helios.models.transformer.rounding import Rounding

if TYPE_CHECKING:
    from helios.models.transformer.model import HeliosTransformer3DModel

logger = logging.getLogger(__name__)


class Approximation(Protocol):
    """Changes what a transformer computes, a little."""

    name: str

    def apply(self, transformer: "HeliosTransformer3DModel") -> None:
        """Change a loaded transformer in place, where it will run; nothing takes it back."""
        ...


@dataclass(frozen=True)
class ReusedHistory:
    """Keys and values of the history are computed in the first step of each chunk and reused in its others.

    Saves 23 % of the arithmetic of a released 1+1+1 chunk; keeps two tensors of the history's size per block, 2 GB for
    the released model in bfloat16, twice that under guidance. A run with one step in all saves nothing.
    """

    name = "history"

    def apply(self, transformer: "HeliosTransformer3DModel") -> None:
        transformer.reuse_history()


@dataclass(frozen=True)
class Fp8Linears:
    """Linear layers of the inner blocks (:func:`helios.models.transformer.rounding.rounded_weights`) in 8-bit floats,
    weights and activations: half the memory of bfloat16 for them, and up to twice the rate on GPUs that have units for it
    (Ada, Hopper and later). All else stays exact. Where the exact weights have no room, ``from_pretrained(weights="fp8")``
    rounds them while they load.
    """

    name = "fp8"

    def apply(self, transformer: "HeliosTransformer3DModel") -> None:
        if not has_fp8_units(transformer.device):
            logger.warning(
                "%s has no units for 8-bit floats: the video is what they would make, later instead of sooner",
                transformer.device,
            )
        Rounding(transformer).take_all()
        for block in transformer.blocks:
            block.attn1.split_projections()


def apply_all(transformer: "HeliosTransformer3DModel", approximations: Sequence[Approximation]) -> None:
    """Apply approximations in order, and note them in the transformer."""
    for approximation in approximations:
        approximation.apply(transformer)
        transformer.approximations = (*transformer.approximations, approximation.name)


def check(transformer: "HeliosTransformer3DModel", approximations: Sequence[Approximation]) -> None:
    """Whether a transformer can be made approximate like this.

    Raises: InputError when it has been already, or runs from packages.
    """
    names = [each.name for each in approximations]
    for name in names:
        if name in transformer.approximations or names.count(name) > 1:
            raise InputError(f"the model cannot be made approximate by {name} twice: leave one out")
    if names and any("forward" in vars(block) for block in transformer.blocks):
        raise InputError(f"packages hold the exact blocks: use either them or {', '.join(names)}")


APPROXIMATIONS: dict[str, Approximation] = {each.name: each for each in (ReusedHistory(), Fp8Linears())}
_MOST_STEPS = 4


def named(names: Sequence[str]) -> tuple[Approximation, ...]:
    """The approximations of these names.

    Raises: InputError when there is none of a name.
    """
    unknown = [name for name in names if name not in APPROXIMATIONS]
    if unknown:
        raise InputError(f"approximation {unknown[0]!r} is unknown: use {', '.join(APPROXIMATIONS)}")
    return tuple(APPROXIMATIONS[name] for name in names)


def measured_steps(steps: tuple[int, ...]) -> tuple[int, ...]:
    """Steps per level of the chunks that an approximation is measured on."""
    return tuple(min(count, _MOST_STEPS) for count in steps)


def psnr(expected: np.ndarray, found: np.ndarray) -> float:
    """Peak signal-to-noise ratio in decibels of frames in [0, 1]; infinite for equal ones."""
    error = float(np.mean((found.astype(np.float64) - expected) ** 2))
    return -10 * log10(error) if error else inf


def told(names: Sequence[str], psnr_db: float | None) -> str:
    """One sentence on what approximations cost; None or infinite decibels are equal frames."""
    cost = (
        "that of the model without"
        if psnr_db is None or psnr_db == inf
        else f"{psnr_db:.1f} dB (PSNR) from the one without"
    )
    return f"{' and '.join(names)}: a second chunk is {cost}"
