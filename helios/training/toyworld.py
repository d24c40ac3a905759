"""The toy world as training reads it: windows for the VAE, clips to encode, prompts to probe with and their judge.

F pixel frames, H W height and width in pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from helios.data.toy import CHUNK_FRAMES, Scene, ToyChanges, ToyClips, Variety, canonical, caption, score, sentences
from helios.errors import InputError
from helios.training.clips import PixelClip
from helios.training.encode import DrawnClip

_CORPUS = 20_000


@dataclass(frozen=True, kw_only=True)
class ToyWorld:
    """Which clips of the toy world are drawn.

    Args:
        height, width: in pixels.
        chunks: of a clip.
        seed: picks the clips.
        wordings: captions per clip, in varied wording; one of them is the canonical, complete one.
        changing: share of clips whose description changes on the way, for timelines.
        variety: how much clips of one description differ.
    """

    height: int = 64
    width: int = 64
    chunks: int = 5
    seed: int = 0
    wordings: int = 6
    changing: float = 0.1
    variety: Variety = Variety()

    def __post_init__(self) -> None:
        if not (self.wordings >= 1 and 0 <= self.changing <= 1):
            raise InputError(f"wordings={self.wordings} must be 1 or more and changing={self.changing} a share")

    @property
    def clips(self) -> ToyClips:
        """The endless supply of clips with one description."""
        return ToyClips(chunks=self.chunks, **self._common)

    @property
    def changes(self) -> ToyChanges:
        """The endless supply of clips whose description changes."""
        return ToyChanges(chunks=max(2, self.chunks), **self._common)

    @property
    def _common(self) -> dict[str, Any]:
        return {"seed": self.seed, "height": self.height, "width": self.width, "variety": self.variety}

    def __call__(self, index: int) -> DrawnClip:
        """Clip number ``index``, as a source for :func:`helios.training.encode.encode_source`."""
        rng = np.random.default_rng([self.seed, index, 2])
        if self.chunks > 1 and rng.random() < self.changing:
            return self._changing(index, rng)
        clip = self.clips[index]
        return DrawnClip(frames_FHWC=torch.from_numpy(clip.frames), captions=self._words(clip.scene, rng))

    def _changing(self, index: int, rng: np.random.Generator) -> DrawnClip:
        clip = self.changes[index]
        halves = [
            (*{str(own): None}, str(canonical(scene)))
            for own, scene in zip(clip.captions, (clip.change.before, clip.change.after))
        ]
        first = clip.change.at // CHUNK_FRAMES
        script = tuple(halves[0] if chunk < first else halves[1] for chunk in range(self.chunks))
        return DrawnClip(frames_FHWC=torch.from_numpy(clip.frames), captions=halves[0], script=script)

    def _words(self, scene: Scene, rng: np.random.Generator) -> tuple[str, ...]:
        free = [str(caption(scene, rng)) for _ in range(self.wordings - 1)]
        return tuple(dict.fromkeys([str(canonical(scene)), *free]))

    def corpus(self) -> list[str]:
        """Captions for a tokenizer."""
        return [str(sentence) for sentence in sentences(_CORPUS, self.seed)]


@dataclass(frozen=True, kw_only=True)
class ToyWindows:
    """Single windows of 33 frames as a data set for the VAE, drawn when they are read.

    Args:
        world: of the clips.
        count: windows.
    """

    world: ToyWorld = ToyWorld()
    count: int = 20_000

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> PixelClip:
        place = index % self.world.chunks
        return PixelClip(frames_FHWC=torch.from_numpy(self.world.clips.chunk(index, place)))

    def buckets(self) -> list[object]:
        """All windows have one size."""
        return [0] * self.count


@dataclass(frozen=True)
class ToyPrompts:
    """Sentences that were never seen, with the scenes they describe.

    Args:
        count: how many.
        seed: picks them.
    """

    count: int = 16
    seed: int = 1

    @property
    def _clips(self) -> ToyClips:
        return ToyClips(seed=self.seed, count=self.count, split="heldout", complete=True)

    def prompts(self) -> list[str]:
        """The sentences."""
        return [str(self._clips.describe(index)[1]) for index in range(self.count)]

    def judge(self, number: int, frames_FHWC: np.ndarray) -> Mapping[str, float]:
        """Which stated attributes the video shows, 1 or 0 each; their mean as ``attributes``, all at once as ``all``."""
        scene, text = self._clips.describe(number)
        right = {name: float(hit) for name, hit in score(frames_FHWC, scene, attributes=text.stated).items()}
        return right | {"attributes": float(np.mean(list(right.values()))), "all": min(right.values())}
