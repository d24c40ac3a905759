"""What of a transformer is trained: all of it, or low-rank adapters and a few modules in full.

The list of trained tensors comes from module objects, never from names in a filter: a renamed layer then is an error
and not a layer that silently stays as it was.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from helios.errors import InputError
from helios.extras import load_extra
from helios.training.player import parameters_of

MEMORY_PATCHES = ("patch_short", "patch_mid", "patch_long")
IN_FULL = "trained_in_full.safetensors"


@dataclass(frozen=True, kw_only=True)
class FullTraining:
    """Every parameter, in float32.

    Args:
        frozen: names of modules that stay as they are (the memory patches, while no history is read).
    """

    frozen: tuple[str, ...] = ()

    def attach(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Make the model trainable and return what is trained, by name."""
        model.requires_grad_(True).float()
        for name in self.frozen:
            child(model, name).requires_grad_(False)
        return parameters_of(model)


@dataclass(frozen=True, kw_only=True)
class LoraTraining:
    """A new low-rank adapter (Hu et al. 2021) on every linear layer outside of norms; the dense weights are frozen.

    Args:
        rank: of the adapter; its scale is ``alpha / rank``.
        alpha: None for the rank, a scale of 1.
        patches: patch convolutions that get an adapter too.
        full: modules that are trained in full beside it.
        adapter: its name in the model.
    """

    rank: int = 128
    alpha: float | None = None
    patches: tuple[str, ...] = ("patch_embedding",)
    full: tuple[str, ...] = MEMORY_PATCHES
    adapter: str = "default"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"rank={self.rank} adapts nothing: use 1 or more")
        twice = set(self.patches) & set(self.full)
        if twice:
            raise InputError(f"{sorted(twice)} are both adapted and trained in full: name each once")

    def attach(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Add the adapter and return what is trained, by name.

        Raises: InputError for a module that the model does not have, or without the package ``peft``.
        """
        LoraConfig = load_extra("peft", extra="train").LoraConfig

        model.requires_grad_(False)
        targets = self.targets(model)
        alpha = self.rank if self.alpha is None else self.alpha
        config = LoraConfig(
            r=self.rank, lora_alpha=alpha, lora_dropout=0.0, init_lora_weights="gaussian", target_modules=targets
        )
        model.add_adapter(config, adapter_name=self.adapter)
        adapted = {name for name, module in model.named_modules() if is_adapted(module)}
        if adapted != set(targets):
            raise ValueError(f"adapters are on {sorted(adapted ^ set(targets))[:3]}..., not on the layers asked for")
        for name in self.full:
            child(model, name).float().requires_grad_(True)
        trained = parameters_of(model)
        for parameter in trained.values():
            parameter.data = parameter.data.float()
        return trained

    def targets(self, model: nn.Module) -> list[str]:
        """Names of the layers that get an adapter."""
        linears = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and "norm" not in n]
        for name in self.patches:
            if not isinstance(child(model, name), nn.Conv3d):
                raise InputError(
                    f"patches={name!r} is not a patch convolution: adapters on linear layers are automatic"
                )
        return linears + list(self.patches)


Training = FullTraining | LoraTraining


def child(model: nn.Module, name: str) -> nn.Module:
    """A module by its dotted name.

    Raises: InputError naming the nearest module that exists.
    """
    known = dict(model.named_modules())
    if name not in known or not name:
        close = get_close_matches(name, known, n=1, cutoff=0.0)
        raise InputError(f"{name!r} is not a module of the transformer: did you mean {close[0]!r}?")
    return known[name]


def is_adapted(module: nn.Module) -> bool:
    """Whether a module is a layer with a low-rank adapter."""
    return hasattr(module, "base_layer") and hasattr(module, "lora_A")


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """The dense model alone inside the block, bit for bit; the adapters are back after it, whatever happens.

    What wants gradients is remembered: switching adapters off freezes them, and on again wakes all of them.
    """
    layers = [module for module in model.modules() if is_adapted(module)]
    wanted = {parameter: parameter.requires_grad for layer in layers for parameter in layer.parameters()}
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, wants in wanted.items():
            parameter.requires_grad_(wants)


@torch.no_grad()
def merge(model: nn.Module) -> nn.Module:
    """Fuse every adapter into its dense layer, in float32, and take the adapters out; returns the model.

    W <- W + (alpha / rank) * B @ A        then cast back to the layer's precision
    """
    for name, layer in [(n, m) for n, m in model.named_modules() if is_adapted(m)]:
        weight = layer.get_base_layer().weight
        deltas = [_delta(layer, adapter).to(weight.device) for adapter in layer.active_adapters]
        fused = weight.float() + sum(deltas)  # the dense weight of a network that takes turns may be on the host
        weight.data = fused.to(weight.dtype)
        parent, _, last = name.rpartition(".")
        owner = model.get_submodule(parent)
        if isinstance(owner, nn.ModuleList):
            owner[int(last)] = layer.get_base_layer()
        else:
            setattr(owner, last, layer.get_base_layer())
    if getattr(model, "_hf_peft_config_loaded", False):
        model._hf_peft_config_loaded = False
        del model.peft_config
    return model


def save_adapter(model: nn.Module, folder: Path, training: LoraTraining) -> None:
    """Write the adapter as ``pytorch_lora_weights.safetensors``, the file that Diffusers and Helios load.

    Modules that were trained in full go beside it, into ``trained_in_full.safetensors``, under their names in the
    model: ``model.load_state_dict(..., strict=False)`` takes them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.save_lora_adapter(folder, adapter_name=training.adapter)
    if training.full:
        named = {f"{name}.{key}": p for name in training.full for key, p in child(model, name).named_parameters()}
        save_file({key: p.detach().contiguous() for key, p in named.items()}, folder / IN_FULL)


def _delta(layer: nn.Module, adapter: str) -> Tensor:
    """The adapter's product in float32, in the shape of the dense weight; a convolution's up-projection is 1x1x1."""
    down, up = layer.lora_A[adapter].weight.float(), layer.lora_B[adapter].weight.float()
    product = up.flatten(1) @ down.flatten(1)
    return (product * layer.scaling[adapter]).view_as(layer.get_base_layer().weight)
