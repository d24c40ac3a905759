"""Finding, hashing, reading and strictly loading the official tier's weights.

Files come from a folder of the user's or from the hub's bundle ``BestWishYsh/HeliosBench-Weights``. Pickled files are
read with ``weights_only=True``. A file that is not there makes its metric *unavailable*; a file that is there and cannot
be used is an error that names it.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from helios.bench.metrics.base import Unavailable
from helios.errors import InputError

log = logging.getLogger(__name__)
Network = TypeVar("Network", bound=nn.Module)
BUNDLE = "BestWishYsh/HeliosBench-Weights"


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """One file of the bundle.

    Attributes:
        use: what it is, for messages.
        paths: where it may lie inside the user's folder, best first; the first one is the bundle's path on the hub.
        key: entry of the pickle that holds the state dict, if any.
        sha256: of the published file, where it is known.
        licence: as published.
        needs: metrics that cannot run without it.
    """

    use: str
    paths: tuple[str, ...]
    licence: str
    needs: tuple[str, ...]
    key: str | None = None
    sha256: str | None = None


AESTHETIC_TOWER = WeightFile(
    use="CLIP ViT-L/14 image tower",
    paths=("aesthetic_model/ViT-L-14.pt", "ViT-L-14.pt", "clip-vit-large-patch14/model.safetensors"),
    licence="MIT",
    needs=("aesthetic", "drifting_aesthetic"),
    sha256="b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
)
AESTHETIC_HEAD = WeightFile(
    use="LAION aesthetic predictor v1",
    paths=("aesthetic_model/sa_0_4_vit_l_14_linear.pth", "sa_0_4_vit_l_14_linear.pth"),
    licence="MIT",
    needs=("aesthetic", "drifting_aesthetic"),
)
VICLIP = WeightFile(
    use="ViCLIP-L/14, InternVid-10M-FLT",
    paths=("ViCLIP/ViClip-InternVid-10M-FLT.pth", "ViClip-InternVid-10M-FLT.pth", "ViCLIP-L-14-hf/model.safetensors"),
    licence="MIT",
    needs=("semantic", "drifting_semantic"),
    key="model",
)
VOCABULARY = WeightFile(
    use="CLIP's byte-pair vocabulary",
    paths=("ViCLIP/bpe_simple_vocab_16e6.txt.gz", "bpe_simple_vocab_16e6.txt.gz"),
    licence="MIT",
    needs=("semantic", "drifting_semantic"),
)
AMT_S = WeightFile(
    use="AMT-S frame interpolation",
    paths=("amt_model/amt-s.pth", "amt-s.pth"),
    licence="CC BY-NC 4.0 (non-commercial)",
    needs=("motion_smoothness", "drifting_motion_smoothness"),
    key="state_dict",
)
ALL_FILES = (AESTHETIC_TOWER, AESTHETIC_HEAD, VICLIP, VOCABULARY, AMT_S)


class WeightStore(Protocol):
    """Where weight files are looked for."""

    def find(self, file: WeightFile) -> Path:
        """Raises: Unavailable when it is not there."""
        ...


@dataclass(frozen=True, kw_only=True)
class NoWeights:
    """No weights at all: every metric that needs some is missing."""

    def find(self, file: WeightFile) -> Path:
        raise Unavailable(f"needs {file.use}: pass a weights folder with {file.paths[0]}")


@dataclass(frozen=True, kw_only=True)
class WeightFolder:
    """A folder of the user's, laid out like the published bundle or flat."""

    path: Path

    def __post_init__(self):
        if not Path(self.path).is_dir():
            raise InputError(f"weights folder {str(self.path)!r} is not a folder: pass the one that holds the weights")

    def find(self, file: WeightFile) -> Path:
        for name in file.paths:
            if (Path(self.path) / name).is_file():
                return Path(self.path) / name
        raise Unavailable(f"needs {file.use}: {file.paths[0]} is not in {self.path}")


@dataclass(frozen=True, kw_only=True)
class WeightHub:
    """The published bundle on the hub, downloaded file by file when a metric needs it."""

    repo: str = BUNDLE
    revision: str | None = None

    def find(self, file: WeightFile) -> Path:
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(self.repo, file.paths[0], revision=self.revision))
        except (OSError, ValueError, RuntimeError) as error:  # not found, offline, refused: all the same to the metric
            raise Unavailable(f"needs {file.use}: {file.paths[0]} could not be fetched from {self.repo}") from error


@lru_cache(maxsize=64)
def _hash_of(path: Path, size: int, modified_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file; remembered while size and time stamp stay."""
    stat = Path(path).stat()
    return _hash_of(Path(path), stat.st_size, stat.st_mtime_ns)


def read_state(path: Path, *, key: str | None = None) -> dict[str, Tensor]:
    """The tensors of a weight file, memory-mapped where the format allows it.

    Args:
        path: ``.safetensors``, or a pickle read with ``weights_only=True``; a TorchScript archive is opened only when it
            is the published ``ViT-L-14.pt`` (equal SHA-256).
        key: entry that holds the state dict; a file that *is* the state dict is accepted too.
    Raises: InputError when the file cannot be read.
    """
    try:
        content = _content(Path(path))
    except Exception as error:  # what a damaged pickle raises is anybody's guess
        raise InputError(f"{path}: cannot be read as weights ({_first_line(error)}); fetch the file anew") from error
    state = content.get(key, content) if key else content
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: holds no state dict{f' under {key!r}' if key else ''}; fetch the file anew")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _content(path: Path) -> Mapping:
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        return load_file(path)
    if _is_torchscript(path):
        return _published_archive(path)
    loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    if not isinstance(loaded, Mapping):
        raise TypeError(f"a {type(loaded).__name__} instead of a state dict")
    return loaded


def _is_zip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"PK"


def _is_torchscript(path: Path) -> bool:
    import zipfile

    if not _is_zip(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split("/", 1)[-1].startswith("code/") for name in archive.namelist())


def _published_archive(path: Path) -> Mapping:
    if sha256(path) != AESTHETIC_TOWER.sha256:
        raise ValueError("a TorchScript archive, which holds code, and not the published ViT-L-14.pt")
    return torch.jit.load(str(path), map_location="cpu").state_dict()


def load_strictly(network: Network, state: Mapping[str, Tensor], name: str) -> Network:
    """Fill a network built on the meta device; every key and shape must agree.

    Returns: the network in float32, evaluation mode, without gradients.
    Raises: InputError that counts missing, unexpected and misshapen entries and names the first of each.
    """
    wanted = network.state_dict()
    problems = {
        "missing": [key for key in wanted if key not in state],
        "unexpected": [key for key in state if key not in wanted],
        "misshapen": [key for key in wanted if key in state and state[key].shape != wanted[key].shape],
    }
    if any(problems.values()):
        listed = ", ".join(f"{len(keys)} {kind} (first {keys[0]})" for kind, keys in problems.items() if keys)
        raise InputError(f"{name}: not the weights of this network: {listed}; fetch the published file")
    network.load_state_dict({key: state[key].float() for key in wanted}, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def warn_of_licence(file: WeightFile) -> None:
    """Log the licence of weights that are not free for every use."""
    if "non-commercial" in file.licence:
        log.warning("%s: its weights are licensed %s", file.use, file.licence)


def convert_to_safetensors(path: Path, target: Path, *, key: str | None = None) -> Path:
    """Write the tensors of a pickled file as safetensors, once, so that it need not be unpickled again."""
    from safetensors.torch import save_file

    state = {name: value.contiguous().clone() for name, value in read_state(path, key=key).items()}
    save_file(state, target)
    return Path(target)


@dataclass(frozen=True, kw_only=True)
class WeightStatus:
    """One line of the doctor's table: a file, where it is, its hash, or why it is missing."""

    file: WeightFile
    path: Path | None
    sha256: str | None
    problem: str | None


def doctor(store: WeightStore) -> list[WeightStatus]:
    """What of the official tier's weights is there; hashes are computed, so large files take seconds."""
    found = []
    for file in ALL_FILES:
        try:
            path = store.find(file)
        except Unavailable as missing:
            found.append(WeightStatus(file=file, path=None, sha256=None, problem=str(missing)))
            continue
        digest, problem = sha256(path), None
        if file.sha256 and path.suffix == ".pt" and digest != file.sha256:
            problem = f"SHA-256 differs from the published {file.sha256[:8]}"
        found.append(WeightStatus(file=file, path=path, sha256=digest, problem=problem))
    return found


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
