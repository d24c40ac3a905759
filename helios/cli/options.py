"""Options that several commands share, and the small parsers behind them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from helios.errors import InputError

if TYPE_CHECKING:
    import torch

    from helios.checkpoints import CheckpointInfo
    from helios.engine.acceleration import Acceleration
    from helios.engine.approximation import Approximation
    from helios.engine.session import Decoding

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="M",
        help="A checkpoint: a folder, a Hugging Face id, `modelscope:ORG/NAME`, or a short name such as "
        "`helios-distilled`. Left out: the small model.",
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="`auto`, `cpu`, or an accelerator's name.")]
DtypeOption = Annotated[str, typer.Option("--dtype", help="`auto`, `float32`, `bfloat16` or `float16`.")]
VaeDtypeOption = Annotated[
    str | None,
    typer.Option("--vae-dtype", help="Of the VAE: `float32` as published, or `bfloat16` for less memory and time."),
]
AccelerateOption = Annotated[
    str | None,
    typer.Option(
        "--accelerate",
        metavar="HOW",
        help="The same video sooner: `fused` (one product for queries, keys and values), `compiled` (blocks and the "
        "VAE's norm; compiling comes first, half a minute or more), `fused,compiled`, or a folder that `helios compile` made.",
    ),
]
ApproximateOption = Annotated[
    str | None,
    typer.Option(
        "--approximate",
        metavar="HOW",
        help="Nearly the same video sooner: `history` (its keys and values once per chunk), `fp8` (8-bit products, for "
        "GPUs that have them), `history,fp8`, or `none`. A chunk is made both ways first, and the difference is said.",
    ),
]
AheadOption = Annotated[
    bool,
    typer.Option("--ahead", help="Decode a chunk beside the next one, on an accelerator; see `helios plan --ahead`."),
]
DecodeOption = Annotated[
    str,
    typer.Option(
        "--decode",
        metavar="HOW",
        help="`whole` chunks at once, or `early`: latent frame by latent frame, in less memory; the same video.",
    ),
]
AnywayOption = Annotated[bool, typer.Option("--anyway", help="Try a run that `helios plan` finds no room for.")]
RevisionOption = Annotated[str | None, typer.Option("--revision", help="Commit, tag or branch on the hub.")]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Use only what is on this machine.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def find_model(name: str | None, *, revision: str | None = None, offline: bool = False) -> "CheckpointInfo":
    """What a model is; names such as ``14b-random`` are models without files, for measuring and planning.

    Raises: InputError when there is none of that name, or it contradicts itself.
    """
    from helios.checkpoints import inspect, is_synthetic, resolve, synthetic_info

    if name is not None and is_synthetic(name):
        return synthetic_info(name)
    return inspect(resolve(name, revision=revision, offline=offline or None))


def parse_accelerations(how: str | None, device: "torch.device") -> "tuple[Acceleration, ...]":
    """``fused``, ``compiled``, both with a comma between them, or a folder of compiled packages, which excludes them.

    Raises: InputError for anything else, and for ``compiled`` on a CPU without a C++ compiler.
    """
    from helios.engine.acceleration import CompiledBlocks, CompiledNorms, FusedProjections, require_compiler_for
    from helios.engine.packages import PackagedBlocks

    if how is None:
        return ()
    known: dict[str, tuple[Acceleration, ...]] = {
        "fused": (FusedProjections(),),
        "compiled": (CompiledBlocks(), CompiledNorms()),
    }
    asked = how.split(",")
    if set(asked) <= set(known):
        if "compiled" in asked:
            require_compiler_for(device)
        return tuple(each for name in known if name in asked for each in known[name])
    if Path(how).is_dir():
        return (PackagedBlocks(folder=how),)
    raise InputError(f"accelerate={how!r} is unknown: use {', '.join(known)}, or a folder that helios compile made")


def parse_approximations(how: str | None) -> "tuple[Approximation, ...] | None":
    """``history``, ``fp8``, or both with a comma between them; ``none`` for none, None for what was recorded.

    Raises: InputError for anything else.
    """
    from helios.engine.approximation import APPROXIMATIONS, named

    if how is None or how == "none":
        return None if how is None else ()
    asked = how.split(",")
    if not set(asked) <= set(APPROXIMATIONS):
        raise InputError(f"approximate={how!r} is unknown: use {', '.join(APPROXIMATIONS)}, both with a comma, or none")
    return named([name for name in APPROXIMATIONS if name in asked])


def parse_decoding(how: str) -> "Decoding":
    """``whole`` or ``early``.

    Raises: InputError for anything else.
    """
    from helios.engine.session import EarlyFrames, WholeChunks

    known = {"whole": WholeChunks(), "early": EarlyFrames()}
    if how not in known:
        raise InputError(f"decode={how!r} is unknown: use {' or '.join(known)}")
    return known[how]


def parse_steps(text: str | None) -> tuple[int, ...] | None:
    """``"2,2,2"`` as (2, 2, 2).

    Raises: InputError when an entry is no whole number.
    """
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"steps={text!r} cannot be read: write whole numbers, one per level, like 2,2,2") from error


def preset_steps(name: str, published: tuple[int, ...]) -> tuple[int, ...]:
    """Steps per level of a preset: ``default`` as published, ``fast`` half as many.

    Raises: InputError for another name.
    """
    presets = {"default": published, "fast": tuple(max(1, steps // 2) for steps in published)}
    if name not in presets:
        raise InputError(f"preset={name!r} is unknown: use {' or '.join(presets)}")
    return presets[name]
