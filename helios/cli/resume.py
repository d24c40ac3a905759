"""``helios resume``: go on with a saved stream: finish it, make it longer, or branch it with another prompt."""

from pathlib import Path
from typing import Annotated

import typer

from helios.cli.options import (
    AccelerateOption,
    AheadOption,
    AnywayOption,
    ApproximateOption,
    DecodeOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    OfflineOption,
    RevisionOption,
    VaeDtypeOption,
)
from helios.cli.run import Outlet, Output, Run, Setup, make, read_state


def resume(
    state: Annotated[Path, typer.Argument(help="A file that `helios generate --session` or `Session.save` wrote.")],
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="Turn to this prompt at the next chunk.")] = None,
    blend: Annotated[int, typer.Option("--blend", help="Chunks over which the old prompt fades into it.")] = 0,
    num_frames: Annotated[
        int | None,
        typer.Option("--num-frames", "-n", metavar="N", help="Length of the whole video, from its beginning."),
    ] = None,
    model: ModelOption = None,
    out: Annotated[str | None, typer.Option("--out", "-o", metavar="F", help="Holds the new frames only.")] = None,
    session_file: Annotated[
        Path | None, typer.Option("--session", metavar="F", help="Keep the stream's state here.")
    ] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    vae_dtype: VaeDtypeOption = None,
    accelerate: AccelerateOption = None,
    approximate: ApproximateOption = None,
    decode: DecodeOption = "whole",
    ahead: AheadOption = False,
    anyway: AnywayOption = False,
    as_float: Annotated[bool, typer.Option("--float", help="For `.npy`: float32 in [0, 1].")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite the output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress line.")] = False,
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Go on with a saved stream. The frames are those that an uninterrupted run would have made.

    It goes on with the model, in the precision and with the approximations it was made with, unless `--model`, `--dtype`,
    `--vae-dtype` or `--approximate` say otherwise.

    Example: `helios resume story.session --num-frames 400 --prompt "and it snows" -o more.mp4`
    """
    setup = Setup.checked(
        device=device,
        dtype=dtype,
        vae_dtype=vae_dtype,
        accelerate=accelerate,
        approximate=approximate,
        decode=decode,
        ahead=ahead,
        anyway=anyway,
    )
    output = Output.checked(out or f"{state}.mp4", as_float=as_float, force=force)
    outlet = Outlet.checked(output, session_file, quiet=quiet, as_json=as_json)
    stream = read_state(state)
    run = Run.of_stream(stream, state, model, revision=revision, offline=offline)
    prepared = run.check_state(stream, state, num_frames, prompt, blend)
    helios = setup.load(run, prepared, stream.precision)

    def opener(report, pixels):
        session = helios.resume(state, num_frames=num_frames, progress=report.step, pixels=pixels, **setup.how)
        if prompt is not None:
            session.set_prompt(prompt, blend=blend)
        return session

    make(helios, opener, run, outlet)
