"""Transformer blocks compiled ahead of time (AOTInductor): built once, loaded in milliseconds without a compiler.

One package per level shape serves all blocks but the last: a package holds code and no weights. LoRA and weights
changed in place keep working. Proven on the CPU; no GPU has run it with Helios yet.

B batch, L video tokens, S text tokens, D width, R runs, N heads, K head width, P rotated pairs.
"""

import json
import logging
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from helios.engine.acceleration import require_compiler
from helios.errors import InputError
from helios.models.transformer.layout import TokenLayout

if TYPE_CHECKING:
    from helios.models.transformer.model import HeliosTransformer3DModel
    from helios.models.vae import HeliosVAE

logger = logging.getLogger(__name__)

_MANIFEST = "packages.json"
_PACKAGES = "batch*-history*-noisy*.pt2"


@torch.no_grad()
def build_packages(transformer: "HeliosTransformer3DModel", warm_up: Callable[[], None], folder: str | Path) -> Path:
    """Compile a block for every shape that a run gives it.

    Args:
        transformer: on the device and in the precision that it will run in, otherwise untouched.
        warm_up: runs every level once, as :meth:`Helios.warm_up` does.
        folder: made if it is not there; needs a few megabytes per level and a C++ compiler. Packages of other shapes
            stay in it if they were made for the same machine, versions and transformer; others go.
    Returns: the folder.
    Raises: InputError for a transformer that has been made approximate, and where no C++ compiler is.
    """
    _refuse_approximate(transformer)
    require_compiler()
    folder, manifest = Path(folder), json.dumps(_manifest(transformer), indent=2) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    _begin(folder, manifest)
    shapes: dict[str, tuple] = {}
    block: Any = transformer.blocks[0]
    spy = block.register_forward_pre_hook(lambda _, inputs: shapes.setdefault(_file(inputs[4], inputs[0]), inputs))
    try:
        warm_up()
    finally:
        spy.remove()
    for file, inputs in shapes.items():
        _compile(block, inputs, folder / file)
    (folder / _MANIFEST).write_text(manifest)
    return folder


def _refuse_approximate(transformer: "HeliosTransformer3DModel") -> None:
    if transformer.approximations:
        names = ", ".join(transformer.approximations)
        raise InputError(f"packages hold the exact blocks, and this model is approximate ({names}): use one of the two")


def _begin(folder: Path, manifest: str) -> None:
    """Take the manifest away until all packages are written: a folder that is half done must not pass for a whole one."""
    written = folder / _MANIFEST
    alike = written.is_file() and written.read_text() == manifest
    written.unlink(missing_ok=True)
    for package in () if alike else folder.glob(_PACKAGES):
        package.unlink()


def _compile(block: Any, inputs: tuple, package: Path) -> None:
    y_BLD, text, modulation_BR6D, table_BLP2, layout, *_ = inputs
    fused, block.attn1._fused = block.attn1._fused, None  # a package takes its weights by their names
    try:
        program = torch.export.export(_OnTensors(block, layout), (y_BLD, *text, modulation_BR6D, table_BLP2))
    finally:
        block.attn1._fused = fused
    options = {"aot_inductor.package_constants_in_so": False}
    torch._inductor.aoti_compile_and_package(program, package_path=str(package), inductor_configs=options)


class _OnTensors(nn.Module):
    """A block as a function of tensors alone, for one layout of tokens."""

    def __init__(self, block: nn.Module, layout: TokenLayout) -> None:
        super().__init__()
        self.block, self.layout = block, layout

    def forward(
        self, y_BLD: Tensor, keys_BSNK: Tensor, values_BSNK: Tensor, modulation_BR6D: Tensor, table_BLP2: Tensor
    ) -> Tensor:
        return self.block(y_BLD, (keys_BSNK, values_BSNK), modulation_BR6D, table_BLP2, self.layout)


def _file(layout: TokenLayout, y_BLD: Tensor) -> str:
    return f"batch{y_BLD.shape[0]}-history{layout.history}-noisy{'-'.join(map(str, layout.noisy))}.pt2"


def _manifest(transformer: "HeliosTransformer3DModel") -> dict[str, Any]:
    """What must be the same where a package is loaded."""
    device = transformer.device
    module = None if device.type == "cpu" else torch.get_device_module(device)
    return {
        "torch": torch.__version__,
        "device": platform.processor() or platform.machine() if module is None else module.get_device_name(device),
        "capability": torch.backends.cpu.get_cpu_capability() if module is None else None,
        "dtype": str(transformer.dtype),
        "config": {key: value for key, value in transformer.config.items() if not key.startswith("_")},
    }


@dataclass(frozen=True, kw_only=True)
class PackagedBlocks:
    """Run the blocks from packages; shapes that have none run as before, with a warning, and so do the last block and
    gradients.

    Args:
        folder: made by :func:`build_packages`, on the same kind of machine with the same PyTorch.
    Raises: InputError when it holds no packages, and, on applying, when they were made for another model, precision,
        machine or PyTorch.
    """

    compiles: ClassVar[bool] = False
    folder: str | Path

    def __post_init__(self) -> None:
        _built(Path(self.folder))

    def apply(self, transformer: "HeliosTransformer3DModel", vae: "HeliosVAE") -> None:
        folder = Path(self.folder)
        _refuse_approximate(transformer)
        _check(folder, _manifest(transformer))
        missing = _Missing(folder)
        for block in transformer.blocks[:-1]:
            runners = {file.name: _load(block, file) for file in sorted(folder.glob(_PACKAGES))}
            block.forward = _Packaged(block.forward, runners, missing)


def _built(folder: Path) -> dict[str, Any]:
    """What the packages of a folder were made for."""
    try:
        return json.loads((folder / _MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{str(folder)!r} holds no packages: make them with helios compile") from error


def _check(folder: Path, here: dict[str, Any]) -> None:
    built = _built(folder)
    for key, value in json.loads(json.dumps(here)).items():
        if built.get(key) != value:
            raise InputError(
                f"the packages in {str(folder)!r} were made for another {key} ({built.get(key)}, here {value}): "
                "make them anew with helios compile"
            )


def _load(block: nn.Module, file: Path) -> Callable[..., Tensor]:
    runner = torch._inductor.aoti_load_package(str(file))
    weights = {f"block.{name}": value.data for name, value in block.named_parameters()}
    needed = {name: weights[name] for name in runner.get_constant_fqns()}
    runner.load_constants(needed, check_full_update=True, user_managed=True)
    return runner


class _Missing:
    """Says once for each shape that it has no package; shared by the blocks of a transformer."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._told = folder, set[str]()

    def tell(self, file: str) -> None:
        if file in self._told:
            return
        self._told.add(file)
        logger.warning(
            "%s has no package %s, its blocks run without: make it with `helios compile -o %s` and the model, height and "
            "width of the run",
            self._folder,
            file,
            self._folder,
        )


class _Packaged:
    """The forward of one block."""

    def __init__(
        self, plain: Callable[..., Tensor], runners: dict[str, Callable[..., Tensor]], missing: _Missing
    ) -> None:
        self._plain, self._runners, self._missing = plain, runners, missing

    def __call__(
        self,
        y_BLD: Tensor,
        text: Any,
        modulation_BR6D: Tensor,
        table_BLP2: Tensor,
        layout: TokenLayout,
        noisy_only: bool = False,
        kept: None = None,
    ) -> Tensor:
        file, elsewhere = _file(layout, y_BLD), noisy_only or isinstance(text, Tensor) or torch.is_grad_enabled()
        runner = None if elsewhere else self._runners.get(file)
        if runner is None:
            if not elsewhere:
                self._missing.tell(file)
            return self._plain(y_BLD, text, modulation_BR6D, table_BLP2, layout, noisy_only)
        return runner(y_BLD, *text, modulation_BR6D, table_BLP2)
