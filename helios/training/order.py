"""Which clips make up which batch: a fixed shuffle per epoch, so that the position in it is all the state there is.

Clips are grouped by bucket (equal shapes stack); the last incomplete batch of a bucket is left out of an epoch.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from helios.errors import InputError
from helios.training.seeds import Purpose


@dataclass(frozen=True, kw_only=True)
class BatchOrder:
    """The batches of a run, for any position without replaying the ones before it.

    Args:
        buckets: the bucket of every clip; clips of one bucket have equal shapes.
        batch_size: clips of the global batch, over all ranks and accumulated micro-batches.
        seed: of the shuffles.
    Raises: InputError when no bucket fills one batch; how many clips are in buckets that fill none is ``left_out``.
    """

    buckets: Sequence[object]
    batch_size: int
    seed: int
    _epochs: dict[int, list[tuple[int, ...]]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.batches_per_epoch == 0:
            raise InputError(
                f"{len(self.buckets)} clip(s) in {len(self._members)} bucket(s) do not fill a batch of "
                f"{self.batch_size}: add clips, lower batch_size, or cut clips of different lengths into equal pieces with "
                "data.chunks"
            )

    @cached_property
    def batches_per_epoch(self) -> int:
        """Whole batches that one pass over the clips gives."""
        return sum(len(members) // self.batch_size for members in self._members.values())

    @property
    def left_out(self) -> int:
        """Clips that no batch ever holds, because their bucket has fewer than a batch."""
        return sum(len(members) for members in self._members.values() if len(members) < self.batch_size)

    def batch(self, position: int) -> tuple[int, ...]:
        """Indices of the clips of batch number ``position``, counted over all epochs."""
        epoch, place = divmod(position, self.batches_per_epoch)
        if epoch not in self._epochs:
            self._epochs.clear()
            self._epochs[epoch] = self._shuffled(epoch)
        return self._epochs[epoch][place]

    @cached_property
    def _members(self) -> dict[object, list[int]]:
        members: dict[object, list[int]] = defaultdict(list)
        for index, bucket in enumerate(self.buckets):
            members[bucket].append(index)
        return members

    def _shuffled(self, epoch: int) -> list[tuple[int, ...]]:
        key = np.array([self.seed, Purpose.ORDER], dtype=np.uint64)
        counter = np.array([0, 0, 0, epoch], dtype=np.uint64)
        generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
        batches: list[tuple[int, ...]] = []
        for members in self._members.values():
            shuffled = [members[i] for i in generator.permutation(len(members))]
            whole = len(shuffled) // self.batch_size * self.batch_size
            batches += [tuple(shuffled[i : i + self.batch_size]) for i in range(0, whole, self.batch_size)]
        return [batches[i] for i in generator.permutation(len(batches))]
