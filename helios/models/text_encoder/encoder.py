"""UMT5 prompt encoding: cached per prompt, weights loaded when first needed and freed on request.

B batch, S text tokens (512, padded), E width of the text encoder.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from helios.errors import InputError
from helios.models.text_encoder.clean import clean_prompt

MAX_TOKENS = 512
_CACHED_PROMPTS = 256


class PromptEncoder:
    """Turns prompts into the states that the transformer attends to.

    The text encoder (11 GB in bfloat16 in the released models) is loaded when a prompt that is not cached has to be
    encoded, and :meth:`release` frees it; so a stream can drop it and take a new prompt later. Safe to use from
    several threads.

    Args:
        tokenizer: a T5 tokenizer of ``transformers``.
        load_encoder: makes the UMT5 encoder, on its device, in evaluation mode.
        max_tokens: S, the fixed length that prompts are padded to; None for :func:`prompt_tokens` of the
            tokenizer.
    """

    def __init__(self, tokenizer: Any, load_encoder: Callable[[], nn.Module], *, max_tokens: int | None = None) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = prompt_tokens(tokenizer.model_max_length) if max_tokens is None else max_tokens
        self._load_encoder = load_encoder
        self._encoder: nn.Module | None = None
        self._states: OrderedDict[str, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def from_directory(
        cls, path: str | Path, dtype: torch.dtype, device: torch.device | str, *, max_tokens: int | None = None
    ) -> "PromptEncoder":
        """From the ``tokenizer/`` and ``text_encoder/`` folders of any checkpoint in the Diffusers layout."""
        path = Path(path)
        tokenizer = load_tokenizer(path / "tokenizer")
        return cls(tokenizer, lambda: _load_encoder(path / "text_encoder", dtype, device), max_tokens=max_tokens)

    @property
    def loaded(self) -> bool:
        """Whether the text encoder's weights are in memory."""
        return self._encoder is not None

    def check(self, prompt: str, *, allow_empty: bool = False) -> int:
        """Count the tokens of a prompt, its end mark included. Needs no weights.

        Args:
            prompt: as given by the user.
            allow_empty: an empty prompt is fine as a negative prompt.
        Raises: InputError when the prompt is empty, or longer than the encoder reads (it says how much is used).
        """
        return len(self._tokenize(clean_prompt(prompt), allow_empty=allow_empty))

    def spelled(self, prompt: str) -> tuple[str, ...]:
        """Words of a prompt that the tokenizer knows by their letters alone, each once: the model has not learnt them.

        Words of three letters or more in the Latin alphabet; other scripts are often read sign by sign.
        """
        words = re.findall(r"[^\W\d_]{3,}", clean_prompt(prompt))
        alone = (word for word in dict.fromkeys(words) if word.isascii())
        return tuple(word for word in alone if len(self.tokenizer.tokenize(word)) > len(word))

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Text-encoder states, zero beyond each prompt's end mark; every prompt is encoded on its own, once.

        Args:
            prompts: empty ones are fine (negative prompts).
        Returns: [B, S, E] in the text encoder's precision, on its device, without gradients.
        Raises: InputError for a prompt that is too long.
        """
        if isinstance(prompts, str):
            raise TypeError("encode takes a list of prompts")
        texts = [clean_prompt(prompt) for prompt in prompts]
        states = [self._states.get(text) for text in texts]
        if any(
            state is None for state in states
        ):  # A stream of known prompts never waits for another thread's new one.
            with self._lock:
                states = [self._state(text) for text in texts]
        padded_BSE = states[0].new_zeros(len(states), self.max_tokens, states[0].shape[-1])
        for row_SE, state_SE in zip(padded_BSE, states, strict=True):
            row_SE[: len(state_SE)] = state_SE
        return padded_BSE

    def release(self) -> None:
        """Free the text encoder's weights. Cached prompts stay; another prompt loads the weights again."""
        with self._lock:
            self._encoder = None

    def forget(self) -> None:
        """Drop the cached prompts; the weights stay."""
        with self._lock:
            self._states.clear()

    def _state(self, text: str) -> Tensor:
        """The states of one cleaned prompt up to its end mark, from the cache if it is there."""
        if text not in self._states:
            ids = self._tokenize(text, allow_empty=True)
            self._states[text] = self._run(ids)
            if len(self._states) > _CACHED_PROMPTS:
                self._states.popitem(last=False)
        self._states.move_to_end(text)
        return self._states[text]

    def _run(self, ids: list[int]) -> Tensor:
        """Run the encoder on padded, masked tokens as the published code does; keep the rows that are not padding."""
        if self._encoder is None:
            self._encoder = self._load_encoder()
        device = next(self._encoder.parameters()).device
        tokens_1S = torch.full((1, self.max_tokens), self.tokenizer.pad_token_id)
        tokens_1S[0, : len(ids)] = torch.tensor(ids)
        mask_1S = (torch.arange(self.max_tokens) < len(ids)).long()[None]
        states_1SE = self._encoder(tokens_1S.to(device), mask_1S.to(device)).last_hidden_state
        return states_1SE[0, : len(ids)].to(self._encoder.dtype).clone()

    def _tokenize(self, text: str, *, allow_empty: bool) -> list[int]:
        if not text and not allow_empty:
            raise InputError("the prompt is empty: say what the video should show")
        encoded = self.tokenizer(text, add_special_tokens=True, return_offsets_mapping=True, verbose=False)
        ids = encoded.input_ids
        if len(ids) > self.max_tokens:
            used = text[: encoded.offset_mapping[self.max_tokens - 2][1]]
            raise InputError(
                f"the prompt has {len(ids)} tokens and the text encoder reads {self.max_tokens}: shorten it, only the "
                f"first {len(used)} of {len(text)} characters would be used, up to {used[-40:]!r}"
            )
        return ids


def prompt_tokens(limit: float) -> int:
    """What prompts are padded to: the tokenizer's own limit (``model_max_length``), at most the 512 of the released models.

    Padding is attended to, so a model must be used with the length it was trained with.
    """
    return int(min(MAX_TOKENS, limit))


def load_tokenizer(folder: str | Path) -> Any:
    """The T5 tokenizer of a ``tokenizer/`` folder; nothing is downloaded.

    Raises: InputError when it cannot be read.
    """
    from transformers import T5TokenizerFast

    try:
        return T5TokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizer library raises bare exceptions for damaged files
        raise InputError(f"the tokenizer in {str(folder)!r} cannot be read: download the checkpoint again") from error


def _load_encoder(folder: Path, dtype: torch.dtype, device: torch.device | str) -> nn.Module:
    """``transformers``' own loading; embeddings are tied whatever the configuration says."""
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config.from_pretrained(folder, tie_word_embeddings=True)
    model = UMT5EncoderModel.from_pretrained(folder, config=config, dtype=dtype, local_files_only=True)
    return model.to(device).eval().requires_grad_(False)
