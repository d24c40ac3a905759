"""What a checkpoint recommends for a call: size, length, steps, guidance.

The values per variant are the published ones. A checkpoint that was trained at another size, or is best guided at
another scale, says so in an optional file of ours (``helios.json``) beside ``model_index.json``; every other loader
passes over it.
"""

import logging
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from helios.checkpoints.layout import Variant
from helios.checkpoints.tensor_files import read_json, write_json
from helios.conditioning.guidance import ClassifierFree, ClassifierFreeZeroStar, Guidance, NoGuidance
from helios.errors import InputError

logger = logging.getLogger(__name__)

PRESET_FILE = "helios.json"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Recommended settings.

    Args:
        steps: network evaluations per pyramid level, coarsest first; one entry for Base.
        guidance: the kind that the checkpoint was made for, and its scale.
        amplify_first_chunk: twice the steps in the first chunk, which has no history to lean on (Distilled only).
        num_frames: pixel frames.
        height, width: pixels; the released models are trained at 384x640 only.
        fps: frames per second of the training data.
    """

    steps: tuple[int, ...]
    guidance: Guidance
    amplify_first_chunk: bool
    num_frames: int
    height: int = 384
    width: int = 640
    fps: float = 24.0


def preset_for(variant: Variant, *, levels: int, zero_star: bool) -> Preset:
    """The published settings of a variant.

    Args:
        variant: which model.
        levels: of its pyramid.
        zero_star: whether the checkpoint was made for CFG-Zero* guidance.
    """
    if variant is Variant.DISTILLED:  # 231 frames are seven whole chunks, as the published demo makes them
        return Preset(steps=(2,) * levels, guidance=NoGuidance(), amplify_first_chunk=True, num_frames=231)
    guidance = ClassifierFreeZeroStar(scale=5.0) if zero_star else ClassifierFree(scale=5.0)
    steps = (50,) if variant is Variant.BASE else (20,) * levels
    return Preset(steps=steps, guidance=guidance, amplify_first_chunk=False, num_frames=99)


@dataclass(frozen=True, kw_only=True)
class OwnSettings:
    """What a checkpoint says about itself in our optional file.

    Args:
        num_frames, height, width: the size it was trained at, where that is not the released one.
        guidance: the scale that suits it, where that is not the released one; a model without guidance stays so.
        random_weights: nothing was trained; videos are noise.
    """

    num_frames: int | None = None
    height: int | None = None
    width: int | None = None
    guidance: float | None = None
    random_weights: bool = False

    def __post_init__(self) -> None:
        for name in ("num_frames", "height", "width"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise InputError(
                    f"{PRESET_FILE} says {name}={value!r}: write a whole number above 0 or remove the file"
                )
        numeric = isinstance(self.guidance, int | float) and not isinstance(self.guidance, bool)
        if self.guidance is not None and not (numeric and self.guidance > 1):
            raise InputError(
                f"{PRESET_FILE} says guidance={self.guidance!r}: write a number above 1 or remove the file"
            )

    def applied_to(self, published: Preset) -> Preset:
        """The published preset at the checkpoint's own size and guidance."""
        sizes = {name: getattr(self, name) for name in ("num_frames", "height", "width")}
        own = {name: value for name, value in sizes.items() if value is not None}
        if self.guidance is not None and published.guidance.needs_negative:
            own["guidance"] = replace(published.guidance, scale=float(self.guidance))
        return replace(published, **own)


def read_own_settings(path: Path) -> OwnSettings:
    """Read the optional file of a checkpoint directory.

    Raises: InputError when a size in it is not a positive whole number, or the guidance not above 1.
    """
    file = path / PRESET_FILE
    given = read_json(file) if file.is_file() else {}
    known = {field.name for field in fields(OwnSettings)}
    unknown = sorted(set(given) - known)
    if unknown:
        logger.warning("%s has settings that Helios does not know: %s", file, ", ".join(unknown))
    return OwnSettings(**{name: value for name, value in given.items() if name in known})


def write_own_settings(path: Path, settings: OwnSettings) -> None:
    """Write the optional file, unless there is nothing to say."""
    stated = {name: value for name, value in asdict(settings).items() if value}
    if stated:
        write_json(path / PRESET_FILE, stated)
