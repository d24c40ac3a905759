"""The text of a running stream: prompts encoded once, mixed per chunk, turned into keys and values when they change.

B batch, S text tokens, E width of the text encoder.
"""

import threading
from typing import Protocol

import torch
from torch import Tensor

from helios.conditioning.timeline import Cue, Mix, Timeline, change_of
from helios.models.transformer.context import TextContext


class Encoder(Protocol):
    """The prompt encoder as a stream sees it."""

    def check(self, prompt: str) -> int:
        """Tokens of a prompt. Raises: InputError when it is empty or too long."""
        ...

    def encode(self, prompts: list[str]) -> Tensor:
        """States [B, S, E] of prompts, zero beyond their ends."""
        ...


class StreamText:
    """Text source of a session whose prompt may change while it runs.

    Memory is fixed: embeddings of the prompts on the timelines, keys and values of the current mix only.

    Args:
        model: the transformer, which turns states into keys and values.
        encoder: of prompts; keeps what it has encoded.
        timelines: one per video.
        negative: prompt of the unconditional pass, the same for all videos; encoded when it is first asked for.
    """

    def __init__(self, model, encoder: Encoder, timelines: tuple[Timeline, ...], negative: str) -> None:
        self._model, self._encoder = model, encoder
        self._timelines, self._negative_prompt = timelines, negative
        self._lock = threading.Lock()
        self._next_chunk = 0
        self._current: tuple[tuple[Mix, ...], TextContext] | None = None
        self._negative: TextContext | None = None

    @property
    def timelines(self) -> tuple[Timeline, ...]:
        """The prompts of each video, with every change so far."""
        return self._timelines

    def change(self, prompt: str, *, blend: int) -> int:
        """Turn every video to another prompt at the next chunk that has not begun; returns that chunk's number.

        Args:
            blend: chunks over which the old prompt fades into it; 0 is a hard cut.
        Raises: InputError, with nothing changed, when the prompt is empty or too long or ``blend`` is negative.
        """
        change = change_of(blend)
        self._encoder.check(prompt)
        self._encoder.encode([prompt])  # In the caller's thread, so that the stream finds it cached.
        with self._lock:
            cue = Cue(chunk=self._next_chunk, prompt=prompt, change=change)
            self._timelines = tuple(timeline.with_cue(cue) for timeline in self._timelines)
            return self._next_chunk

    @property
    def next_chunk(self) -> int:
        """The first chunk that a change of prompt can still reach."""
        return self._next_chunk

    def begin_chunk(self, chunk: int) -> tuple[Mix, ...]:
        """Fix the prompts of a chunk; later changes take effect at the one after it."""
        with self._lock:
            self._next_chunk = chunk + 1
            return tuple(timeline.at(chunk) for timeline in self._timelines)

    def stand_at(self, chunk: int) -> None:
        """Make ``chunk`` the next one (at the start, and when a saved stream is taken up)."""
        with self._lock:
            self._next_chunk = chunk

    def conditional(self, chunk: int) -> TextContext:
        """Keys and values of what governs a chunk, [B, S, ...]; fixes its prompts, and reuses those of the same mix."""
        mixes = self.begin_chunk(chunk)
        if self._current is None or self._current[0] != mixes:
            embeds_BSE = torch.cat([self._mixed(mix) for mix in mixes])
            self._current = (mixes, self._model.encode_text(embeds_BSE))
        return self._current[1]

    def unconditional(self) -> TextContext:
        """Keys and values of the negative prompt for every video, [B, S, ...]; made once."""
        if self._negative is None:
            embeds_1SE = self._encoder.encode([self._negative_prompt])
            self._negative = self._model.encode_text(embeds_1SE.expand(len(self._timelines), -1, -1))
        return self._negative

    def _mixed(self, mix: Mix) -> Tensor:
        (first, _), *others = mix.steps
        embeds_1SE = self._encoder.encode([first])
        for prompt, weight in others:
            embeds_1SE = torch.lerp(embeds_1SE, self._encoder.encode([prompt]), weight)
        return embeds_1SE
