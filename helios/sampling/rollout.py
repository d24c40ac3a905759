"""Roll a video out, chunk after chunk, each conditioned on a fixed window of the ones before it.

The whole state between two chunks is :class:`RolloutState`: the history window, the anchor and the chunk counter. The
same function serves streaming, offline generation, validation and distillation.

B batch, C channels, T latent frames, H W latent height and width, S text tokens, E width of the text encoder.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from helios.conditioning.history import History
from helios.models.transformer.context import HistoryContext, TextContext
from helios.noise import NoiseSource
from helios.sampling.denoise import (
    ChunkNoise,
    Condition,
    Denoiser,
    ForwardPass,
    FullWalk,
    Observer,
    Silent,
    Walk,
    denoise_chunk,
)
from helios.sampling.plan import SamplingPlan


@dataclass(frozen=True, kw_only=True)
class RolloutState:
    """Everything that a chunk needs from the chunks before it.

    Attributes:
        history: the window of clean latents and the anchor.
        chunk: number of the next chunk.
    """

    history: History
    chunk: int = 0


class TextSource(Protocol):
    """Encoded text of each chunk: conditional, and unconditional when the plan's guidance wants it."""

    def conditional(self, chunk: int) -> TextContext:
        """Keys and values, [B, S, ...], of the prompts that govern chunk number ``chunk``; asked for once per chunk."""
        ...

    def unconditional(self) -> TextContext:
        """Keys and values, [B, S, ...], of the negative prompt, the same for every chunk."""
        ...


@dataclass(frozen=True, kw_only=True)
class ConstantText:
    """The same encoded text for every chunk.

    Attributes:
        text: of the prompts, one row per video.
        negative: of the negative prompt, one row per video; None for plans without guidance.
    """

    text: TextContext
    negative: TextContext | None = None

    def conditional(self, chunk: int) -> TextContext:
        """:attr:`text`, whatever the chunk."""
        return self.text

    def unconditional(self) -> TextContext:
        """:attr:`negative`. Raises: ValueError when there is none."""
        if self.negative is None:
            raise ValueError("this guidance runs an unconditional pass and needs a negative prompt's encoding")
        return self.negative


class PassLayout(Protocol):
    """How the conditional and the unconditional pass share the network."""

    def condition(
        self, model: Denoiser, text: TextContext, negative: TextContext, history: HistoryContext
    ) -> Condition:
        """The forward passes of a guided step, the conditional one first.

        Args:
            model: the network that runs them.
            text, negative: of the prompts and the negative prompt, B rows each.
            history: encoded past of the chunk, B rows.
        """
        ...


@dataclass(frozen=True)
class OneBatch:
    """Both passes as one batch: fewer launches and fuller matrices, twice the activations."""

    def condition(self, model, text: TextContext, negative: TextContext, history) -> Condition:
        both = ForwardPass(text=TextContext.cat([text, negative]), history=history.repeat(2), copies=2)
        return Condition(passes=(both,))


@dataclass(frozen=True)
class TwoPasses:
    """One pass after the other: half the activations, for devices that are short of memory."""

    def condition(self, model, text: TextContext, negative: TextContext, history) -> Condition:
        apart = history.repeat(1)  # what a pass keeps of its history is its own
        return Condition(passes=(ForwardPass(text=text, history=history), ForwardPass(text=negative, history=apart)))


def rollout(
    model: Denoiser,
    plan: SamplingPlan,
    text: TextSource,
    state: RolloutState,
    noise: NoiseSource,
    *,
    chunks: int,
    layout: PassLayout = OneBatch(),
    walk: Walk = FullWalk(),
    observer: Observer = Silent(),
) -> Iterator[tuple[Tensor, RolloutState]]:
    """Yield ``chunks`` times the clean latents [B, C, T, H, W] of the next chunk and the state after it.

    Memory does not depend on ``chunks``. The text is asked for chunk by chunk, so a prompt may change between two.

    Args:
        model: predicts the velocity ``noise - x0``.
        plan: sizes, schedules, guidance, anchor.
        text: of each chunk.
        state: before the first of these chunks.
        noise: random numbers by chunk.
        layout: how the two passes of guidance share the network.
        walk: how far each level is walked and which steps carry gradients.
        observer: told about every chunk and step.
    """
    for _ in range(chunks):
        latents_BCTHW = next_chunk(model, plan, text, state, noise, layout=layout, walk=walk, observer=observer)
        history = plan.anchor.after_chunk(state.history, latents_BCTHW, state.chunk)
        state = RolloutState(history=history, chunk=state.chunk + 1)
        yield latents_BCTHW, state


def next_chunk(
    model: Denoiser,
    plan: SamplingPlan,
    text: TextSource,
    state: RolloutState,
    noise: NoiseSource,
    *,
    layout: PassLayout = OneBatch(),
    walk: Walk = FullWalk(),
    observer: Observer = Silent(),
) -> Tensor:
    """Clean latents [B, C, T, H, W] (float32) of chunk number ``state.chunk``."""
    window = state.history.window_BCTHW
    condition = condition_chunk(model, plan, text, state, layout)
    drawn = ChunkNoise.draw(plan, noise, state.chunk, window.shape[0], window.device)
    observer.conditioned(state.chunk)
    first = state.chunk == 0
    return denoise_chunk(
        model, plan, condition, drawn, chunk=state.chunk, amplified=first, walk=walk, observer=observer
    )


def condition_chunk(
    model: Denoiser, plan: SamplingPlan, text: TextSource, state: RolloutState, layout: PassLayout = OneBatch()
) -> Condition:
    """Encode what is constant within a chunk: its history, and its text where that changed."""
    streams = plan.anchor.split(state.history, plan.geometry)
    history = model.encode_history(streams, positions=plan.anchor.positions(plan.geometry))
    conditional = text.conditional(state.chunk)
    if not plan.guidance.needs_negative:
        return Condition.plain(conditional, history)
    return layout.condition(model, conditional, text.unconditional(), history)


def start_state(plan: SamplingPlan, batch: int, device: torch.device | str = "cpu") -> RolloutState:
    """The state before the first chunk of a text-to-video run."""
    rows, columns = plan.geometry.latent_size(plan.height, plan.width)
    frames = plan.anchor.window(plan.geometry)
    return RolloutState(history=History.empty(batch, frames, plan.geometry, rows, columns, device))
