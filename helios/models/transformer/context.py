"""What stays the same while a prompt or a chunk lasts: encoded text and encoded history.

B batch, C channels, T latent frames, H W latent height and width; L tokens, S text tokens, D width, N heads, K head
width, P rotated pairs.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from helios.errors import InputError
from helios.models.transformer.attention import TextKeys
from helios.models.transformer.rotary import Frames, Rotary
from helios.shapes import FramePositions, HistorySizes


@dataclass(frozen=True, kw_only=True)
class HistoryLatents:
    """The clean past as the network reads it, at full latent resolution; what is not there yet is zeros.

    Attributes:
        long_BCTHW: [B, 16, 16, H, W] oldest frames, or None.
        mid_BCTHW: [B, 16, 2, H, W], or None.
        short_BCTHW: [B, 16, 2, H, W] the anchor (first frame of the video) and the newest frame.
    """

    long_BCTHW: Tensor | None
    mid_BCTHW: Tensor | None
    short_BCTHW: Tensor

    def positions(self, chunk_latent_frames: int = 9) -> FramePositions:
        """The published numbering: anchor 0, long, mid, newest, then the chunk."""
        long, mid = (0 if x is None else x.shape[2] for x in (self.long_BCTHW, self.mid_BCTHW))
        sizes = HistorySizes(long=long, mid=mid, newest=self.short_BCTHW.shape[2] - 1)
        return FramePositions(history=sizes, chunk_latent_frames=chunk_latent_frames)


@dataclass
class KeptKeys:
    """Keys and values of one block's history tokens, from the first step of a chunk for its other steps.

    Approximate: from the second block on history tokens have attended to the noisy ones, which change at every step.
    """

    keys_BHNK: Tensor | None = None
    values_BHNK: Tensor | None = None

    def complete(self, keys_BSNK: Tensor, values_BSNK: Tensor, history: int) -> TextKeys:
        """Keys and values of history and noisy tokens.

        Args:
            keys_BSNK, values_BSNK: of this step: of all tokens at the first one, which is kept, of the noisy ones later.
            history: how many of them are history.
        """
        if history:
            self.keys_BHNK, self.values_BHNK = keys_BSNK[:, :history].clone(), values_BSNK[:, :history].clone()
            return keys_BSNK, values_BSNK
        assert self.keys_BHNK is not None and self.values_BHNK is not None, "the first step has the history"
        return torch.cat([self.keys_BHNK, keys_BSNK], dim=1), torch.cat([self.values_BHNK, values_BSNK], dim=1)


@dataclass(frozen=True, kw_only=True)
class HistoryContext:
    """Encoded history of one chunk.

    Attributes:
        tokens_BLD: patch tokens [long | mid | short].
        rotary: their rotary table.
        modulation_16D: time projection of timestep 0 for these tokens; None in models whose history takes
            the timestep of the chunk.
        noisy_frames: time positions of the chunk that follows; a shorter chunk takes the first of them.
        kept: where each block keeps its history's keys and values for the other steps of the chunk; empty, the rule, in
            a model that computes them at every step.
    """

    tokens_BLD: Tensor
    rotary: Rotary
    modulation_16D: Tensor | None
    noisy_frames: Frames
    kept: tuple[KeptKeys, ...] = ()

    def repeat(self, n: int) -> "HistoryContext":
        """The same history for ``n`` copies of the batch, one copy after the other; nothing is kept of them yet."""
        kept = tuple(KeptKeys() for _ in self.kept)
        return replace(self, tokens_BLD=self.tokens_BLD.repeat(n, 1, 1), rotary=self.rotary.repeat(n), kept=kept)

    @property
    def is_kept(self) -> bool:
        """Whether every block has the keys and values of these tokens, so that the tokens themselves can stay away."""
        return bool(self.kept) and self.kept[-1].keys_BHNK is not None


@dataclass(frozen=True, kw_only=True)
class TextContext:
    """Encoded text of a batch of prompts.

    Attributes:
        projected_BSD: text tokens in the model's width.
        keys: cross-attention (keys, values), [B, S, N, K] each, of every block; empty where each block makes its own
            from ``projected_BSD`` (in training: recomputed under gradient checkpointing, kept out of the graph's root).
    """

    projected_BSD: Tensor
    keys: tuple[TextKeys, ...] = field(default=())

    @property
    def batch(self) -> int:
        return self.projected_BSD.shape[0]

    def of_block(self, index: int) -> Tensor | TextKeys:
        """What block number ``index`` attends to."""
        return self.keys[index] if self.keys else self.projected_BSD

    def repeat(self, n: int) -> "TextContext":
        """The same prompts for ``n`` copies of the batch, one copy after the other."""
        return TextContext.cat([self] * n)

    @staticmethod
    def cat(contexts: "list[TextContext]") -> "TextContext":
        """Several batches of prompts as one.

        Raises: InputError when they have different lengths, or only some of them hold keys.
        """
        if len({context.projected_BSD.shape[1] for context in contexts}) > 1:
            raise InputError("texts of different token counts cannot share a batch: pad them to the same length")
        if len({len(context.keys) for context in contexts}) > 1:
            raise InputError("texts encoded with and without keys cannot share a batch: encode them the same way")
        keys = tuple(
            tuple(torch.cat(parts) for parts in zip(*block)) for block in zip(*(context.keys for context in contexts))
        )
        return TextContext(projected_BSD=torch.cat([context.projected_BSD for context in contexts]), keys=keys)
