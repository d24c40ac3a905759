"""Official semantic score: cosine of ViCLIP's video and text embeddings.

The text tower reads 32 tokens including start and end, about the first 25 words. F frames, H W pixels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from helios.bench.frames.samplers import interval_middles, semantic_windows, window_frames
from helios.bench.frames.source import Frame
from helios.bench.metrics.base import Clip, Fields, Tier, require_frames, require_prompt
from helios.bench.metrics.networked import checked_files, semantic_networks, weights_version
from helios.bench.networks.clip import preprocess
from helios.bench.networks.tokens import Tokenizer
from helios.bench.networks.viclip import ViCLIP
from helios.bench.networks.weights import VICLIP, VOCABULARY, NoWeights, WeightStore

CONTEXT = 32


@dataclass(frozen=True, kw_only=True)
class Semantic:
    """Fields: ``prompt``, ``semantic_score``; with drift ``start_``, ``end_`` and ``drift_semantic_score``."""

    weights: WeightStore = NoWeights()
    device: str = "auto"
    with_drift: bool = True
    name: str = "semantic"
    tier: Tier = "official"

    @property
    def version(self) -> str:
        return f"1{'+drift' * self.with_drift}:{weights_version(self.weights, VICLIP, VOCABULARY)}"

    def check(self) -> None:
        semantic_networks(*checked_files(self.weights, VICLIP, VOCABULARY).values(), self.device)

    def begin(self, clip: Clip) -> "_Chosen":
        prompt = require_prompt(clip, self.name)
        require_frames(clip, 2 if self.with_drift else 1, self.name)
        files = checked_files(self.weights, VICLIP, VOCABULARY)
        return _Chosen(*semantic_networks(*files.values(), self.device), prompt, wanted(clip, self.with_drift))


def wanted(clip: Clip, with_drift: bool) -> dict[str, list[int]]:
    """Frame indices of the whole clip and, with drift, of its two windows."""
    count = clip.info.num_frames
    chosen = {"": interval_middles(count)}
    if with_drift:
        start, end = semantic_windows(count)
        chosen |= {"start_": window_frames(start, count), "end_": window_frames(end, count)}
    return chosen


class _Chosen:
    def __init__(self, network: ViCLIP, tokenizer: Tokenizer, prompt: str, chosen: dict[str, list[int]]):
        self._network = network
        self._prompt = prompt
        self._ids = torch.tensor([tokenizer.encode(prompt, CONTEXT)])
        self._chosen = chosen
        self._needed = {index for indices in chosen.values() for index in indices}
        self._pixels: dict[int, Tensor] = {}

    def add(self, frame: Frame) -> None:
        if frame.index in self._needed:
            self._pixels[frame.index] = preprocess(torch.from_numpy(frame.scaled)[None], clamp=True)[0]

    @torch.no_grad()
    def finish(self) -> Fields:
        device = self._network.temp.device
        scores = {}
        for name, indices in self._chosen.items():
            pixels_1CFHW = torch.stack([self._pixels[index] for index in indices], 1)[None]
            similarity = self._network.similarity(pixels_1CFHW.to(device), self._ids.to(device))
            scores[f"{name}semantic_score"] = float(similarity)
        fields: Fields = {"prompt": self._prompt, **scores}
        if "start_" in self._chosen:
            fields["drift_semantic_score"] = abs(scores["start_semantic_score"] - scores["end_semantic_score"])
        return fields
