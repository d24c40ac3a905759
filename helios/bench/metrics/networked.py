"""Loading the networks of the official metrics: once per process, on one device, version from the weights' hashes."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from helios.bench.networks import weights
from helios.bench.networks.amt.model import AMT
from helios.bench.networks.clip import AestheticHead, ImageTower, TowerConfig, tower_state
from helios.bench.networks.tokens import Tokenizer
from helios.bench.networks.viclip import ViCLIP, ViCLIPConfig
from helios.bench.networks.weights import Network, WeightFile, WeightStore
from helios.device import resolve_device


def checked_files(store: WeightStore, *files: WeightFile) -> dict[str, Path]:
    """Paths by first published name. Raises: Unavailable for the first file that is not there."""
    return {file.paths[0]: store.find(file) for file in files}


def weights_version(store: WeightStore, *files: WeightFile) -> str:
    """Short hashes of the files, so that other weights mean another version."""
    return "+".join(weights.sha256(store.find(file))[:12] for file in files)


def dtype_for(device: torch.device) -> torch.dtype:
    """The published scripts run CLIP in fp16 on an accelerator and in fp32 on the CPU."""
    return torch.float32 if device.type == "cpu" else torch.float16


@lru_cache(maxsize=1)
def aesthetic_networks(tower: Path, head: Path, device_name: str) -> tuple[ImageTower, AestheticHead]:
    """Tower in the device's dtype and head in float32. Raises: InputError for files of another network."""
    device = resolve_device(device_name)
    image_tower = _loaded(lambda: ImageTower(TowerConfig()), tower_state(weights.read_state(tower)), tower.name)
    predictor = _loaded(AestheticHead, weights.read_state(head), head.name)
    return image_tower.to(device, dtype_for(device)), predictor.to(device)


@lru_cache(maxsize=1)
def semantic_networks(network: Path, vocabulary: Path, device_name: str) -> tuple[ViCLIP, Tokenizer]:
    """ViCLIP in float32 and its tokenizer."""
    device = resolve_device(device_name)
    state = weights.read_state(network, key=weights.VICLIP.key)
    return _loaded(lambda: ViCLIP(ViCLIPConfig()), state, network.name).to(device), Tokenizer.from_file(vocabulary)


@lru_cache(maxsize=1)
def smoothness_network(network: Path, device_name: str) -> AMT:
    """AMT-S in float32."""
    weights.warn_of_licence(weights.AMT_S)
    state = weights.read_state(network, key=weights.AMT_S.key)
    return _loaded(AMT, state, network.name).to(resolve_device(device_name))


def _loaded(make: Callable[[], Network], state: Mapping[str, Tensor], name: str) -> Network:
    with torch.device("meta"):
        network = make()
    return weights.load_strictly(network, state, name)
