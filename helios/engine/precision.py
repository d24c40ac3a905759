"""In which precision a model runs, and how it was made approximate, as videos and sessions record it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Names of PyTorch's dtypes, such as ``bfloat16``.

    Attributes:
        dtype: of transformer and text encoder.
        vae_dtype: of the VAE; float32 is the published setting.
        approximations: names of what makes the transformer approximate (:mod:`helios.engine.approximation`), sorted.
    """

    dtype: str
    vae_dtype: str = "float32"
    approximations: tuple[str, ...] = ()

    @staticmethod
    def of(dtype: torch.dtype, vae_dtype: torch.dtype, approximations: Sequence[str] = ()) -> "Precision":
        return Precision(dtype=_name(dtype), vae_dtype=_name(vae_dtype), approximations=tuple(sorted(approximations)))

    @staticmethod
    def recorded(record: Mapping[str, Any]) -> "Precision | None":
        """What a record says, or None where it says nothing (early ones leave out the VAE's, which was float32)."""
        known = {name: str(record[name]) for name in ("dtype", "vae_dtype") if name in record}
        approximations = tuple(map(str, record.get("approximations", ())))
        return Precision(**known, approximations=approximations) if "dtype" in known else None

    def __str__(self) -> str:
        how = f", approximated by {' and '.join(self.approximations)}" if self.approximations else ""
        return f"{self.dtype} with the VAE in {self.vae_dtype}{how}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
