"""Text-to-video pretraining of a small backbone: rectified flow on single chunks, without a past or after an empty one.

It makes our stand-in for the pretrained model that stage 1 starts from; the text encoder can be trained along.

B batch, C channels, T latent frames, H W latent height and width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from helios.conditioning.history import FirstFrameAnchor, History
from helios.models.transformer.context import HistoryContext
from helios.schedulers.stages import SingleStage
from helios.shapes import Geometry
from helios.training.clips import LatentClip
from helios.training.methods.sparse import Excerpt, check_excerpts, draw_excerpt
from helios.training.network import Network
from helios.training.noise_levels import NoiseLaw, look_up
from helios.training.player import Player
from helios.training.sample import cut
from helios.training.seeds import Draws, Purpose
from helios.training.text import Captions


@dataclass(frozen=True, kw_only=True)
class FlowPoint:
    """A point on the straight path from data to noise (Liu et al. 2022), float32.

        x = (1 - sigma) * x0 + sigma * noise        velocity = noise - x0

    Attributes:
        x_BCTHW, velocity_BCTHW: the point and the regression target.
        timestep_B: what the network is given, 1000 * sigma.
    """

    x_BCTHW: Tensor
    velocity_BCTHW: Tensor
    timestep_B: Tensor

    @staticmethod
    def draw(x0_BCTHW: Tensor, law: NoiseLaw, draws: Draws) -> "FlowPoint":
        """One noise level for all latent frames of a chunk, from the published table of 1000."""
        sigma_B, timestep_B = look_up(SingleStage().noise_table(), law.fractions(draws.uniform(Purpose.SIGMA)))
        noise_BCTHW = draws.normal(Purpose.NOISE, *x0_BCTHW.shape[1:]).to(x0_BCTHW.device)
        x_BCTHW = blend(x0_BCTHW.float(), noise_BCTHW, sigma_B.to(x0_BCTHW.device))
        return FlowPoint(x_BCTHW=x_BCTHW, velocity_BCTHW=noise_BCTHW - x0_BCTHW, timestep_B=timestep_B)


@dataclass(frozen=True, kw_only=True)
class NoPast:
    """Chunks by themselves, as a text-to-video model has them: frames know how far apart they are, not when they are."""

    def before(self, chunk_BCTHW: Tensor, shrink: int, network: Network, geometry: Geometry) -> None:
        """Nothing."""


@dataclass(frozen=True, kw_only=True)
class EmptyPast:
    """The history that a video's first chunk has in sampling: zeros at fixed places in time, at the size of the excerpt.

    The memory patches read it and stay as they are: of zeros they only see their bias.
    """

    def before(self, chunk_BCTHW: Tensor, shrink: int, network: Network, geometry: Geometry) -> HistoryContext:
        """Zero latents for every slot, encoded."""
        batch, _, _, height, width = chunk_BCTHW.shape
        anchor = FirstFrameAnchor()
        past = History.empty(
            batch, anchor.window(geometry), geometry, height // shrink, width // shrink, chunk_BCTHW.device
        )
        return network.encode_history(anchor.split(past, geometry))


class FlowMatching:
    """The method: one player, one draw per clip, mean squared error of the velocity.

    Args:
        student: the player; its module is the transformer, or holds it together with a text encoder.
        network: the transformer.
        captions: text states.
        geometry: of the checkpoint.
        excerpts: which parts of a chunk the steps see, how often each, and under how much noise.
        past: what comes before a chunk.
    """

    def __init__(
        self,
        student: Player,
        network: Network,
        captions: Captions,
        geometry: Geometry,
        excerpts: Sequence[Excerpt] = (Excerpt(),),
        past: NoPast | EmptyPast = NoPast(),
    ):
        self.players = (student,)
        self.network, self.captions, self.geometry = network, captions, geometry
        check_excerpts(excerpts)
        self.excerpts, self.past = excerpts, past

    def turns(self, step: int) -> tuple[str, ...]:
        """The one player moves in every step."""
        return (self.players[0].name,)

    def backward(self, player: str, items: Sequence[LatentClip], draws: Draws, scale: float) -> dict[str, Tensor]:
        """See :class:`helios.training.methods.base.Method`."""
        sample = cut(list(items), draws, self.geometry)
        text = self.network.encode_text(self.captions.encode(items, draws, sample.chunks))
        excerpt = draw_excerpt(self.excerpts, draws)
        chunk_BCTHW = sample.target_BCTHW.to(self.network.device)
        history = self.past.before(chunk_BCTHW, excerpt.shrink, self.network, self.geometry)
        positions = tuple(range(chunk_BCTHW.shape[2])) if history is None else history.noisy_frames
        target_BCTHW, frames = excerpt.take(chunk_BCTHW, positions, draws)
        point = FlowPoint.draw(target_BCTHW, excerpt.law, draws)
        velocity = self.network.velocity(point.x_BCTHW, point.timestep_B, text, history, frames=frames)
        loss = squared_error(velocity, point.velocity_BCTHW)
        (loss * scale).backward()
        return {"loss": loss.detach()}


def blend(x0_BCTHW: Tensor, noise_BCTHW: Tensor, sigma_B: Tensor) -> Tensor:
    """``(1 - sigma) * x0 + sigma * noise``, one sigma per sample, in the dtype of x0."""
    sigma = sigma_B.to(x0_BCTHW).view(-1, 1, 1, 1, 1)
    return (1 - sigma) * x0_BCTHW + sigma * noise_BCTHW


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over everything, float32."""
    return torch.nn.functional.mse_loss(prediction.float(), target.float())
