"""A tiny transformer beside Diffusers' own, with the same random weights: every tensor is random, none is 0 or 1."""

from dataclasses import dataclass

import pytest
import torch
from diffusers import HeliosTransformer3DModel as Published
from torch import Tensor

from helios.models.transformer.context import HistoryLatents
from helios.models.transformer.model import HeliosTransformer3DModel

TINY = {
    "num_attention_heads": 4,
    "attention_head_dim": 20,
    "rope_dim": (8, 6, 6),
    "ffn_dim": 112,
    "num_layers": 3,
    "freq_dim": 64,
    "text_dim": 32,
}


@dataclass(frozen=True)
class Case:
    """Inputs of one forward pass."""

    x: Tensor
    timestep: Tensor
    text: Tensor
    history: HistoryLatents | None

    def published(self, dtype: torch.dtype = torch.float32) -> dict:
        """Keyword arguments of Diffusers' forward."""
        inputs = {
            "hidden_states": self.x.to(dtype),
            "timestep": self.timestep,
            "encoder_hidden_states": self.text.to(dtype),
            "return_dict": False,
        }
        if self.history is not None:
            positions = self.history.positions(self.x.shape[2])
            inputs["indices_hidden_states"] = torch.tensor([positions.noisy])
            for name in ("short", "mid", "long"):
                latents = getattr(self.history, f"{name}_BCTHW")
                if latents is not None:
                    inputs[f"latents_history_{name}"] = latents.to(dtype)
                    inputs[f"indices_latents_history_{name}"] = torch.tensor([getattr(positions, name)])
        return inputs


def make_case(
    height=6, width=10, *, batch=1, frames=3, text=7, level_height=None, level_width=None, history=True, timestep=713.25
) -> Case:
    generator = torch.Generator().manual_seed(height * 100 + width)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    past = HistoryLatents(
        long_BCTHW=normal(batch, 16, 16, height, width),
        mid_BCTHW=normal(batch, 16, 2, height, width),
        short_BCTHW=normal(batch, 16, 2, height, width),
    )
    if not isinstance(timestep, Tensor):
        timestep = torch.tensor([timestep, timestep / 2][:batch], dtype=torch.float64)
    return Case(
        x=normal(batch, 16, frames, level_height or height, level_width or width),
        timestep=timestep,
        text=normal(batch, text, 32),
        history=past if history else None,
    )


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Every parameter a random draw of its fan-in's scale; norms around 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            draw = torch.randn(parameter.shape, generator=generator)
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            norm_like = "norm" in name and name.endswith("weight")
            parameter.copy_(draw * fan_in**-0.5 + (1.0 if norm_like else 0.0))


def make_pair(dtype=torch.float32, **options) -> tuple[HeliosTransformer3DModel, Published]:
    """(ours, Diffusers') with equal weights, in the dtype, as loading would leave them."""
    ours, published = HeliosTransformer3DModel(**TINY | options), Published(**TINY | options)
    randomise(ours)
    ours.cast(dtype)
    for name, parameter in published.named_parameters():
        parameter.data = ours.get_parameter(name).detach().clone()
    return ours.eval(), published.eval()


def run_split(model: HeliosTransformer3DModel, case: Case) -> Tensor:
    """Our streamed calls: text once, history once, one velocity."""
    history = None if case.history is None else model.encode_history(case.history)
    return model.velocity(case.x, case.timestep, model.encode_text(case.text), history)


@pytest.fixture
def pairs():
    return make_pair


@pytest.fixture
def cases():
    return make_case


@pytest.fixture
def split():
    return run_split
