"""Whether a run fits this machine, asked before its weights load."""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from helios.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection

    import torch

    from helios.checkpoints import CheckpointInfo
    from helios.engine.memory import Footprint, Room, Verdict
    from helios.engine.pace import Pace
    from helios.engine.prepare import Prepared

logger = logging.getLogger(__name__)


def check_room(
    info: "CheckpointInfo",
    prepared: "Prepared",
    room: "Room",
    *,
    dtype: "torch.dtype",
    vae_dtype: "torch.dtype",
    pace: "Pace",
    early: bool,
    anyway: bool,
    approximations: "Collection[str]" = (),
) -> str:
    """Refuse a run whose prompts are encoded first when there is no room for it; say so when only that makes it fit.

    Args:
        room: what the machine has free.
        early: frames are decoded early, which takes less than whole chunks.
        anyway: warn instead of refusing.
        approximations: names of those that the run is made with.
    Returns: the weights to load: ``exact``, or ``fp8`` when the run asks for that and has no room for the exact ones.
    Raises: InputError with what is needed, what is free, and what would need less.
    """
    from helios.engine.approximation import Fp8Linears
    from helios.engine.memory import at_most, footprint, judge, on_device

    run = {
        "dtype": dtype,
        "vae_dtype": vae_dtype,
        "batch": len(prepared.request.seeds),
        "approximations": approximations,
    }
    weights = "exact"
    for weights in ("exact", Fp8Linears.name) if Fp8Linears.name in approximations else ("exact",):
        amply = on_device(at_most(info, prepared.plan, **run, weights=weights), room.device) <= room.for_a_run
        if amply and room.host_suffices:
            return weights
        needs = footprint(info, prepared.plan, device=room.device, pace=pace, **run, weights=weights)
        verdict = judge(needs, room)
        if room.host_suffices and _needed(verdict, early) <= room.for_a_run:
            _say_what_makes_it_fit(verdict, room)
            return weights
    shortage = _shortage(verdict, needs, room, early)
    if not anyway:
        raise InputError(f"{shortage}; `helios plan` counts it all, and --anyway tries it all the same")
    logger.warning("%s; it is tried anyway", shortage)
    return weights


def _say_what_makes_it_fit(verdict: "Verdict", room: "Room") -> None:
    from helios.engine.memory import gib

    if verdict.needed > room.for_a_run:
        held = f"all at once would take {gib(verdict.needed)} of the {gib(room.for_a_run)} that are free"
        logger.warning("fits only with the text encoder freed before the other weights load: %s", held)


def _needed(verdict: "Verdict", early: bool) -> int:
    return verdict.needed_least if early else verdict.needed_prompts_first


def _shortage(verdict: "Verdict", needs: "Footprint", room: "Room", early: bool) -> str:
    from helios.engine.memory import gib, judge

    if not room.host_suffices:
        return verdict.advice.rstrip(".")
    free = room.for_a_run
    if verdict.needed_least <= free:
        way_out = f"--decode early needs {gib(verdict.needed_least)}"
    elif needs.ahead and _needed(judge(replace(needs, ahead=False), room), early) <= free:
        way_out = "leave --ahead out"
    else:
        way_out = "take a smaller precision, size or model"
    return f"the run needs {gib(_needed(verdict, early))} on {room.device} and {gib(free)} are free: {way_out}"
