"""From clips to what the networks are asked: a chunk to learn, its damaged past, its text.

One object for every network of a method. A condition that the student sees and its critic does not shows up later as
shadows and darkening.

B batch, C channels, T latent frames, H W latent height and width, S text tokens, E width of the text encoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from helios.models.transformer.context import HistoryLatents
from helios.shapes import Geometry
from helios.training.clips import LatentClip
from helios.training.corruption import AnyCorruption, PerBatchCorruption, Saturation, Stacked
from helios.training.sample import Past, TaskMix, cut
from helios.training.seeds import Draws
from helios.training.text import Captions


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """How clips are turned into tasks.

    Args:
        mix: shares of text, image and video to video.
        corruption: damage of the history, seen by every network. The default of stages 1 and 2 turns all three
            damages on; the authors call having left some out an oversight.
    """

    mix: TaskMix = TaskMix()
    corruption: AnyCorruption = Stacked(parts=(PerBatchCorruption(mode="random"), Saturation()))


@dataclass(frozen=True, kw_only=True)
class ChunkTask:
    """A micro-batch of tasks, on the device of the network.

    Attributes:
        target_BCTHW: the clean chunk, float32.
        past: its history after branch and damage.
        text_BSE: text states.
    """

    target_BCTHW: Tensor
    past: Past
    text_BSE: Tensor

    def streams(self, geometry: Geometry) -> HistoryLatents:
        """The history as the transformer reads it."""
        return self.past.streams(geometry)


def make_task(
    clips: Sequence[LatentClip], draws: Draws, *, tasks: Tasks, captions: Captions, geometry: Geometry, device
) -> ChunkTask:
    """Cut, drop, damage, encode."""
    sample = cut(list(clips), draws, geometry)
    past = tasks.corruption.apply(tasks.mix.drop(sample, draws, geometry), draws)
    return ChunkTask(
        target_BCTHW=sample.target_BCTHW.to(device),
        past=past.to(device),
        text_BSE=captions.encode(clips, draws, sample.chunks).to(device),
    )
