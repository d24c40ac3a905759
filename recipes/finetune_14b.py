"""Teach the released Base something from a folder of videos: an adapter, as the published stage 1 trains it.

helios download helios-base
helios data prepare VIDEOS --out runs/mine/data --model helios-base
helios train finetune_14b.lora --workspace runs/mine
"""

from dataclasses import replace

from helios.training.adapt import LoraTraining
from helios.training.optim import Constant, OptimConfig
from helios.training.phase import Checkpoint, Phase
from helios.training.trainer import RunConfig
from recipes.helios_14b import stage1_post

PHASES = ("lora",)


def lora() -> Phase:
    """A low-rank adapter of Helios 14B from some hundreds of clips. Not run here: there was no such hardware."""
    base = stage1_post()
    return replace(
        base,
        name="lora",
        start=Checkpoint(source="helios-base"),
        training=LoraTraining(rank=128, patches=(), full=()),
        optim=OptimConfig(lr=5e-5, schedule=Constant(warmup=20)),
        run=RunConfig(steps=1000, batch_size=8, accumulate=8, seed=61, save_every=100),
    )
