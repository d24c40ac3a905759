"""``helios generate``: one video from a prompt, an image, a video or a timeline."""

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
    parse_steps,
    preset_steps,
)
from helios.cli.run import Outlet, Output, Run, Setup, default_name, make
from helios.errors import InputError

EPILOG = """
**Examples**

`helios generate "a red circle moves right" --num-frames 99`

`helios generate "a fox runs through snow" -m helios-distilled --num-frames 1452 -o fox.mp4`

`helios generate "the tide comes in" -m helios-base --image beach.jpg --motion 2`

`helios generate --timeline story.txt --num-frames 1782 --blend 3 -o story.mp4 --session story.session`

`helios generate --from fox.mp4 -o again.mp4`

A timeline file has one `TIME PROMPT` a line, the first at 0, none after the video's end. Ctrl-C keeps the finished chunks in `FILE.part`.
"""


def generate(
    context: typer.Context,
    prompt: Annotated[str | None, typer.Argument(help="What the video shows.")] = None,
    model: ModelOption = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="F", help="`.mp4`, `.gif`, `.webp`, `.npy`, or a folder of PNGs."),
    ] = None,
    num_frames: Annotated[
        int | None, typer.Option("--num-frames", "-n", metavar="N", help="Exactly this many frames.")
    ] = None,
    height: Annotated[
        int | None, typer.Option("--height", "-H", metavar="H", help="Pixels; see `helios info`.")
    ] = None,
    width: Annotated[int | None, typer.Option("--width", "-W", metavar="W", help="Pixels.")] = None,
    seed: Annotated[int, typer.Option("--seed", "-s", metavar="S", help="Same seed, same video.")] = 0,
    fps: Annotated[float, typer.Option("--fps", help="Frames per second of playback, and of a given video.")] = 24.0,
    negative_prompt: Annotated[
        str, typer.Option("--negative-prompt", metavar="P", help="What guidance leads away from.")
    ] = "",
    image: Annotated[Path | None, typer.Option("--image", "-i", metavar="I", help="Begin from this picture.")] = None,
    video: Annotated[Path | None, typer.Option("--video", metavar="V", help="Go on from this video.")] = None,
    fit: Annotated[str, typer.Option("--fit", help="How a picture of another shape fits: `crop` or `pad`.")] = "crop",
    motion: Annotated[
        float, typer.Option("--motion", help="How far to move away from the given picture; 1 as released.")
    ] = 1.0,
    timeline: Annotated[
        Path | None, typer.Option("--timeline", "-t", metavar="T", help="File of times and prompts.")
    ] = None,
    blend: Annotated[int, typer.Option("--blend", help="Chunks over which prompts fade; 0 is a hard cut.")] = 0,
    preset: Annotated[str, typer.Option("--preset", help="`default` as published, or `fast`.")] = "default",
    steps: Annotated[
        str | None, typer.Option("--steps", metavar="2,2,2", help="Steps per level, coarsest first.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", "-g", metavar="G", help="Guidance scale; 1 is none.")
    ] = None,
    anchor: Annotated[str, typer.Option("--anchor", help="`first-frame`, `second-chunk` or `none`.")] = "first-frame",
    amplify: Annotated[
        bool | None,
        typer.Option("--amplify-first-chunk/--no-amplify-first-chunk", help="Twice the steps in chunk one."),
    ] = None,
    noise: Annotated[
        str, typer.Option("--noise", help="`default`, or `reference` for the published order of draws.")
    ] = "default",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    vae_dtype: VaeDtypeOption = None,
    accelerate: AccelerateOption = None,
    approximate: ApproximateOption = None,
    decode: DecodeOption = "whole",
    ahead: AheadOption = False,
    anyway: AnywayOption = False,
    session: Annotated[
        Path | None, typer.Option("--session", metavar="F", help="Keep the stream's state here, for `helios resume`.")
    ] = None,
    repeat: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Repeat the run recorded in a video or its JSON.")
    ] = None,
    as_float: Annotated[bool, typer.Option("--float", help="For `.npy`: float32 in [0, 1] instead of uint8.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite the output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress line.")] = False,
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Generate a video: from text, from an image, from another video, or along a timeline of prompts."""
    _refuse_changes(context, repeat)
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
    output = Output.checked(out or default_name(prompt or timeline, seed), as_float=as_float, force=force)
    outlet = Outlet.checked(output, session, quiet=quiet, as_json=as_json)
    if session is not None and noise == "reference":
        raise InputError("a run with --noise reference cannot be kept in a session: leave --session out")
    run = Run.read(repeat, model, revision=revision, offline=offline)
    inputs = run.inputs_or(image=image, video=video)

    from helios.engine.prepare import check, prepare

    if run.request is not None:
        prepared = check(run.info, run.request, **inputs)
    else:
        published = preset_steps(preset, run.info.preset.steps)
        prepared = prepare(
            run.info,
            prompt,
            timeline=timeline,
            blend=blend,
            negative_prompt=negative_prompt,
            num_frames=num_frames,
            height=height,
            width=width,
            seed=seed,
            steps=parse_steps(steps) or published,
            guidance=guidance,
            fps=fps,
            motion=motion,
            anchor=anchor,
            amplify_first_chunk=amplify,
            noise=noise,
            fit=fit,
            **inputs,
        )
    helios = setup.load(run, prepared, run.precision)

    def opener(report, pixels):
        return helios.open(prepared, progress=report.step, pixels=pixels, **setup.how)

    make(helios, opener, run, outlet)


_KEPT_IN_A_REPEAT = [
    "repeat",
    "out",
    "model",
    "image",
    "video",
    "device",
    "dtype",
    "vae_dtype",
    "accelerate",
    "approximate",
    "decode",
    "ahead",
    "anyway",
    "session",
    "as_float",
    "force",
    "quiet",
    "revision",
    "offline",
    "as_json",
]


def _refuse_changes(context: typer.Context, repeat: Path | None) -> None:
    """A repeat is a repeat: settings beside ``--from`` are refused, not ignored."""
    if repeat is None:
        return
    given = [
        name
        for name in context.params
        if name not in _KEPT_IN_A_REPEAT and context.get_parameter_source(name).name == "COMMANDLINE"
    ]
    if given:
        names = ", ".join(sorted(name.replace("_", "-") for name in given))
        raise InputError(f"--from repeats a recorded run with its own settings: leave {names} out")
