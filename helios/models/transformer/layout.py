"""Where the tokens of a sequence belong: history or noisy chunk, one segment or several packed ones.

The order is [history | noisy] in every segment. One segment is the rule; packed pyramid training puts several into one
sequence, each with its own copy of the history.

B batch, L tokens, D width, R runs of tokens (history and noisy of each segment).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenLayout:
    """Lengths of the runs of a sequence.

    Attributes:
        history: history tokens of every segment; 0 without history.
        noisy: noisy tokens of each segment.
    """

    history: int
    noisy: tuple[int, ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each segment."""
        return tuple(self.history + noisy for noisy in self.noisy)

    @property
    def runs(self) -> tuple[int, ...]:
        """Tokens of each run: (history, noisy) of every segment, or noisy alone without history."""
        if self.history == 0:
            return self.noisy
        return tuple(run for noisy in self.noisy for run in (self.history, noisy))

    @property
    def without_history(self) -> "TokenLayout":
        """The layout after the history tokens have been dropped."""
        return TokenLayout(0, self.noisy)

    def rows(self, history: Tensor | None, noisy: list[Tensor]) -> Tensor:
        """One row per run, [B, R, ...], from the history's row and a row per segment (all [B or 1, 1, ...]).

        ``history=None`` gives the history of each segment the segment's own row.
        """
        if self.history == 0:
            return torch.cat(noisy, dim=1)
        pairs = [(row if history is None else history.expand_as(row), row) for row in noisy]
        return torch.cat([row for pair in pairs for row in pair], dim=1)

    def noisy_rows(self, rows_BRD: Tensor) -> Tensor:
        """The rows of the noisy runs out of one row per run."""
        return rows_BRD if self.history == 0 else rows_BRD[:, 1::2]

    def noisy_tokens(self, y_BLD: Tensor) -> Tensor:
        """The noisy tokens of all segments, one after the other; a view when there is one segment."""
        if self.history == 0:
            return y_BLD
        parts = [segment[:, self.history :] for segment in y_BLD.split(self.lengths, dim=1)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def add_to_noisy(self, y_BLD: Tensor, delta_BLD: Tensor) -> Tensor:
        """y with ``delta`` added to its noisy tokens, in the dtype of y; without gradients y itself is changed."""
        segments = list(zip(y_BLD.split(self.lengths, dim=1), delta_BLD.split(self.noisy, dim=1)))
        if not torch.is_grad_enabled():
            for segment, delta in segments:
                segment[:, self.history :].add_(delta)
            return y_BLD
        if self.history == 0:
            return y_BLD + delta_BLD
        pairs = [(segment[:, : self.history], segment[:, self.history :] + delta) for segment, delta in segments]
        return torch.cat([part for pair in pairs for part in pair], dim=1)

    def history_gain(self, gain_N: Tensor) -> Tensor:
        """[L, N] factors: ``gain_N`` for history tokens, 1 for noisy ones."""
        parts = []
        for noisy in self.noisy:
            parts += [gain_N.expand(self.history, -1), gain_N.new_ones(noisy, gain_N.shape[0])]
        return torch.cat(parts)
