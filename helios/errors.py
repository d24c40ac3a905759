"""What goes wrong, sorted by whose turn it is to act.

The command line turns :class:`InputError` into exit code 2 and :class:`GenerationError` into exit code 1, each with
its one sentence on stderr and no traceback. Any other exception is a bug of ours and keeps its traceback.
"""


class HeliosError(Exception):
    """Base of every error that Helios raises on purpose."""


class InputError(HeliosError, ValueError):
    """The caller gave something that cannot work; the message names the value and the way out in one sentence."""


class GenerationError(HeliosError, RuntimeError):
    """A run that had started could not go on; chunks that were finished before stay usable."""


class Cancelled(HeliosError):
    """The caller asked a run to stop; chunks that were finished before stay usable."""
