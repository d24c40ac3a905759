"""Stage 3c, the adversarial term: a discriminator on top of the critic tells the student's chunks from real ones.

It has the critic's network as its trunk: heads read the hidden states of a few blocks and the predicted velocity, at
the same noise level, text and history as the critic (paper arXiv 2603.04379, section 5). The sign is the published one:
real chunks are pushed to minus infinity, the student's to plus infinity.

B batch, C channels, T latent frames, H W latent height and width, L video tokens, D width of the transformer.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helios.errors import InputError
from helios.models.transformer.context import HistoryLatents
from helios.shapes import Geometry
from helios.training.methods.flow_matching import blend
from helios.training.methods.task import ChunkTask
from helios.training.network import Network
from helios.training.seeds import Draws, Purpose

PUBLISHED_TAPS = (5, 15, 25, 35)
SMALLEST = 16
"""Latents of a chunk each way: of half of it, in patches of 2, the heads' convolutions leave one."""


class Head(nn.Module):
    """One logit per sample from a feature volume: six 3D convolutions that halve time and space, mean, linear.

    Args:
        channels: of the features.
        width: of the convolutions; 768 in the published recipe.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        layers: list[nn.Module] = []
        shapes = [(3, 1, 1), (4, 2, 1), (4, 2, 1), (3, (2, 1, 1), 1), (3, (2, 1, 1), 1), ((1, 3, 3), 1, (0, 1, 1))]
        for kernel, stride, padding in shapes:
            layers.append(nn.Conv3d(channels, width, kernel, stride=stride, padding=padding))
            layers += [nn.GroupNorm(_groups(width), width), nn.SiLU()]
            channels = width
        self.convolutions = nn.Sequential(*layers)
        self.logit = nn.Linear(width, 1)

    def forward(self, features_BDTHW: Tensor) -> Tensor:
        """[B, 1]."""
        return self.logit(self.convolutions(features_BDTHW).mean((2, 3, 4)))


class Discriminator(nn.Module):
    """Heads on the velocity and on the noisy tokens after some blocks of the critic.

    Args:
        channels: latent channels.
        hidden: width of the transformer.
        taps: blocks whose output is read, counted from 0.
        width: of the heads.
    """

    def __init__(self, *, channels: int, hidden: int, taps: tuple[int, ...] = PUBLISHED_TAPS, width: int = 768):
        super().__init__()
        self.taps = taps
        self.heads = nn.ModuleList([Head(channels, width), *(Head(hidden, width) for _ in taps)])

    def forward(self, features: list[Tensor]) -> Tensor:
        """[B, taps + 1] logits; the velocity's first."""
        return torch.cat([head(volume) for head, volume in zip(self.heads, features)], dim=1)

    def judge(self, network: Network, x_BCTHW: Tensor, timestep_B: Tensor, text_BSE: Tensor, streams: HistoryLatents):
        """Logits [B, taps + 1], float32, of noisy chunks of any size under their condition."""
        text, history = network.encode_text(text_BSE), network.encode_history(streams)
        with _tapped(network.module, self.taps) as outputs:
            velocity_BCTHW = network.velocity(x_BCTHW, timestep_B, text, history)
        patch = network.module.config.patch_size[1]
        grid = (x_BCTHW.shape[2], x_BCTHW.shape[3] // patch, x_BCTHW.shape[4] // patch)
        volumes = [_volume(outputs[tap], grid) for tap in self.taps]
        with network.precision.context(network.device):
            return self([velocity_BCTHW, *volumes]).float()


@dataclass(frozen=True, kw_only=True)
class NoAdversary:
    """Distribution matching alone."""

    def active(self, step: int) -> bool:
        """Never."""
        return False


@dataclass(frozen=True, kw_only=True)
class AdversaryConfig:
    """Weights of the adversarial terms.

    Args:
        start: critic step at which they begin; distribution matching has to be good first.
        student: weight of the student's term.
        critic: weight of the critic's.
        smoothness: weight of ``(D(real) - D(real + noise))^2``, an approximate gradient penalty. It is added as it is:
            the paper multiplies it by the critic's weight, the published code does not.
        perturbation: standard deviation of that noise.
    """

    start: int = 1000
    student: float = 0.05
    critic: float = 0.01
    smoothness: float = 100.0
    perturbation: float = 0.1

    def __post_init__(self) -> None:
        if min(self.start, self.student, self.critic, self.smoothness, self.perturbation) < 0:
            raise InputError("the adversary's start, weights and perturbation must not be negative")


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """The discriminator and its losses.

    Every input is cropped to half its height and width, all inputs of a sample at the same place; the history keeps its
    size. Real chunks are judged under their own history.

    Args:
        discriminator: its heads are trained with the critic.
        network: the critic's network.
        config: weights.
    """

    discriminator: Discriminator
    network: Network
    config: AdversaryConfig = AdversaryConfig()

    def active(self, step: int) -> bool:
        """From the configured step on."""
        return step >= self.config.start

    def student_term(
        self, x_BCTHW: Tensor, task: ChunkTask, geometry: Geometry, sigma_B: Tensor, timestep_B: Tensor, draws: Draws
    ) -> Tensor:
        """``weight * softplus(D(x))`` of the student's chunk, noised anew at the level of the scores.

        The discriminator's graph is freed before the student's backward pass begins: see :class:`CachedGradient`.
        """
        noise_BCTHW = draws.normal(Purpose.REAL_NOISE, *x_BCTHW.shape[1:]).to(x_BCTHW.device)

        def loss(chunk_BCTHW: Tensor) -> Tensor:
            noisy = blend(chunk_BCTHW, noise_BCTHW, sigma_B)
            logits = self._judge([noisy], task, geometry, timestep_B, draws)[0]
            return self.config.student * F.softplus(logits.mean(1)).mean()

        return CachedGradient.apply(x_BCTHW, loss)

    def critic_terms(
        self,
        x_BCTHW: Tensor,
        noise_BCTHW: Tensor,
        task: ChunkTask,
        geometry: Geometry,
        sigma_B: Tensor,
        timestep_B: Tensor,
        draws: Draws,
    ) -> dict[str, Tensor]:
        """The critic's adversarial loss and its parts; fake and real share noise and noise level."""
        fake, real = (blend(chunk, noise_BCTHW, sigma_B) for chunk in (x_BCTHW.detach(), task.target_BCTHW))
        shift = draws.normal(Purpose.PERTURBATION, *real.shape[1:]).to(real.device)
        logits = self._judge([fake, real, real + self.config.perturbation * shift], task, geometry, timestep_B, draws)
        on_fake, on_real, on_perturbed = logits
        hinge = self.config.critic * (F.softplus(on_real.mean(1)) + F.softplus(-on_fake.mean(1))).mean()
        smoothness = self.config.smoothness * (on_real - on_perturbed).square().mean()
        return {
            "adversary": hinge + smoothness,
            "smoothness": smoothness,
            "logit_real": on_real.mean(),
            "logit_fake": on_fake.mean(),
        }

    def _judge(
        self, inputs: list[Tensor], task: ChunkTask, geometry: Geometry, timestep_B: Tensor, draws: Draws
    ) -> list[Tensor]:
        """Logits of several versions of the micro-batch in one pass."""
        cropped = [crop_half(x, draws) for x in inputs]
        count, streams = len(inputs), task.streams(geometry)
        repeated = HistoryLatents(
            **{name: getattr(streams, name).repeat(count, 1, 1, 1, 1) for name in HistoryLatents.__dataclass_fields__}
        )
        logits = self.discriminator.judge(
            self.network,
            torch.cat(cropped),
            timestep_B.repeat(count),
            task.text_BSE.repeat(count, 1, 1),
            repeated,
        )
        return list(logits.chunk(count))


class CachedGradient(torch.autograd.Function):
    """A scalar function whose gradient is computed at once, so that its graph need not live until the backward pass.

        forward: value = loss(x), gradient = d value / d x, graph freed        backward: gradient * incoming scalar

    Parameters inside ``loss`` get no gradient.
    """

    @staticmethod
    def forward(ctx, x: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            value = loss(leaf)
            (gradient,) = torch.autograd.grad(value, leaf)
        ctx.save_for_backward(gradient)
        return value.detach()

    @staticmethod
    def backward(ctx, incoming: Tensor):
        (gradient,) = ctx.saved_tensors
        return gradient * incoming, None


def crop_half(x_BCTHW: Tensor, draws: Draws) -> Tensor:
    """A random window of half the height and width (even), at one place per sample and the same for every input."""
    height, width = x_BCTHW.shape[3:]
    size = (height // 4 * 2, width // 4 * 2)
    rows = []
    for x_CTHW, generator in zip(x_BCTHW, draws.generators(Purpose.CROP)):
        y, x = (int(generator.integers(full - part + 1)) for full, part in zip((height, width), size))
        rows.append(x_CTHW[:, :, y : y + size[0], x : x + size[1]])
    return torch.stack(rows)


def _groups(width: int) -> int:
    """32 groups at the published width; fewer in narrow heads, because a norm over few values forgets its input."""
    return max(groups for groups in range(1, 33) if width % groups == 0 and (groups == 1 or width // groups >= 16))


@contextmanager
def _tapped(module: nn.Module, taps: tuple[int, ...]) -> Iterator[dict[int, Tensor]]:
    """Outputs of some blocks during the block. The first call counts: checkpointing calls a block again in backward."""
    outputs: dict[int, Tensor] = {}
    hooks = [
        module.blocks[tap].register_forward_hook(lambda _, __, out, tap=tap: (outputs.setdefault(tap, out), None)[1])
        for tap in taps
    ]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _volume(tokens_BLD: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """The noisy tokens, which are the last of the sequence, as [B, D, T, H / 2, W / 2]."""
    noisy_BLD = tokens_BLD[:, -math.prod(grid) :]
    return noisy_BLD.transpose(1, 2).unflatten(2, grid)
