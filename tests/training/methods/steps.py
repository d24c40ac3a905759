"""Common checks of methods: they train, they move what they should, they are resumable."""

import torch

from helios.training.clips import InMemory
from helios.training.record import read_curves
from helios.training.trainer import RunConfig, Trainer
from tests.training.clips import clips


def run(method, folder, *, steps=4, data=None, **changes):
    """Train a few steps and return the curves."""
    settings = {"steps": steps, "batch_size": 2, "save_every": steps, "log_every": 1, "plots": False, **changes}
    trainer = Trainer(method, data or clips(4), RunConfig(**settings), folder)
    trainer.run()
    return read_curves(folder)


def snapshot(module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def moved(before, module) -> set[str]:
    return {name for name, value in module.named_parameters() if not torch.equal(value, before[name])}


def one_batch(count: int = 4, **kwargs) -> InMemory:
    """The same few clips for ever: every method must be able to learn them by heart."""
    return clips(count, **kwargs)
