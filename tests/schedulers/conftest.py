"""The oracle: Diffusers' two Helios schedulers, driven the way its pipelines drive them."""

import numpy as np
import pytest
import torch
from diffusers import HeliosDMDScheduler, HeliosScheduler
from diffusers.pipelines.helios.pipeline_helios_pyramid import calculate_shift

from helios.schedulers import DynamicShift, NoShift, PyramidStages, SchedulerConfig, SingleStage


class Published:
    """A published scheduler for one of our configs."""

    def __init__(self, config: SchedulerConfig):
        self.distilled = config.solver == "distilled"
        settings = {key: value for key, value in config.to_dict().items() if not key.startswith("_")}
        if self.distilled:
            settings.pop("scheduler_type")
        self.scheduler = (HeliosDMDScheduler if self.distilled else HeliosScheduler)(**settings)

    def set_timesteps(self, level: int, steps: int, tokens: int, amplified: bool = False):
        """Build the tables as the pipelines do; returns (sigmas, timesteps) as float64."""
        single = self.scheduler.config.stages == 1 and not self.distilled
        self.scheduler.set_timesteps(
            steps,
            level,
            sigmas=np.linspace(0.999, 0.0, steps + 1)[:-1] if single else None,
            mu=calculate_shift(tokens),
            is_amplify_first_chunk=amplified,
        )
        return self.scheduler.sigmas.double(), self.scheduler.timesteps.double()

    def walk(self, velocity, x: torch.Tensor) -> list[torch.Tensor]:
        """All points that the published steps visit from ``x`` under ``velocity(index, x)``."""
        table = {"dmd_sigmas": self.scheduler.sigmas, "dmd_timesteps": self.scheduler.timesteps}
        start, points = x, []
        for index, timestep in enumerate(self.scheduler.timesteps):
            extra = table | {"cur_sampling_step": index, "all_timesteps": self.scheduler.timesteps}
            extra = extra | {"dmd_noisy_tensor": start} if self.distilled else {}
            x = self.scheduler.step(velocity(index, x), timestep, x, return_dict=False, **extra)[0]
            points.append(x)
        return points


@pytest.fixture
def published():
    """``published(config)`` wraps the Diffusers scheduler that ``config.to_dict()`` describes."""
    return Published


@pytest.fixture(params=["none", "linear", "exponential"])
def shift(request):
    """No shift and both dynamic ones."""
    return NoShift() if request.param == "none" else DynamicShift(kind=request.param)


@pytest.fixture(params=["single", "thirds", "uneven"])
def stages(request):
    """One resolution, the published pyramid and another one."""
    uneven = PyramidStages(stage_range=(0.0, 0.2, 0.55, 0.8, 1.0), gamma=0.25)
    return {"single": SingleStage(), "thirds": PyramidStages(), "uneven": uneven}[request.param]


@pytest.fixture
def released():
    """The three released schedulers by name of the checkpoint."""
    exponential, linear = DynamicShift(kind="exponential"), DynamicShift(kind="linear")
    return {
        "base": SchedulerConfig(solver="unipc", stages=SingleStage(), shift=exponential),
        "mid": SchedulerConfig(solver="unipc", stages=PyramidStages(), shift=exponential),
        "distilled": SchedulerConfig(solver="distilled", stages=PyramidStages(), shift=linear),
    }
