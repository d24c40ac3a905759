"""Teach the small model of the package something from a folder of videos, in minutes on a CPU: an adapter on Base.

helios data prepare VIDEOS --out runs/finetune/data --model small-base
helios train finetune.lora --workspace runs/finetune
"""

from dataclasses import replace

from helios.training.adapt import LoraTraining
from helios.training.methods.sparse import SparseFrames
from helios.training.optim import Cosine, OptimConfig
from helios.training.phase import Checkpoint, NoProbes, Phase, PreparedData
from helios.training.trainer import RunConfig
from recipes.toy import stage1_post

PHASES = ("lora",)


def lora() -> Phase:
    """A low-rank adapter for a new object, from some dozens of clips; exported as an adapter and merged."""
    base = stage1_post()
    return replace(
        base,
        name="lora",
        stage=replace(base.stage, sparse=SparseFrames(share=0.8, most=3)),
        start=Checkpoint(source="small-base"),
        data=PreparedData(folder="data"),
        training=LoraTraining(rank=32, patches=(), full=()),
        optim=OptimConfig(lr=1e-3, schedule=Cosine(warmup=20)),
        run=RunConfig(steps=400, batch_size=8, seed=60, save_every=100),
        probes=NoProbes(),
    )
