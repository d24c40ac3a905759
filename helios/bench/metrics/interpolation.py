"""Official motion smoothness: the protocol of :mod:`helios.bench.metrics.smoothness` with AMT-S as the predictor.

H W pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from helios.bench.frames.source import Frame, Pixels
from helios.bench.metrics.base import Clip, Fields, Tier, require_frames
from helios.bench.metrics.networked import checked_files, smoothness_network, weights_version
from helios.bench.metrics.smoothness import LEAST_FRAMES, LEAST_WINDOW, PairErrors
from helios.bench.networks.amt.model import AMT
from helios.bench.networks.weights import AMT_S, NoWeights, WeightStore


class AmtHalfway:
    """The halfway frame by AMT-S, quantised by truncation."""

    def __init__(self, network: AMT):
        self._network = network

    @torch.no_grad()
    def between(self, before_HW3: Pixels, after_HW3: Pixels) -> Pixels:
        predicted = self._network(self._tensor(before_HW3), self._tensor(after_HW3))[0]
        return (predicted.permute(1, 2, 0) * 255).to(torch.uint8).cpu().numpy()

    def _tensor(self, picture_HW3: Pixels) -> Tensor:
        device = next(self._network.parameters()).device
        return torch.from_numpy(np.ascontiguousarray(picture_HW3)).to(device).permute(2, 0, 1)[None].float() / 255


@dataclass(frozen=True, kw_only=True)
class MotionSmoothness:
    """Fields: ``motion_smoothness_score``; with drift ``start_``, ``end_`` and ``drift_motion_smoothness_score``."""

    weights: WeightStore = NoWeights()
    device: str = "auto"
    with_drift: bool = True
    name: str = "motion_smoothness"
    tier: Tier = "official"

    @property
    def version(self) -> str:
        return f"1{'+drift' * self.with_drift}:{weights_version(self.weights, AMT_S)}"

    def check(self) -> None:
        smoothness_network(*checked_files(self.weights, AMT_S).values(), self.device)

    def begin(self, clip: Clip) -> "_Smoothness":
        require_frames(clip, LEAST_WINDOW if self.with_drift else LEAST_FRAMES, self.name)
        network = smoothness_network(*checked_files(self.weights, AMT_S).values(), self.device)
        return _Smoothness(PairErrors(clip.info.num_frames, AmtHalfway(network), with_drift=self.with_drift))


@dataclass
class _Smoothness:
    pairs: PairErrors

    def add(self, frame: Frame) -> None:
        self.pairs.add(frame.index, frame.bilinear)

    def finish(self) -> Fields:
        scores = self.pairs.scores()
        fields = {"motion_smoothness_score": scores["whole"]}
        if "start" in scores:
            fields |= {f"{end}_motion_smoothness_score": scores[end] for end in ("start", "end")}
            fields["drift_motion_smoothness_score"] = abs(scores["start"] - scores["end"])
        return fields
