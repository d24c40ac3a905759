"""Ways to make a loaded model faster that keep its mathematics. Each is a choice; none is made by default.

They change the order of floating-point operations at most. What no GPU has run is said so here and by
``helios doctor``.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch

from helios.errors import InputError

if TYPE_CHECKING:
    from helios.models.transformer.model import HeliosTransformer3DModel
    from helios.models.vae import HeliosVAE


class Acceleration(Protocol):
    """Changes how a transformer and a VAE compute, not what.

    Attributes:
        compiles: whether the first run of a size waits for a compiler, unless :meth:`Helios.warm_up` came before.
    """

    compiles: ClassVar[bool]

    def apply(self, transformer: "HeliosTransformer3DModel", vae: "HeliosVAE") -> None:
        """Change the loaded parts in place; nothing takes it back.

        Raises: InputError when this acceleration does not suit the model or the machine.
        """
        ...


@dataclass(frozen=True)
class FusedProjections:
    """Queries, keys and values of self attention as one matrix product. Weights keep their names and their size; those
    that were mapped from a file become memory of this process.
    """

    compiles: ClassVar[bool] = False

    def apply(self, transformer: "HeliosTransformer3DModel", vae: "HeliosVAE") -> None:
        transformer.fuse_projections()


@dataclass(frozen=True, kw_only=True)
class CompiledBlocks:
    """``torch.compile`` of the repeated block, once per level shape and not once per block.

    Compiling takes from half a minute (CPU) to some minutes; :meth:`Helios.warm_up` does it before the first chunk.
    No GPU has run it with Helios yet.

    Args:
        mode: of ``torch.compile``, for example ``max-autotune-no-cudagraphs``.
        backend: of ``torch.compile``.
    """

    compiles: ClassVar[bool] = True
    mode: str | None = None
    backend: str = "inductor"

    def apply(self, transformer: "HeliosTransformer3DModel", vae: "HeliosVAE") -> None:
        if self.backend == "inductor":
            require_compiler_for(transformer.device)
        # One graph per level, twice (the last block drops its history rows), and again for other sizes and batches.
        allow_recompiling()
        for block in transformer.blocks:
            block.compile(fullgraph=True, dynamic=False, mode=self.mode, backend=self.backend)


@dataclass(frozen=True)
class CompiledNorms:
    """The VAE's norm and SiLU as one pass over memory instead of four, by PyTorch's compiler; for decoding.

    Compiling takes some seconds for each size that a decoder has, a third of them once the compiler's own cache knows
    it; :meth:`Helios.warm_up` does it before the first chunk. No GPU has run it with Helios yet.
    """

    compiles: ClassVar[bool] = True

    def apply(self, transformer: "HeliosTransformer3DModel", vae: "HeliosVAE") -> None:
        require_compiler_for(vae.device)
        allow_recompiling()
        vae.backends["channel_norm_silu"] = "compiled"


def require_compiler_for(device: torch.device) -> None:
    """Refuse to compile while running where a CPU has no compiler; those of accelerators are left to PyTorch to miss.

    Raises: InputError.
    """
    if device.type == "cpu":
        require_compiler()


def require_compiler() -> None:
    """Refuse what needs a C++ compiler where there is none: compiling for the CPU, and packages for any device.

    Raises: InputError.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise InputError(
            "compiling needs a C++ compiler and there is none: install g++ or name one in CXX, or run without compiling"
        ) from error


def allow_recompiling() -> None:
    """Every size is a graph of its own, and PyTorch gives up on a function after eight."""
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
