"""Run a phase and export what it made."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from helios.checkpoints import save
from helios.checkpoints.presets import read_own_settings
from helios.data.identity import LATENT_PARTS
from helios.device import resolve_device
from helios.errors import InputError
from helios.models.transformer.patches import init_memory_patches
from helios.training.adapt import LoraTraining, merge, save_adapter
from helios.training.build import Built, build, prepare
from helios.training.checkpoint import CheckpointFolder, averaged_weights
from helios.training.errors import writing
from helios.training.methods.flow_matching import NoPast
from helios.training.methods.vae import set_latent_statistics
from helios.training.parallel import Parallel, connect, disconnect, like
from helios.training.phase import Phase, PretrainStage, VaeStage
from helios.training.plans import scheduler_of
from helios.training.trainer import Progress, RunResult, Trainer
from helios.training.workspace import Workspace

logger = logging.getLogger(__name__)

ADAPTER = "adapter"


@dataclass(frozen=True, kw_only=True)
class PhaseResult:
    """How a phase ended.

    Attributes:
        run: step reached, and whether that was the last.
        model: the exported checkpoint; None while the run is not finished.
    """

    run: RunResult
    model: Path | None


def run_phase(
    phase: Phase,
    workspace: str | Path,
    *,
    device: str = "auto",
    show: Callable[[Progress], None] = lambda progress: None,
) -> PhaseResult:
    """Train a phase to its end, or for as long as it may take, and export the model when it is done.

    The same call goes on from the newest checkpoint. Under ``torchrun`` all ranks make this call.

    Args:
        phase: from a recipe.
        workspace: folder of all phases of the recipe.
        device: name of a device, or ``auto``.
        show: called with the progress.
    Raises: InputError for settings, data or checkpoints that do not fit; TrainingError when the run has to stop.
    """
    place, parallel = _place(device), connect(phase.parallel)
    space = Workspace(Path(workspace), complete=parallel.world > 1)
    built = build(phase, space, place)
    trainer = Trainer(
        built.method,
        built.dataset,
        phase.run,
        space.phase(phase.name),
        settings=phase,
        parallel=parallel,
        probes=built.probes,
        show=show,
    )
    result = trainer.run()
    model = _export(phase, built, space, result, parallel) if result.finished else None
    disconnect()  # not on errors: the other ranks would never meet this one, and end with its process
    return PhaseResult(run=result, model=model)


def prepare_phase(phase: Phase, workspace: str | Path, *, device: str = "auto") -> tuple[Path, ...]:
    """Make what a phase needs and several ranks cannot make together, and train nothing.

    Returns: its starting checkpoint, the teacher's, its encoded clips or recorded pairs, as far as there are any.
    Raises: InputError under ``torchrun``, and as :func:`run_phase`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("--prepare-only is for one process: start it without torchrun")
    return prepare(phase, Workspace(Path(workspace)), _place(device))


def _place(name: str) -> torch.device:
    """This process's device: under ``torchrun`` each local rank has its own accelerator."""
    device = resolve_device(name)
    if device.type == "cpu" or "LOCAL_RANK" not in os.environ:
        return device
    device = torch.device(device.type, int(os.environ["LOCAL_RANK"]))
    torch.accelerator.set_device_index(device.index)
    return device


def _export(phase: Phase, built: Built, space: Workspace, result: RunResult, parallel: Parallel) -> Path | None:
    """Write the model of a finished phase, on the first rank: the best checkpoint by probe, if one was asked for."""
    player = built.method.players[0]
    if any(isinstance(parameter, DTensor) for parameter in player.module.parameters()):
        logger.warning("split weights are exported by one process: run the finished phase once more without torchrun")
        return None
    if parallel.rank != 0:
        return None
    chosen = _chosen(space.phase(phase.name), phase, result)
    target = space.model(phase.name)
    load_trained(player.trainables, averaged_weights(chosen, player.name))
    with writing(target, f"what was trained is kept in {chosen}"):
        if isinstance(phase.training, LoraTraining) and built.student is not None:
            save_adapter(built.student, space.phase(phase.name) / ADAPTER, phase.training)
        export_model(phase, built, target)
    logger.info("exported %s from %s", target, chosen)
    return target


def _chosen(folder: Path, phase: Phase, result: RunResult) -> Path:
    checkpoints = CheckpointFolder(folder / "checkpoints", phase.run.keep)
    best = checkpoints.best()
    return result.checkpoint if best is None else checkpoints.path(best)


@torch.no_grad()
def load_trained(trainables: dict[str, nn.Parameter], values: dict[str, torch.Tensor]) -> None:
    """Put the tensors of a checkpoint into a model.

    Raises: InputError when one of them is missing: what was trained must have been saved.
    """
    missing = sorted(set(trainables) - set(values))
    if missing:
        raise InputError(f"the checkpoint lacks {len(missing)} trained tensor(s), such as {missing[0]}: train again")
    for name, parameter in trainables.items():
        parameter.copy_(like(values[name], parameter))


def export_model(phase: Phase, built: Built, target: Path) -> Path:
    """Write the whole checkpoint in the Diffusers layout: adapters fused, everything else from the start."""
    source, parts = built.info.path, {}
    if isinstance(phase.stage, VaeStage):
        if any(name.split(".")[0] in LATENT_PARTS for name in built.method.players[0].trainables):
            _measure(phase, built)  # a frozen encoder keeps its statistics: latents on the disk stay what they are
        parts["vae"] = built.vae
    if built.student is not None:
        parts["transformer"] = merge(built.student)
    if isinstance(phase.stage, PretrainStage) and isinstance(phase.stage.past, NoPast):
        init_memory_patches(built.student)  # now that there is a trained patch embedding to start them from
    with TemporaryDirectory() as scratch:
        if built.text_encoder is not None:
            built.text_encoder.save_pretrained(Path(scratch))
            parts["text_encoder"] = Path(scratch)
        return save(
            target,
            variant=phase.stage.variant,
            scheduler=scheduler_of(phase.stage.variant, getattr(phase.stage, "student", None)),
            transformer=parts.get("transformer", source / "transformer"),
            vae=parts.get("vae", source / "vae"),
            text_encoder=parts.get("text_encoder", source / "text_encoder"),
            tokenizer=source / "tokenizer",
            own=read_own_settings(source),
            overwrite=True,
        )


def _measure(phase: Phase, built: Built) -> None:
    """Statistics of the latents over some windows of the data."""
    count = min(phase.stage.measured, len(built.dataset))
    windows = (built.dataset[index].frames_FHWC[None] for index in range(count))
    built.vae.module.eval()
    set_latent_statistics(built.vae, windows)
