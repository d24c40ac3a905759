"""``helios``: the entry point, its commands, and how errors become exit codes.

Exit codes: 0 done, 1 failed while running, 2 bad input, 130 stopped by the user; ``data prepare`` also has 3, finished
but some videos left out.
"""

import logging
import sys

import typer

from helios import __version__
from helios.cli.bench import bench
from helios.cli.compile import compile_blocks
from helios.cli.data import data
from helios.cli.doctor import doctor
from helios.cli.download import download
from helios.cli.generate import EPILOG, generate
from helios.cli.info import info
from helios.cli.plan import plan
from helios.cli.quality import compare, quality
from helios.cli.resume import resume
from helios.cli.show import show
from helios.cli.train import EPILOG as TRAIN_EPILOG
from helios.cli.train import train
from helios.errors import HeliosError, InputError

app = typer.Typer(
    name="helios",
    help="Minute-long video in real time: text, image and video in; video out, chunk by chunk.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command(epilog=EPILOG)(generate)
app.command()(resume)
app.command()(show)
app.command(epilog=TRAIN_EPILOG)(train)
app.command()(info)
app.command()(plan)
app.command()(doctor)
app.command()(download)
app.command("compile")(compile_blocks)
bench.command()(quality)
bench.command()(compare)
app.add_typer(bench, name="bench")
app.add_typer(data, name="data")


@app.callback(invoke_without_command=True)
def root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    """Minute-long video in real time: text, image and video in; video out, chunk by chunk."""
    if version:
        typer.echo(__version__)
        raise typer.Exit()


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors raised on purpose become one sentence on stderr."""
    _log_to_stderr()
    try:
        app(args=arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    except InputError as error:
        return _report(error, 2)
    except HeliosError as error:
        return _report(error, 1)
    return 0


def _log_to_stderr() -> None:
    """Warnings of the library, one line each, in the form of our errors."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("helios: %(message)s"))
    logging.getLogger("helios").handlers = [handler]


def _report(error: HeliosError, code: int) -> int:
    typer.echo(f"helios: {error}", err=True)
    return code


if __name__ == "__main__":
    main()
