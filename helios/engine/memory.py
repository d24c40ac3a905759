"""What a run will hold in memory, computed from a checkpoint's headers before anything is loaded.

Weights are summed from the headers, with the float32 exceptions that loading makes. Working memory is counted by
running a chunk on shapes alone (:class:`helios.engine.dry_run.DryRun`), with the operations that accelerators get; the
leaner ones of the CPU in float32 need up to a fifth less.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from math import prod

import torch
from torch import Tensor

from helios.checkpoints import CheckpointInfo
from helios.checkpoints.layout import TEXT_ENCODER, TRANSFORMER, VAE
from helios.checkpoints.load import text_encoder_keeps_float32
from helios.device import HostMemory, device_capacity, host_memory
from helios.engine.approximation import Fp8Linears, ReusedHistory
from helios.engine.dry_run import DryRun
from helios.engine.live_bytes import FlashOnMeta, LiveBytes
from helios.engine.pace import InTurn, Pace
from helios.models.transformer.precision import keeps_float32
from helios.models.transformer.rounding import rounded_weights
from helios.ops.conv3d import half_units
from helios.sampling.plan import SamplingPlan

# Before anything is loaded: the libraries (550 MiB were measured on a CPU, H.264 included), and with an accelerator its
# driver in host memory and its context on the device.
_CPU_BASE = 640 << 20
_HOST_BASE = 1 << 30
_DEVICE_BASE = 600 << 20
# What a caching allocator holds beyond the live tensors, as a share of them.
_ALLOCATOR_SLACK = 0.05
# What `at_most` allows: widest feature maps alive at once in the decoder, and token rows in a block. Twice what is there.
_MAPS_AT_ONCE = 10
_ROWS_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes that a run needs where its models live, for one choice of precision.

    Attributes:
        dtype, vae_dtype: precision of transformer and text encoder, and of the VAE.
        transformer, vae, text_encoder: weights. The text encoder can be released once the prompts are encoded.
        text_encoding: working memory of the text encoder.
        prompt: what stays of the prompts: states, cross-attention keys and values.
        history: the latents that a stream carries, and what they are encoded to.
        levels: working memory of a denoising step, per level.
        decode: working memory of decoding a chunk at once; ``decode_early`` latent frame by latent frame.
        ahead: a chunk is decoded while the next one is denoised, so that both hold working memory at once.
        loaded: the transformer's weights as they are loaded, ``exact`` or ``fp8``.
    """

    dtype: torch.dtype
    vae_dtype: torch.dtype
    transformer: int
    vae: int
    text_encoder: int
    text_encoding: int
    prompt: int
    history: int
    levels: tuple[int, ...]
    decode: int
    decode_early: int
    ahead: bool = False
    loaded: str = "exact"

    @property
    def weights(self) -> int:
        """Transformer and VAE."""
        return self.transformer + self.vae

    @property
    def together(self) -> int:
        """The most with everything loaded at once, which is how :meth:`Helios.from_pretrained` begins."""
        return self.weights + self.text_encoder + max(self.text_encoding, self._chunk(self.decode))

    @property
    def prompts_first(self) -> int:
        """The most when the prompts are encoded and the text encoder is gone before the other weights come."""
        return max(self.text_encoder + self.text_encoding, self.weights + self._chunk(self.decode))

    @property
    def early_frames(self) -> int:
        """As :attr:`prompts_first`, with each latent frame decoded by itself."""
        return max(self.text_encoder + self.text_encoding, self.weights + self._chunk(self.decode_early))

    def _chunk(self, decode: int) -> int:
        step = max(self.levels)
        return self.prompt + self.history + (step + decode if self.ahead else max(step, decode))


def footprint(
    info: CheckpointInfo,
    plan: SamplingPlan,
    *,
    device: torch.device,
    dtype: torch.dtype,
    vae_dtype: torch.dtype = torch.float32,
    batch: int = 1,
    pace: Pace = InTurn(),
    approximations: Collection[str] = (),
    weights: str = "exact",
) -> Footprint:
    """The footprint of a run of ``plan`` with ``batch`` videos; takes seconds and no memory to speak of.

    ``pace`` is that of the session; on the CPU, where nothing runs beside anything, it makes no difference. Of the
    ``approximations`` (names), ``history`` keeps more, and ``fp8`` needs what loading the exact weights takes, unless
    ``weights`` are ``fp8`` from the beginning.
    """
    dry = DryRun(
        info.transformer_config,
        info.vae_config,
        plan,
        batch=batch,
        dtype=dtype,
        vae_dtype=_computed_in(vae_dtype, device),
        text_tokens=info.text_tokens,
        layers=2,  # one like all the others, and the last
    )
    text, history = dry.encode_text(), dry.encode_history()
    levels = tuple(_peak(partial(dry.step, level, text, history)) for level in range(plan.geometry.levels))
    return Footprint(
        dtype=dtype,
        vae_dtype=vae_dtype,
        **_weights_by_part(info, dtype, vae_dtype, weights),
        text_encoding=_text_encoding_bytes(info),
        prompt=_prompt_bytes(info, plan, dtype, batch),
        history=sum(_bytes(x) for x in (dry.past.window_BCTHW, dry.past.anchor_BCTHW, history.tokens_BLD))
        + _kept_bytes(info, _bytes(history.tokens_BLD), approximations),
        levels=levels,
        decode=_peak(dry.decode),
        decode_early=_peak(lambda: [None for _ in islice(dry.decode_early(), 3)]),  # the others are like the third
        ahead=pace.looks_ahead and device.type != "cpu",
        loaded=weights,
    )


def at_most(
    info: CheckpointInfo,
    plan: SamplingPlan,
    *,
    dtype: torch.dtype,
    vae_dtype: torch.dtype,
    batch: int = 1,
    approximations: Collection[str] = (),
    weights: str = "exact",
) -> int:
    """Bytes that no run of ``plan`` exceeds, from headers and sizes alone: at once, where :func:`footprint` takes a second.

    Where this much is free, nothing has to be counted.
    """
    config, vae = info.transformer_config, info.vae_config
    rows, columns = plan.geometry.latent_size(plan.height, plan.width)
    latent_frames = plan.anchor.window(plan.geometry) + 1 + plan.geometry.chunk_latent_frames
    tokens = latent_frames * rows * columns // plan.geometry.patch**2
    width = config["num_attention_heads"] * config["attention_head_dim"]
    copies = 2 if plan.guidance.needs_negative else 1
    step = copies * tokens * (_ROWS_AT_ONCE * width + 2 * config["ffn_dim"])
    pixels = plan.geometry.chunk_frames * plan.height * plan.width
    decode = pixels * _MAPS_AT_ONCE * max(vae["base_dim"], vae.get("decoder_base_dim") or 0)
    loaded = sum(_weights_by_part(info, dtype, vae_dtype, weights).values())
    working = _text_encoding_bytes(info) + batch * (step + decode) * torch.float32.itemsize
    kept = _kept_bytes(info, copies * batch * tokens * width * dtype.itemsize, approximations)
    return loaded + _prompt_bytes(info, plan, dtype, batch) + working + kept


def _weights_by_part(info: CheckpointInfo, dtype: torch.dtype, vae_dtype: torch.dtype, weights: str) -> dict[str, int]:
    """Under the names of a :class:`Footprint`."""
    saved = _saved_by_rounding(info, dtype) if weights == Fp8Linears.name else 0
    return {
        "transformer": _weights(info, TRANSFORMER, dtype, keeps_float32) - saved,
        "vae": _weights(info, VAE, vae_dtype),
        "text_encoder": _weights(info, TEXT_ENCODER, dtype, text_encoder_keeps_float32(dtype)),
    }


def _saved_by_rounding(info: CheckpointInfo, dtype: torch.dtype) -> int:
    """One byte a weight is left of the rounded ones, and a float32 scale a row."""
    shapes = {name: entry.shape for name, entry in info.tensors[TRANSFORMER].items()}
    rounded = [shapes[name] for name in rounded_weights(shapes, info.transformer_config["num_layers"])]
    return sum(rows * (columns * (dtype.itemsize - 1) - torch.float32.itemsize) for rows, columns in rounded)


def _text_encoding_bytes(info: CheckpointInfo) -> int:
    return 3 * info.text_encoder_config["num_heads"] * info.text_tokens**2 * torch.float32.itemsize


def _computed_in(vae_dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """A processor without units for half precision convolves in float32."""
    emulated = device.type == "cpu" and vae_dtype != torch.float32 and not half_units(vae_dtype)
    return torch.float32 if emulated else vae_dtype


def _weights(
    info: CheckpointInfo, component: str, dtype: torch.dtype, keeps: Callable[[str], bool] = lambda name: False
) -> int:
    entries = info.tensors[component]
    return sum(prod(e.shape) * (torch.float32 if keeps(name) else dtype).itemsize for name, e in entries.items())


def _prompt_bytes(info: CheckpointInfo, plan: SamplingPlan, dtype: torch.dtype, batch: int) -> int:
    config = info.transformer_config
    width = config["num_attention_heads"] * config["attention_head_dim"]
    per_token = config["text_dim"] + width * (1 + 2 * config["num_layers"])
    # Under guidance the conditional and the unconditional prompt are kept, and both again as one batch.
    copies = 4 if plan.guidance.needs_negative else 1
    return copies * batch * info.text_tokens * per_token * dtype.itemsize


def _kept_bytes(info: CheckpointInfo, tokens: int, approximations: Collection[str]) -> int:
    """Keys and values that every block keeps of a history whose tokens have that many bytes."""
    return 2 * info.transformer_config["num_layers"] * tokens if ReusedHistory.name in approximations else 0


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@torch.no_grad()
def _peak(call: Callable[[], object]) -> int:
    with FlashOnMeta(), LiveBytes() as live:
        call()
    return live.peak


@dataclass(frozen=True, kw_only=True)
class Room:
    """What this machine has for it, in bytes.

    Attributes:
        device: where the models would live.
        capacity, free: of that device; on the CPU, of host memory under the container's limit.
        host: host memory, which an accelerator's run also needs a little of.

    What this process holds already is counted as free up to what the libraries take, since a run needs those too.
    """

    device: torch.device
    capacity: int
    free: int
    host: HostMemory

    @property
    def for_a_run(self) -> int:
        """Bytes that a run may need on the device, the libraries or the driver's context included."""
        return self.free + min(self.host.resident, _CPU_BASE) if self.device.type == "cpu" else self.free

    @property
    def host_suffices(self) -> bool:
        """Whether host memory has what a run on an accelerator needs of it; the CPU's is counted as its device's."""
        return self.device.type == "cpu" or self.host.available + min(self.host.resident, _HOST_BASE) >= _HOST_BASE

    @staticmethod
    def of(device: torch.device) -> "Room":
        """What this machine has now."""
        free, capacity = device_capacity(device)
        return Room(device=device, capacity=capacity, free=free, host=host_memory())

    @staticmethod
    def imagined(free: int) -> "Room":
        """This host with an accelerator that it may not have."""
        return Room(device=torch.device("meta"), capacity=free, free=free, host=host_memory())


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a run fits, and how.

    Attributes:
        needed: device bytes with everything loaded at once, the device's own overhead included.
        needed_prompts_first: device bytes when the prompts are encoded first, as the command line does.
        needed_least: device bytes with everything done to save memory that keeps the pixels.
        needed_host: bytes of host memory.
        fits: the run fits, if need be with what ``advice`` says.
        advice: one sentence.
    """

    needed: int
    needed_prompts_first: int
    needed_least: int
    needed_host: int
    fits: bool
    advice: str


def judge(footprint: Footprint, room: Room) -> Verdict:
    """Set a footprint against a machine."""
    together, prompts_first, early = (
        on_device(size, room.device) for size in (footprint.together, footprint.prompts_first, footprint.early_frames)
    )
    free = room.for_a_run
    rounded = ", weights='fp8'" if footprint.loaded != "exact" else ""
    if not room.host_suffices:
        advice = f"Host memory is short of {gib(_HOST_BASE)}: free some, or raise the container's limit."
    elif together <= free:
        advice = "Fits as it is."
    elif prompts_first <= free:
        advice = (
            "Fits with the prompts encoded first, as `helios generate` does: in Python, "
            f"from_pretrained(prompts=[...]{rounded})."
        )
    elif early <= free:
        advice = (
            "Fits with the prompts encoded first and frames decoded early, `helios generate --decode early`: in Python, "
            f"from_pretrained(prompts=[...]{rounded}) and EarlyFrames()."
        )
    elif footprint.ahead and judge(replace(footprint, ahead=False), room).fits:
        advice = "Does not fit while decoding ahead: decode in turn, without --ahead or DecodeAhead(), which does."
    else:
        advice = f"Does not fit, {gib(early - free)} are missing: take a smaller precision, size or model."
    return Verdict(
        needed=together,
        needed_prompts_first=prompts_first,
        needed_least=early,
        needed_host=together if room.device.type == "cpu" else _HOST_BASE,
        fits=room.host_suffices and early <= free,
        advice=advice,
    )


def on_device(size: int, device: torch.device) -> int:
    """Bytes of tensors with what the device needs beside them: libraries, or context and allocator."""
    if device.type == "cpu":
        return size + _CPU_BASE
    return int(size * (1 + _ALLOCATOR_SLACK)) + _DEVICE_BASE


def gib(size: int) -> str:
    """Bytes as people read them."""
    return f"{size / 2**30:.1f} GiB"
