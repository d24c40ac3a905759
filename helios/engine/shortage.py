"""Running out of memory, said in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from helios.device import is_out_of_memory
from helios.engine.request import Request
from helios.errors import GenerationError


@contextmanager
def naming_shortage(dtype: torch.dtype, vae_dtype: torch.dtype, request: Request | None = None) -> Iterator[None]:
    """Turn an allocator's error into one that says what was too much.

    Args:
        dtype, vae_dtype: of transformer and VAE.
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
        names = [str(precision).removeprefix("torch.") for precision in (dtype, vae_dtype)]
        raise GenerationError(
            f"out of memory {doing} in {names[0]} with the VAE in {names[1]}: "
            f"`helios plan` says what needs less and what fits here{kept}"
        ) from error
