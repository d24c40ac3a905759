"""Speed and memory of a model on this machine, against the machine's own limit and against Diffusers."""

from helios.bench.speed.report import markdown, plot_chunk
from helios.bench.speed.run import SpeedConfig, measure_speed

__all__ = ["SpeedConfig", "markdown", "measure_speed", "plot_chunk"]
