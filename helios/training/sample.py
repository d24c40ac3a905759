"""Cutting one training sample from a clip: the chunk to learn, its past, and which parts of the past it may see.

Missing history is zero latents, and every step after the cut keeps them exactly zero; an explicit mask says which
latents exist (the published code tests whether a whole window of a whole micro-batch sums to zero, and so puts noise
into empty slots). B batch, C channels, T latent frames (9 per chunk), H W latent height and width.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from helios.errors import InputError
from helios.models.transformer.context import HistoryLatents
from helios.shapes import Geometry
from helios.training.clips import LatentClip
from helios.training.seeds import Draws, Purpose


@dataclass(frozen=True, kw_only=True)
class Past:
    """The history of a micro-batch, with what exists of it.

    Attributes:
        anchor_BCTHW: [B, C, 1, H, W] first latent of the video, zeros where missing.
        window_BCTHW: the latents right before the chunk (19), oldest first, zeros where missing.
        anchor_valid_B1: [B, 1] whether the anchor exists.
        window_valid_BT: whether each latent of the window exists.
    """

    anchor_BCTHW: Tensor
    window_BCTHW: Tensor
    anchor_valid_B1: Tensor
    window_valid_BT: Tensor

    def to(self, device: torch.device) -> "Past":
        """The same past on another device."""
        return Past(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})

    def masked(self) -> "Past":
        """Missing latents set to exactly zero (not multiplied: a NaN or infinity in a missing slot vanishes too)."""
        anchor = torch.where(_frames(self.anchor_valid_B1), self.anchor_BCTHW, 0)
        window = torch.where(_frames(self.window_valid_BT), self.window_BCTHW, 0)
        return replace(self, anchor_BCTHW=anchor, window_BCTHW=window)

    def streams(self, geometry: Geometry) -> HistoryLatents:
        """The three streams that the transformer reads: long, mid, and short = (anchor, newest)."""
        sizes = geometry.history
        long, mid, newest = self.window_BCTHW.split([sizes.long, sizes.mid, sizes.newest], dim=2)
        short = torch.cat([self.anchor_BCTHW, newest], dim=2)
        return HistoryLatents(long_BCTHW=long, mid_BCTHW=mid, short_BCTHW=short)

    @property
    def empty_B(self) -> Tensor:
        """Whether a sample has no past at all, as the first chunk of a text-to-video run."""
        return ~(self.anchor_valid_B1.any(1) | self.window_valid_BT.any(1))


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A micro-batch of chunks to learn and their past.

    Attributes:
        target_BCTHW: the clean chunk, float32.
        past: its history before any branch is dropped.
        chunks: number of the chunk in its clip.
        stills_BCTHW: [B, C, 2, H, W] (anchor, newest) of the picture right before the chunk, where the clips hold them.
        stills_valid_B: whether a sample has such a picture.
    """

    target_BCTHW: Tensor
    past: Past
    chunks: tuple[int, ...]
    stills_BCTHW: Tensor
    stills_valid_B: Tensor


class _Window(NamedTuple):
    target: Tensor
    window: Tensor
    anchor: Tensor
    existing: int
    stills: Tensor
    has_stills: bool


def cut(clips: list[LatentClip], draws: Draws, geometry: Geometry) -> Sample:
    """One uniformly chosen chunk per clip, with the 19 latents before it and the clip's first latent.

    Chunk 0 has no past and no anchor: it is text-to-video by nature. The anchor of every later chunk is the first
    latent of the clip, also while that latent is still inside the window.
    """
    chunks = draws.below(Purpose.CHUNK, [clip.chunks(geometry) for clip in clips])
    windows = [_cut_one(clip, chunk, geometry) for clip, chunk in zip(clips, chunks)]
    existing = torch.tensor([w.existing for w in windows])
    frames = torch.arange(geometry.history.total)
    past = Past(
        anchor_BCTHW=torch.stack([w.anchor for w in windows]),
        window_BCTHW=torch.stack([w.window for w in windows]),
        anchor_valid_B1=torch.tensor(chunks)[:, None] > 0,
        window_valid_BT=frames[None] >= geometry.history.total - existing[:, None],
    )
    return Sample(
        target_BCTHW=torch.stack([w.target for w in windows]),
        past=past,
        chunks=tuple(chunks),
        stills_BCTHW=torch.stack([w.stills for w in windows]),
        stills_valid_B=torch.tensor([w.has_stills for w in windows]),
    )


def _cut_one(clip: LatentClip, chunk: int, geometry: Geometry) -> _Window:
    latents, per_chunk, total = clip.latents_CTHW.float(), geometry.chunk_latent_frames, geometry.history.total
    first = chunk * per_chunk
    known = latents[:, max(0, first - total) : first]
    window = latents.new_zeros(latents.shape[0], total, *latents.shape[2:])
    window[:, total - known.shape[1] :] = known
    anchor = latents[:, :1] if chunk else torch.zeros_like(latents[:, :1])
    has_stills = chunk > 0 and clip.stills_TCHW is not None
    stills = torch.zeros_like(latents[:, :2])
    if has_stills:
        stills = clip.stills_TCHW[2 * (chunk - 1) : 2 * chunk].float().transpose(0, 1)
    return _Window(latents[:, first : first + per_chunk], window, anchor, known.shape[1], stills, has_stills)


@dataclass(frozen=True, kw_only=True)
class TaskMix:
    """How often a sample is shown as which task. The branches exclude each other and are drawn per sample.

    Args:
        t2v: everything dropped (text to video).
        i2v: the newest latent and the anchor alone (image to video).
        v2v: the oldest 1, 10 or 19 latents dropped, the anchor kept (a short video goes on).
        full: nothing dropped (continuation).
        still: the share of the image branch that is shown, as at sampling time, one still picture in both slots
            instead of two moments of a moving clip; clips must hold ``stills_TCHW``.
        anchored: whether the anchor is shown at all. A model that is trained without it needs its slot empty in
            sampling too.
    Raises: InputError when the four shares do not add up to 1.
    """

    t2v: float = 0.4
    i2v: float = 0.06
    v2v: float = 0.216
    full: float = 0.324
    still: float = 0.0
    anchored: bool = True

    def __post_init__(self) -> None:
        shares = (self.t2v, self.i2v, self.v2v, self.full)
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise InputError(f"task shares {shares} add up to {sum(shares):g}: t2v + i2v + v2v + full must be 1")
        if not 0 <= self.still <= 1:
            raise InputError(f"still={self.still} is not a share: use 0 to 1")

    @staticmethod
    def nested(*, t2v: float, i2v: float, v2v: float) -> "TaskMix":
        """From the published conditional probabilities, each of the rest that the one before leaves."""
        rest = (1 - t2v) * (1 - i2v)
        return TaskMix(t2v=t2v, i2v=(1 - t2v) * i2v, v2v=rest * v2v, full=rest * (1 - v2v))

    def branches(self, draws: Draws) -> list[str]:
        """The branch of each sample."""
        borders = torch.tensor([self.t2v, self.i2v, self.v2v], dtype=torch.float64).cumsum(0)
        names = ("t2v", "i2v", "v2v", "full")
        return [names[int((u >= borders).sum())] for u in draws.uniform(Purpose.BRANCH)]

    def drop(self, sample: Sample, draws: Draws, geometry: Geometry) -> Past:
        """The past that each sample's branch leaves, missing latents exactly zero."""
        past, branches = sample.past, self.branches(draws)
        shortened = draws.below(Purpose.TRUNCATION, [3] * len(branches))
        stills = draws.uniform(Purpose.STILL)[:, None] < self.still
        window_valid, anchor_valid = past.window_valid_BT.clone(), past.anchor_valid_B1.clone()
        for row, branch in enumerate(branches):
            kept = self._kept(branch, shortened[row], geometry)
            window_valid[row, : geometry.history.total - kept] = False
            anchor_valid[row] &= self.anchored and branch != "t2v"
        past = replace(past, window_valid_BT=window_valid, anchor_valid_B1=anchor_valid)
        shown = torch.tensor([branch == "i2v" for branch in branches]) & sample.stills_valid_B & stills[:, 0]
        return _with_stills(past, sample.stills_BCTHW, shown).masked()

    @staticmethod
    def _kept(branch: str, r: int, geometry: Geometry) -> int:
        """How many of the newest latents stay."""
        total, per_chunk = geometry.history.total, geometry.chunk_latent_frames
        return {"t2v": 0, "i2v": 1, "v2v": max(0, total - (1 + per_chunk * r)), "full": total}[branch]


def _with_stills(past: Past, stills_BCTHW: Tensor, shown_B: Tensor) -> Past:
    if not shown_B.any():
        return past
    shown = shown_B[:, None, None, None, None]
    window = past.window_BCTHW.clone()
    window[:, :, -1:] = torch.where(shown, stills_BCTHW[:, :, 1:], window[:, :, -1:])
    return replace(
        past, window_BCTHW=window, anchor_BCTHW=torch.where(shown, stills_BCTHW[:, :, :1], past.anchor_BCTHW)
    )


def _frames(valid_BT: Tensor) -> Tensor:
    return valid_BT[:, None, :, None, None]
