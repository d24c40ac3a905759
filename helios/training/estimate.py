"""What a phase will take, before anything is loaded: parameters, memory, disk, data."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from helios.checkpoints import Variant, inspect, resolve, transformer_shapes
from helios.checkpoints.layout import MEMORY_PATCHES
from helios.errors import InputError
from helios.models.transformer.config import TransformerConfig
from helios.shapes import Geometry
from helios.training.adapt import FullTraining, LoraTraining
from helios.training.ema import Ema
from helios.training.methods.stage2 import Packed
from helios.training.network import Float32
from helios.training.phase import (
    After,
    Checkpoint,
    DmdStage,
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

_ADAM = 16  # bytes per trained number: float32 weight, gradient and two moments
_BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True, kw_only=True)
class PhaseEstimate:
    """What one phase takes on one device (replicated weights), in numbers and bytes.

    Attributes:
        parameters: of the transformer.
        trained: numbers that the student's optimiser moves.
        critic_trained: numbers that the critic's moves; 0 without one.
        tokens: longest sequence of one sample.
        weights: frozen and trained weights on the device.
        optimiser: gradients and moments.
        average: the moving average.
        activations: kept for the backward pass of one micro-batch. A rough figure: good to a factor of two.
        checkpoint: one checkpoint on disk.
        disk: all checkpoints that are kept, and the export.
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
    if isinstance(phase.stage, VaeStage) and isinstance(origin, Scratch):
        return _vae_estimate(phase, origin)
    start = phase.start
    if isinstance(start, After):
        model = Workspace(workspace).model(start.phase)
        start = Checkpoint(source=str(model)) if model.is_dir() else origin
    config, geometry, height, width = _sizes(start)
    levels = 1 if phase.stage.variant is Variant.BASE else LEVELS
    return estimate(phase, config, replace(geometry, levels=levels), height, width, ranks=ranks)


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


def estimate(
    phase: Phase, config: TransformerConfig, geometry: Geometry, height: int, width: int, *, ranks: int = 1
) -> PhaseEstimate:
    """The estimate of a phase that trains a transformer.

    Args:
        config: of the transformer.
        geometry: of the checkpoint, with three levels where the phase has a pyramid.
        height, width: pixels of the clips.
        ranks: devices that share the batch.
    """
    shapes = transformer_shapes(config)
    parameters = sum(map(prod, shapes.values()))
    trained = trained_numbers(phase.training, shapes)
    critic_trained, extra_weights = _critic(phase, config, shapes, parameters)
    tokens = _sequence(phase, geometry, height, width)
    samples = max(1, phase.run.batch_size // (phase.run.accumulate * ranks))
    adapted = isinstance(phase.training, LoraTraining)
    dense = parameters * (_BYTES[phase.dense] if adapted else 4)
    own = trained * 4 if adapted else 0
    averaged = 4 * trained if isinstance(phase.ema, Ema) else 0
    checkpoint = 12 * (trained + critic_trained) + averaged
    kept = phase.run.keep.last + (phase.run.keep.best_by is not None)
    return PhaseEstimate(
        parameters=parameters,
        trained=trained,
        critic_trained=critic_trained,
        tokens=tokens,
        weights=dense + own + extra_weights,
        optimiser=(_ADAM - 4) * (trained + critic_trained),
        average=averaged,
        activations=_activations(phase, config, tokens, samples),
        checkpoint=checkpoint,
        disk=(kept + 1) * checkpoint + parameters * _BYTES[phase.dense],
        clips=phase.run.steps * phase.run.batch_size,
    )


def trained_numbers(training: FullTraining | LoraTraining, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """How many numbers are trained, from the names and shapes of the dense weights."""
    if isinstance(training, FullTraining):
        return sum(prod(shape) for name, shape in shapes.items() if name.split(".")[0] not in training.frozen)
    count = 0
    for name, shape in shapes.items():
        owner, kind = name.split(".")[0], name.split(".")[-1]
        if owner in training.full:
            count += prod(shape)
        elif kind == "weight" and (len(shape) == 2 or owner in training.patches) and "norm" not in name:
            count += training.rank * (shape[0] + prod(shape[1:]))
    return count


def head_numbers(heads: Heads, channels: int, hidden: int) -> int:
    """Parameters of a discriminator."""
    kernels = (27, 64, 64, 27, 27, 9)

    def one(inputs: int) -> int:
        width, total = heads.width, 0
        for kernel in kernels:
            total += inputs * width * kernel + 3 * width
            inputs = width
        return total + width + 1

    return one(channels) + len(heads.taps) * one(hidden)


def _sizes(start: Start) -> tuple[TransformerConfig, Geometry, int, int]:
    """(transformer, latents, height, width) of a start; Wan's are those of the 14B model."""
    if isinstance(start, Scratch):
        model = start.model
        config = model.transformer.config(channels=model.vae.channels, text_width=model.text.width)
        geometry = Geometry(spatial=model.vae.spatial, latent_channels=model.vae.channels)
        return config, geometry, model.height, model.width
    if isinstance(start, Checkpoint):
        info = inspect(resolve(start.source))
        config = TransformerConfig.from_dict(info.transformer_config)
        return config, info.geometry, info.preset.height, info.preset.width
    return TransformerConfig(), Geometry(), 384, 640


def _vae_estimate(phase: Phase, start: Scratch) -> PhaseEstimate:
    count = sum(parameter.numel() for parameter in start.model.vae.build().module.parameters())
    averaged = 4 * count if isinstance(phase.ema, Ema) else 0
    checkpoint = 12 * count + averaged
    return PhaseEstimate(
        parameters=count,
        trained=count,
        critic_trained=0,
        tokens=0,
        weights=4 * count,
        optimiser=(_ADAM - 4) * count,
        average=averaged,
        activations=0,
        checkpoint=checkpoint,
        disk=(phase.run.keep.last + 1) * checkpoint + 4 * count,
        clips=phase.run.steps * phase.run.batch_size,
    )


def _critic(phase: Phase, config: TransformerConfig, shapes: Mapping[str, tuple[int, ...]], parameters: int):
    """(numbers the critic trains, bytes of weights that come with teacher and critic)."""
    stage = phase.stage
    if not isinstance(stage, DmdStage):
        return 0, 0
    trained = trained_numbers(stage.critic, shapes)
    dense = parameters * _BYTES[phase.dense]
    weights = dense + 4 * trained
    if stage.one_at_a_time:
        weights -= dense
    if isinstance(stage.adversary, Heads):
        heads = head_numbers(stage.adversary, config.in_channels, config.width)
        trained, weights = trained + heads, weights + 4 * heads
    return trained, weights


def _sequence(phase: Phase, geometry: Geometry, height: int, width: int) -> int:
    """Tokens of the longest sequence of one sample."""
    rows, columns = geometry.latent_size(height, width)
    sizes, patch = geometry.history, geometry.patch
    history = 2 * (rows // patch) * (columns // patch)
    for frames, name in ((sizes.mid, "patch_mid"), (sizes.long, "patch_long")):
        t, y, x = MEMORY_PATCHES[name]
        history += -(-frames // t) * -(-rows // y) * -(-columns // x)
    noisy = [geometry.noisy_tokens(height, width, level) for level in range(geometry.levels)]
    if isinstance(phase.stage, PretrainStage | VaeStage):
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
