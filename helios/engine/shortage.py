"""Running out of memory, said in one sentence."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from helios.device import is_out_of_memory
from helios.engine.precision import Precision
from helios.engine.request import Request
from helios.errors import GenerationError


@contextmanager
def naming_shortage(precision: Callable[[], Precision], request: Request | None = None) -> Iterator[None]:
    """Turn an allocator's error into one that says what was too much.

    Args:
        precision: says that of the model; asked when memory has run out, since reading it takes a millisecond.
        request: the run; None while the model is loaded.
    Raises: GenerationError.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        doing, kept = "while loading", ""
        if request is not None:
            videos = f" ({len(request.seeds)} videos together)" if len(request.seeds) > 1 else ""
            doing, kept = f"at {request.height}x{request.width}{videos}", "; chunks that were finished are kept"
        raise GenerationError(
            f"out of memory {doing} in {precision()}: `helios plan` says what needs less and what fits here{kept}"
        ) from error
