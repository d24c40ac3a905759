"""Weights from safetensors files into models, on the target device and in the target precision, held once.

On the CPU, tensors whose precision is kept are views of the mapped file: nothing is copied and unread pages cost
nothing. Everything else is read through a small buffer and converted piece by piece, so host memory never holds a
second copy. Models are built without weights first.
"""

import mmap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from helios.checkpoints.info import CheckpointInfo
from helios.checkpoints.layout import TEXT_ENCODER, TOKENIZER, TRANSFORMER, VAE
from helios.checkpoints.report import LoadReport, compare
from helios.checkpoints.tensor_files import TensorEntry, read_headers
from helios.errors import InputError

_BUFFER_BYTES = 16 << 20
_EMBEDDING = "shared.weight"
_EMBEDDING_ALIAS = "encoder.embed_tokens.weight"
# transformers keeps the last linear of UMT5's feed-forward in float32 when the rest is float16, which overflows there.
_FLOAT16_EXCEPTIONS = frozenset({"wo"})


def load_transformer(info: CheckpointInfo, device: torch.device | str, dtype: torch.dtype) -> nn.Module:
    """The transformer in evaluation mode; its float32 exceptions stay float32.

    Raises: InputError when the files do not fit.
    """
    model = _weightless_transformer(info)
    _load_transformer(model, info, device, dtype)
    return model.eval()


def load_rounded_transformer(
    info: CheckpointInfo, device: torch.device | str, dtype: torch.dtype
) -> tuple[nn.Module, float]:
    """The transformer with inner layers in 8-bit floats, each rounded as soon as its weight is there, so that the exact
    ones are never in memory together.

    Returns: the transformer, and the relative error of the rounded weights (root mean square).
    Raises: InputError when the files do not fit.
    """
    from helios.models.transformer.rounding import Rounding

    model = _weightless_transformer(info)
    rounding = Rounding(model)
    _load_transformer(model, info, device, dtype, taken={name: partial(rounding.take, name) for name in rounding.names})
    return model.eval(), rounding.relative_error


def _weightless_transformer(info: CheckpointInfo) -> nn.Module:
    from helios.models.transformer.model import HeliosTransformer3DModel

    with weightless():
        return HeliosTransformer3DModel(**info.transformer_config)


def _load_transformer(
    model: nn.Module, info: CheckpointInfo, device: torch.device | str, dtype: torch.dtype, **how
) -> None:
    from helios.models.transformer.precision import keeps_float32

    how |= {"keep_float32": keeps_float32, "ignored": ("norm_added_q",)}
    load_entries(model, info.tensors[TRANSFORMER], device, dtype, **how)


def load_vae(info: CheckpointInfo, device: torch.device | str, dtype: torch.dtype = torch.float32):
    """The VAE, as :class:`helios.models.vae.HeliosVAE`; float32 is what the released models use.

    Raises: InputError when the files do not fit.
    """
    from diffusers import AutoencoderKLWan

    from helios.models.vae import HeliosVAE

    with weightless():
        module = AutoencoderKLWan.from_config(info.vae_config)
    load_entries(module, info.tensors[VAE], device, dtype)
    return HeliosVAE(module.eval())


def load_prompt_encoder(info: CheckpointInfo, device: torch.device | str, dtype: torch.dtype):
    """Tokenizer and text encoder, as :class:`helios.models.text_encoder.PromptEncoder`.

    Only the tokenizer is read now; the weights load when the first prompt is encoded, and again after a release.

    Raises: InputError when the tokenizer cannot be read or does not fit the text encoder.
    """
    from helios.models.text_encoder import PromptEncoder, load_tokenizer

    tokenizer = load_tokenizer(info.path / TOKENIZER)
    rows = info.text_encoder_config.get("vocab_size", 0)
    if len(tokenizer) > rows:
        raise InputError(
            f"the checkpoint contradicts itself: its tokenizer knows {len(tokenizer)} tokens but its text encoder only "
            f"{rows}; take tokenizer/ and text_encoder/ from the same model"
        )
    return PromptEncoder(tokenizer, lambda: load_text_encoder(info, device, dtype), max_tokens=info.text_tokens)


def load_text_encoder(info: CheckpointInfo, device: torch.device | str, dtype: torch.dtype) -> nn.Module:
    """``transformers``' UMT5 encoder in evaluation mode, its parameters frozen.

    The token embeddings are always those of ``shared.weight``, whatever ``tie_word_embeddings`` says: the released
    configuration says false although only that tensor is stored, and a loader that obeys it makes grey videos.

    Raises: InputError when the files do not fit.
    """
    from transformers import UMT5Config, UMT5EncoderModel

    with weightless():
        model = UMT5EncoderModel(UMT5Config.from_dict({**info.text_encoder_config, "tie_word_embeddings": True}))
    model.encoder.embed_tokens = model.shared
    stored = dict(info.tensors[TEXT_ENCODER])
    alias = stored.pop(_EMBEDDING_ALIAS, None)
    if alias is not None:
        stored.setdefault(_EMBEDDING, alias)
    load_entries(
        model,
        stored,
        device,
        dtype,
        keep_float32=text_encoder_keeps_float32(dtype),
        tied=(_EMBEDDING_ALIAS,),
    )
    return model.eval().requires_grad_(False)


def text_encoder_keeps_float32(dtype: torch.dtype) -> Callable[[str], bool]:
    """Which parameters of the text encoder stay in float32 when the rest is in ``dtype``."""
    exceptions = _FLOAT16_EXCEPTIONS if dtype == torch.float16 else frozenset()
    return lambda key: not exceptions.isdisjoint(key.split("."))


def load_state(
    model: nn.Module,
    files: Iterable[str | Path],
    device: torch.device | str,
    dtype: torch.dtype,
    *,
    keep_float32: Callable[[str], bool] = lambda key: False,
    strict: bool = True,
) -> LoadReport:
    """Load safetensors files into a model; its parameters are replaced, so it may have been built weightless.

    Args:
        model: any module.
        files: safetensors files, all shards together.
        device, dtype: where the weights go, and the precision of the floating-point ones.
        keep_float32: names that are float32 whatever ``dtype`` is.
        strict: refuse, before anything is read, unless names and shapes fit exactly. Otherwise what fits is loaded.
    Returns: what fitted and what did not.
    Raises: InputError for damaged files, and when strict for any tensor that does not fit.
    """
    entries = read_headers([Path(file) for file in files])
    return load_entries(model, entries, device, dtype, keep_float32=keep_float32, strict=strict)


def load_entries(
    model: nn.Module,
    entries: Mapping[str, TensorEntry],
    device: torch.device | str,
    dtype: torch.dtype,
    *,
    keep_float32: Callable[[str], bool] = lambda key: False,
    ignored: Sequence[str] = (),
    tied: Sequence[str] = (),
    taken: Mapping[str, Callable[[Tensor], None]] = MappingProxyType({}),
    strict: bool = True,
) -> LoadReport:
    """:func:`load_state` for tensors whose headers have been read.

    Args:
        ignored: parts of a name whose surplus tensors are passed over.
        tied: names in the model that repeat another of its tensors and are not stored.
        taken: who takes a tensor of that name as soon as it is there, instead of the model.
    """
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items() if key not in tied}
    report = compare(wanted, {name: entry.shape for name, entry in entries.items()}, ignored=ignored)
    if strict:
        report.require_complete(", ".join(sorted({str(entry.file.parent) for entry in entries.values()})))
    source = _Source(device=torch.device(device), dtype=dtype, keep_float32=keep_float32)
    fitting = [key for key in wanted if key in entries and key not in report.misshapen]
    for key in fitting:
        if key in taken:
            taken[key](source.tensor(key, entries[key]))
    left = {key: source.tensor(key, entries[key]) for key in fitting if key not in taken}
    model.load_state_dict(left, strict=False, assign=True)
    return report


class _Source:
    """Tensors out of files, mapped where they can be and read where they must be."""

    def __init__(self, *, device: torch.device, dtype: torch.dtype, keep_float32: Callable[[str], bool]) -> None:
        self._device, self._dtype, self._keep_float32 = device, dtype, keep_float32
        self._maps: dict[Path, mmap.mmap] = {}
        self._buffer = new_buffer()

    def tensor(self, key: str, entry: TensorEntry) -> Tensor:
        """One tensor in the precision that its key asks for; numbers that are not floating point stay as they are."""
        dtype = entry.dtype
        if dtype.is_floating_point:
            dtype = torch.float32 if self._keep_float32(key) else self._dtype
        aligned = entry.offset % entry.dtype.itemsize == 0
        if self._device.type == "cpu" and dtype == entry.dtype and aligned and entry.size > 0:
            return self._view(entry)
        return read_tensor(entry, self._device, dtype, self._buffer)

    def _view(self, entry: TensorEntry) -> Tensor:
        """A view of the mapped file. The map is private: training may change the tensor and the file stays as it is.

        One map per file and not per tensor, because each map holds a file descriptor; it lives as long as its tensors.
        """
        if entry.file not in self._maps:
            with entry.file.open("rb") as stream:
                self._maps[entry.file] = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        count = entry.size // entry.dtype.itemsize
        pages = self._maps[entry.file]
        return torch.frombuffer(pages, dtype=entry.dtype, count=count, offset=entry.offset).view(entry.shape)


def weightless():
    """A context in which modules are built without memory for their parameters; buffers are real."""
    from accelerate import init_empty_weights

    return init_empty_weights(include_buffers=False)


def read_tensor(
    entry: TensorEntry, device: torch.device | str, dtype: torch.dtype, buffer_bytes: Tensor | None = None
) -> Tensor:
    """One tensor on a device in a precision, read piece by piece through a small host buffer.

    Args:
        buffer_bytes: uint8 memory to read through, reused over many tensors; made here if None.
    Raises: InputError when the file ends early.
    """
    out = torch.empty(entry.shape, dtype=dtype, device=device)
    buffer = (new_buffer() if buffer_bytes is None else buffer_bytes).view(entry.dtype)
    raw, flat, start = memoryview(buffer.view(torch.uint8).numpy()), out.view(-1), 0
    with entry.file.open("rb", buffering=0) as stream:
        stream.seek(entry.offset)
        while start < flat.numel():
            count = min(buffer.numel(), flat.numel() - start)
            _fill(stream, raw[: count * entry.dtype.itemsize], entry)
            flat[start : start + count].copy_(buffer[:count])
            start += count
    return out


def new_buffer() -> Tensor:
    """Host memory to read files through. Made once per load: many short-lived ones leave holes in the heap."""
    return torch.empty(_BUFFER_BYTES, dtype=torch.uint8)


def _fill(stream, target: memoryview, entry: TensorEntry) -> None:
    while target:
        got = stream.readinto(target)
        if not got:
            raise InputError(f"{str(entry.file)!r} ended while {entry.name!r} was read: download it again")
        target = target[got:]
