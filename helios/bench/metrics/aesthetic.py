"""Official aesthetic score: CLIP ViT-L/14 embedding of every frame, LAION's linear head, mean of head / 10.

F frames of one batch, H W pixels, E embedding.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from helios.bench.frames.samplers import Window, end_windows
from helios.bench.frames.source import Frame, Pixels
from helios.bench.metrics.base import Clip, Fields, Tier, require_frames
from helios.bench.metrics.networked import aesthetic_networks, checked_files, weights_version
from helios.bench.networks.clip import AestheticHead, ImageTower, preprocess
from helios.bench.networks.weights import AESTHETIC_HEAD, AESTHETIC_TOWER, NoWeights, WeightStore

BATCH = 32


@torch.no_grad()
def aesthetic_scores(frames_FHWC: np.ndarray, tower: ImageTower, head: AestheticHead) -> np.ndarray:
    """float64 [F]: head(normalised embedding) / 10 of uint8 RGB frames."""
    device, dtype = tower.proj.device, tower.proj.dtype
    pixels = preprocess(torch.from_numpy(frames_FHWC).to(device), clamp=False)
    embedding_FE = functional.normalize(tower(pixels.to(dtype)).float(), dim=-1)
    return (head(embedding_FE)[:, 0] / 10).double().cpu().numpy()


@dataclass(frozen=True, kw_only=True)
class Aesthetic:
    """Fields: ``aesthetic_score``; with drift ``start_``, ``end_`` and ``drift_aesthetic_score`` over the end windows."""

    weights: WeightStore = NoWeights()
    device: str = "auto"
    with_drift: bool = True
    name: str = "aesthetic"
    tier: Tier = "official"

    @property
    def version(self) -> str:
        return f"1{'+drift' * self.with_drift}:{weights_version(self.weights, AESTHETIC_TOWER, AESTHETIC_HEAD)}"

    def check(self) -> None:
        aesthetic_networks(*checked_files(self.weights, AESTHETIC_TOWER, AESTHETIC_HEAD).values(), self.device)

    def begin(self, clip: Clip) -> "_Scores":
        require_frames(clip, 1, self.name)
        files = checked_files(self.weights, AESTHETIC_TOWER, AESTHETIC_HEAD)
        return _Scores(*aesthetic_networks(*files.values(), self.device), clip.info.num_frames, self.with_drift)


class _Scores:
    def __init__(self, tower: ImageTower, head: AestheticHead, num_frames: int, with_drift: bool):
        self._networks = tower, head
        self._num_frames = num_frames
        self._with_drift = with_drift
        self._waiting: list[Pixels] = []
        self._scores: list[float] = []

    def add(self, frame: Frame) -> None:
        self._waiting.append(frame.scaled)
        if len(self._waiting) == BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._scores += aesthetic_scores(np.stack(self._waiting), *self._networks).tolist()
            self._waiting = []

    def finish(self) -> Fields:
        self._flush()
        fields = {"aesthetic_score": float(np.mean(self._scores))}
        if self._with_drift:
            start, end = (self._mean(window) for window in end_windows(self._num_frames, at_least=1))
            fields |= {
                "start_aesthetic_score": start,
                "end_aesthetic_score": end,
                "drift_aesthetic_score": abs(start - end),
            }
        return fields

    def _mean(self, window: Window) -> float:
        return float(np.mean(self._scores[window.start : window.stop]))
