"""What a phase will take, before anything is loaded: parameters, memory, disk, data."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from math import prod
from pathlib import Path

import torch
from torch import nn

from helios.checkpoints import Variant, inspect, resolve, synthetic_info, transformer_shapes
from helios.checkpoints.hub import RELEASED
from helios.checkpoints.layout import MEMORY_PATCHES, TEXT_ENCODER, VAE
from helios.errors import InputError
from helios.models.transformer.config import TransformerConfig
from helios.shapes import Geometry
from helios.training.adapt import FullTraining, LoraTraining
from helios.training.ema import Ema
from helios.training.methods.flow_matching import EmptyPast
from helios.training.methods.gan import Discriminator
from helios.training.methods.stage2 import Packed
from helios.training.muon import is_matrix
from helios.training.network import Float32
from helios.training.optim import MuonConfig, OptimConfig
from helios.training.phase import (
    AdaptStage,
    After,
    Checkpoint,
    DmdStage,
    EncodedText,
    Heads,
    Phase,
    PreparedData,
    PretrainStage,
    PromptPairs,
    PyramidStage,
    Scratch,
    Start,
    ToyLatents,
    ToyWindows,
    VaeStage,
)
from helios.training.plans import LEVELS
from helios.training.workspace import Workspace

Shapes = Mapping[str, tuple[int, ...]]

_BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True, kw_only=True)
class PhaseEstimate:
    """What one phase takes, in numbers and bytes; of memory, what one device holds.

    Attributes:
        parameters: of the transformer, and of the text encoder where it is trained too; of the VAE where that is.
        trained: numbers that the student's optimiser moves.
        critic_trained: numbers that the critic's moves; 0 without one.
        tokens: longest sequence of one sample.
        weights: frozen and trained weights on the device, the text encoder's among them where captions are encoded.
        optimiser: gradients and moments.
        average: the moving average.
        activations: kept for the backward pass of one micro-batch. A rough figure: good to a factor of two.
        checkpoint: one checkpoint on disk.
        disk: all checkpoints that are kept, and the whole export.
        clips: clips read over the whole run, repeats counted.
    """

    parameters: int
    trained: int
    critic_trained: int
    tokens: int
    weights: int
    optimiser: int
    average: int
    activations: int
    checkpoint: int
    disk: int
    clips: int

    @property
    def memory(self) -> int:
        """Bytes on the device, all together."""
        return self.weights + self.optimiser + self.average + self.activations


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a phase starts from, in sizes.

    Args:
        transformer: its configuration.
        geometry: of the latents.
        height, width: pixels of the clips.
        text: the text encoder's weights.
        copied: bytes of the parts that an export takes along.
    """

    transformer: TransformerConfig
    geometry: Geometry
    height: int
    width: int
    text: Shapes
    copied: int


def estimate_phase(phase: Phase, workspace: Path, origin: Start, *, ranks: int = 1) -> PhaseEstimate:
    """The estimate of a phase from its recipe alone: nothing is loaded, and no phase before it needs to have run.

    Args:
        phase: of a recipe.
        workspace: where phases before it may have exported their models.
        origin: what the recipe's first phase starts from, for phases that start after one that has not run.
        ranks: devices that share the batch.
    Raises: InputError for a batch that does not split, and when a checkpoint that the phase names is not there.
    """
    if ranks < 1 or phase.run.batch_size % (ranks * phase.run.accumulate):
        raise InputError(f"batch_size={phase.run.batch_size} does not split over {ranks} devices")
    start = phase.start
    if isinstance(phase.stage, VaeStage) and isinstance(origin, Scratch):
        return _vae_estimate(phase, start if isinstance(start, Scratch) else origin)
    if isinstance(start, After):
        model = Workspace(workspace).model(start.phase)
        start = Checkpoint(source=str(model)) if model.is_dir() else origin
    return estimate(phase, sizes_of(start), ranks=ranks)


def describe_data(phase: Phase) -> str:
    """What a phase learns from, in words."""
    data = phase.data
    if isinstance(data, ToyWindows):
        return f"{data.count} windows of the toy world, drawn as they are read"
    if isinstance(data, ToyLatents):
        return f"{data.encode.count} clips of {data.world.chunks} chunks, drawn and encoded into {data.folder}/ once"
    if isinstance(data, PromptPairs):
        return f"{data.count} videos of {data.chunks} chunks by the starting model, recorded into {data.folder}/ once"
    assert isinstance(data, PreparedData)
    return f"what `helios data prepare` wrote into {data.folder}/"


def estimate(phase: Phase, start: Sizes, *, ranks: int = 1) -> PhaseEstimate:
    """The estimate of a phase that trains a transformer.

    Args:
        phase: of a recipe.
        start: what it starts from.
        ranks: devices that share the batch.
    """
    config, text = start.transformer, start.text
    shapes = transformer_shapes(config)
    dense = _numbers(shapes)
    encodes = isinstance(phase.text, EncodedText)
    trains_text = encodes and phase.text.trained
    trained = trained_shapes(phase.training, shapes) | (text if trains_text else {})
    critic, critics_base = _critic(phase, config, shapes)
    held = partial(_held, ranks=ranks if phase.parallel == "sharded" else 1)
    tokens = _sequence(phase, start)
    samples = max(1, phase.run.batch_size // (phase.run.accumulate * ranks))
    adapted = isinstance(phase.training, LoraTraining)
    weights = held(shapes) * _BYTES[phase.dense] + 4 * held(trained) if adapted else 4 * held(shapes)
    moments = moment_numbers(phase.optim, trained)
    if critic:
        moments += moment_numbers(phase.stage.critic_optim, critic)
    both = _numbers(trained) + _numbers(critic)
    kept = Fraction(held(trained) + held(critic), both)
    averages = isinstance(phase.ema, Ema)
    checkpoint = 4 * (both + moments + averages * _numbers(trained))
    return PhaseEstimate(
        parameters=dense + (_numbers(text) if trains_text else 0),
        trained=_numbers(trained),
        critic_trained=_numbers(critic),
        tokens=tokens,
        weights=weights
        + held(critics_base) * _BYTES[phase.dense]
        + 4 * held(critic)
        + (4 * _numbers(text) if encodes else 0),
        optimiser=round(4 * (both + moments) * kept),
        average=4 * held(trained) * averages,
        activations=_activations(phase, config, tokens, samples),
        checkpoint=checkpoint,
        disk=_checkpoints(phase) * checkpoint + dense * _BYTES[phase.dense] + start.copied,
        clips=phase.run.steps * phase.run.batch_size,
    )


def trained_shapes(training: FullTraining | LoraTraining, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """What is trained, from the names and shapes of the dense weights."""
    if isinstance(training, FullTraining):
        frozen = tuple(f"{module}." for module in training.frozen)
        return {name: shape for name, shape in shapes.items() if not name.startswith(frozen)}
    found = {}
    for name, shape in shapes.items():
        owner, kind = name.split(".")[0], name.split(".")[-1]
        if owner in training.full:
            found[name] = shape
        elif kind == "weight" and (len(shape) == 2 or owner in training.patches) and "norm" not in name:
            found[f"{name}.down"] = (training.rank, prod(shape[1:]))
            found[f"{name}.up"] = (shape[0], training.rank)
    return found


def moment_numbers(optim: OptimConfig | MuonConfig, trained: Shapes) -> int:
    """Numbers that an optimiser keeps: AdamW two for each that it moves, Muon one."""
    numbers = 2 * _numbers(trained)
    if isinstance(optim, MuonConfig):
        matrices = {n: s for n, s in trained.items() if is_matrix(n, torch.empty(s, device="meta"))}
        numbers -= _numbers(matrices)
    return numbers


def sizes_of(start: Start) -> Sizes:
    """Of a start; Wan's and those of the released names are the 14B model's, so nothing is downloaded to estimate."""
    if isinstance(start, Scratch):
        model = start.model
        text, vae = _small_text(start), _shapes_of(model.vae.build().module)
        return Sizes(
            transformer=model.transformer.config(channels=model.vae.channels, text_width=model.text.width),
            geometry=Geometry(spatial=model.vae.spatial, latent_channels=model.vae.channels),
            height=model.height,
            width=model.width,
            text=text,
            copied=4 * (_numbers(text) + _numbers(vae)),
        )
    released = not isinstance(start, Checkpoint) or start.source.lower() in RELEASED
    info = synthetic_info("14b-random-base") if released else inspect(resolve(start.source))
    return Sizes(
        transformer=TransformerConfig.from_dict(info.transformer_config),
        geometry=info.geometry,
        height=info.preset.height,
        width=info.preset.width,
        text={name: entry.shape for name, entry in info.tensors[TEXT_ENCODER].items()},
        copied=info.stored_bytes(TEXT_ENCODER) + info.stored_bytes(VAE),
    )


def _small_text(start: Scratch) -> Shapes:
    """The text encoder with as large a vocabulary as the tokenizer may get."""
    with torch.device("meta"):
        return _shapes_of(start.model.text.build(start.model.text.pieces))


def _vae_estimate(phase: Phase, start: Scratch) -> PhaseEstimate:
    shapes = _shapes_of(start.model.vae.build().module)
    trained = trained_shapes(phase.training, shapes)
    count, moments = _numbers(trained), moment_numbers(phase.optim, trained)
    averaged = 4 * count if isinstance(phase.ema, Ema) else 0
    checkpoint = 4 * (count + moments) + averaged
    sizes = sizes_of(start)
    return PhaseEstimate(
        parameters=_numbers(shapes),
        trained=count,
        critic_trained=0,
        tokens=0,
        weights=4 * _numbers(shapes),
        optimiser=4 * (count + moments),
        average=averaged,
        activations=0,
        checkpoint=checkpoint,
        disk=_checkpoints(phase) * checkpoint + 4 * _numbers(transformer_shapes(sizes.transformer)) + sizes.copied,
        clips=phase.run.steps * phase.run.batch_size,
    )


def _critic(phase: Phase, config: TransformerConfig, shapes: Shapes) -> tuple[Shapes, Shapes]:
    """What the critic trains, and the dense weights that come with teacher and critic."""
    stage = phase.stage
    if not isinstance(stage, DmdStage):
        return {}, {}
    trained = trained_shapes(stage.critic, shapes)
    if isinstance(stage.adversary, Heads):
        trained |= {f"heads.{name}": shape for name, shape in head_shapes(stage.adversary, config).items()}
    return trained, {} if stage.one_at_a_time else shapes


def head_shapes(heads: Heads, config: TransformerConfig) -> Shapes:
    """Parameters of a discriminator."""
    with torch.device("meta"):
        return _shapes_of(
            Discriminator(channels=config.in_channels, hidden=config.width, taps=heads.taps, width=heads.width)
        )


def _shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def _numbers(shapes: Shapes) -> int:
    return sum(map(prod, shapes.values()))


def _held(shapes: Shapes, *, ranks: int) -> int:
    """Numbers on one device: the ranks share the blocks, where weights are split, and each has all of the rest."""
    blocks = _numbers({name: shape for name, shape in shapes.items() if name.startswith("blocks.")})
    return _numbers(shapes) - blocks + -(-blocks // ranks)


def _checkpoints(phase: Phase) -> int:
    """How many are on the disk at once, the one in the making included."""
    return phase.run.keep.last + (phase.run.keep.best_by is not None) + 1


def _sequence(phase: Phase, start: Sizes) -> int:
    """Tokens of the longest sequence of one sample."""
    height, width = start.height, start.width
    geometry = replace(start.geometry, levels=1 if phase.stage.variant is Variant.BASE else LEVELS)
    rows, columns = geometry.latent_size(height, width)
    sizes, patch = geometry.history, geometry.patch
    history = 2 * (rows // patch) * (columns // patch)
    for frames, name in ((sizes.mid, "patch_mid"), (sizes.long, "patch_long")):
        t, y, x = MEMORY_PATCHES[name]
        history += -(-frames // t) * -(-rows // y) * -(-columns // x)
    frames = geometry.chunk_latent_frames
    kept = phase.stage.sparse.longest(frames) if isinstance(phase.stage, AdaptStage) else frames
    noisy = [geometry.noisy_tokens(height, width, level) * kept // frames for level in range(geometry.levels)]
    if isinstance(phase.stage, PretrainStage):
        past = history if isinstance(phase.stage.past, EmptyPast) else 0
        return max(e.tokens(noisy[-1], frames) + -(-past // e.shrink**2) for e in phase.stage.excerpts)
    if isinstance(phase.stage, VaeStage):
        return noisy[-1]
    if isinstance(phase.stage, PyramidStage) and isinstance(phase.stage.draws.passes, Packed):
        return sum(count * (history + tokens) for count, tokens in zip(phase.stage.draws.per_level, noisy))
    return history + noisy[-1]


def _activations(phase: Phase, config: TransformerConfig, tokens: int, samples: int) -> int:
    """Bytes kept for the backward pass: with recomputation one input per block and one whole block."""
    width, hidden, layers = config.width, config.ffn_dim, config.num_layers
    bytes_each = 4 if isinstance(phase.precision, Float32) else 2
    block = tokens * (14 * width + 3 * hidden) * bytes_each
    kept = layers * tokens * width * bytes_each + block if phase.recompute else layers * block
    return samples * kept
