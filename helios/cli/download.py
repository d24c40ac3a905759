"""``helios download``: fetch a checkpoint, resuming what an earlier try left."""

from typing import Annotated

import typer

from helios.cli.options import RevisionOption


def download(
    model: Annotated[str, typer.Argument(help="Hugging Face id, `modelscope:ORG/NAME`, or a short name.")],
    revision: RevisionOption = None,
) -> None:
    """Download a checkpoint and print its folder. Interrupted downloads go on where they stopped.

    Example: `helios download helios-distilled`
    """
    from helios.checkpoints import inspect, resolve

    path = resolve(model, revision=revision)
    inspect(path)
    typer.echo(str(path))
