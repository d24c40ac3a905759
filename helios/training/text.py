"""Captions to text states in training: stored beforehand, or encoded by a text encoder that is frozen or trained too.

B batch, S text tokens (padded), E width of the text encoder.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from helios.errors import InputError
from helios.models.text_encoder import PromptEncoder, clean_prompt
from helios.training.clips import LatentClip, wordings
from helios.training.network import Float32, Precision
from helios.training.seeds import Draws, Purpose

_SHOWN = 120


class Captions(Protocol):
    """Text states of a micro-batch."""

    def encode(self, clips: Sequence[LatentClip], draws: Draws, chunks: Sequence[int] | None = None) -> Tensor:
        """[B, S, E], zero beyond each caption's end; one wording per clip is drawn.

        Args:
            chunks: the chunk of each clip that is described, where descriptions change within clips.
        """
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """[B, S, E] of given prompts, such as the negative one; without gradients."""
        ...

    def check(self, prompts: Iterable[str]) -> None:
        """Raises: InputError when one of them is longer than the text encoder reads. Needs no weights."""
        ...

    def at_hand(self) -> AbstractContextManager[None]:
        """Around many calls of :meth:`encode_prompts`: the text encoder stays in memory between them."""
        ...


@dataclass
class StoredCaptions:
    """The states that the data set holds, computed once beforehand; the text encoder is not in memory.

    Args:
        encoder: encodes the few prompts that are not in the data (negative prompt, probes), and is released after.
    """

    encoder: PromptEncoder
    _held: bool = field(default=False, init=False, repr=False)

    @property
    def tokens(self) -> int:
        """S."""
        return self.encoder.max_tokens

    def encode(self, clips: Sequence[LatentClip], draws: Draws, chunks: Sequence[int] | None = None) -> Tensor:
        """See :class:`Captions`.

        Raises: InputError for a clip without text states, or one whose description changes.
        """
        if any(clip.texts_SE is None or getattr(clip, "script", None) for clip in clips):
            raise InputError("a clip has no text states: run `helios data prepare` with a text encoder on this data")
        chosen = draws.below(Purpose.CAPTION, [len(clip.texts_SE) for clip in clips])
        states = [clip.texts_SE[place][: self.tokens].float() for clip, place in zip(clips, chosen)]
        return torch.stack([nn.functional.pad(rows, (0, 0, 0, self.tokens - len(rows))) for rows in states])

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """See :class:`Captions`."""
        with self.at_hand():
            return self.encoder.encode(list(prompts)).float()

    def check(self, prompts: Iterable[str]) -> None:
        """See :class:`Captions`."""
        for prompt in dict.fromkeys(prompts):
            token_ids(self.encoder.tokenizer, prompt, self.tokens)

    @contextmanager
    def at_hand(self) -> Iterator[None]:
        """See :class:`Captions`. The outermost block releases the encoder."""
        held, self._held = self._held, True
        try:
            yield
        finally:
            self._held = held
            if not held:
                self.encoder.release()


@dataclass(frozen=True, kw_only=True)
class EncodedCaptions:
    """Captions through a UMT5 encoder at every step, with its gradients if it is trained.

    Args:
        tokenizer: a T5 tokenizer of ``transformers``.
        encoder: the UMT5 encoder.
        tokens: S. A small model pays for every padded token; sample with the same number.
        precision: of its matrix products.
        dropout: share of clips whose caption is replaced by ``null``, so that guidance has something to lead away
            from. 0 in the published recipe, whose backbone already knows its negative prompt.
        null: the replacement; sample with it as the negative prompt.
    """

    tokenizer: Any
    encoder: nn.Module
    tokens: int = 512
    precision: Precision = Float32()
    dropout: float = 0.0
    null: str = ""
    _ids: dict[str, list[int]] = field(default_factory=dict, repr=False, compare=False)

    def encode(self, clips: Sequence[LatentClip], draws: Draws, chunks: Sequence[int] | None = None) -> Tensor:
        """See :class:`Captions`."""
        said = [wordings(clip, chunk) for clip, chunk in zip(clips, chunks or [0] * len(clips))]
        places = draws.below(Purpose.CAPTION, [len(words) for words in said])
        dropped = (draws.uniform(Purpose.DROPOUT) < self.dropout).tolist()
        return self._run([self.null if drop else words[place] for words, place, drop in zip(said, places, dropped)])

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """See :class:`Captions`."""
        return self._run(prompts)

    def check(self, prompts: Iterable[str]) -> None:
        """See :class:`Captions`."""
        for prompt in prompts:
            self._tokenize(prompt)

    def at_hand(self) -> AbstractContextManager[None]:
        """See :class:`Captions`. This encoder never leaves."""
        return nullcontext()

    def _run(self, prompts: Sequence[str]) -> Tensor:
        """The longest caption sets the width that is computed; the rest of S is zeros, as the padding is in sampling."""
        rows = [self._tokenize(prompt) for prompt in prompts]
        device = next(self.encoder.parameters()).device
        tokens_BS = torch.full((len(rows), max(map(len, rows))), self.tokenizer.pad_token_id)
        for row, ids in zip(tokens_BS, rows):
            row[: len(ids)] = torch.tensor(ids)
        lengths_B = torch.tensor([len(ids) for ids in rows])
        mask_BS = torch.arange(tokens_BS.shape[1]) < lengths_B[:, None]
        with self.precision.context(device):
            states_BSE = self.encoder(tokens_BS.to(device), mask_BS.long().to(device)).last_hidden_state.float()
        states_BSE = states_BSE * mask_BS.to(device)[..., None]
        return nn.functional.pad(states_BSE, (0, 0, 0, self.tokens - states_BSE.shape[1]))

    def _tokenize(self, prompt: str) -> list[int]:
        if prompt not in self._ids:
            self._ids[prompt] = token_ids(self.tokenizer, prompt, self.tokens)
        return self._ids[prompt]


def token_ids(tokenizer: Any, prompt: str, limit: int) -> list[int]:
    """Tokens of a caption or another prompt, its end mark included.

    Raises: InputError when there are more than ``limit``.
    """
    ids = tokenizer(clean_prompt(prompt), add_special_tokens=True).input_ids
    if len(ids) > limit:
        said = prompt if len(prompt) <= _SHOWN else f"{prompt[:_SHOWN]}..."
        raise InputError(f"a caption has {len(ids)} tokens and the text encoder reads {limit}: shorten {said!r}")
    return ids
