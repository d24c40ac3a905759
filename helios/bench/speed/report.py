"""A speed result as a Markdown table and as a picture of where one run's time goes."""

from pathlib import Path

from helios.extras import load_extra


def markdown(result: dict) -> str:
    """A table of a result of :func:`helios.bench.speed.measure_speed`, with the machine and the command under it."""
    settings, machine = result["settings"], result["machine"]
    names = [name for name in ("helios", "diffusers", "diffusers compiled") if name in result]
    lines = ["| | fps (min-max) | first frame | chunk p50 / p95 / p99 | processor time | times faster |"]
    lines.append("|---|---|---|---|---|---|")
    lines += [_row(name, result) for name in names]
    steps = "+".join(map(str, settings["steps"])) + (", first chunk doubled" if settings["amplify_first_chunk"] else "")
    size = f"{settings['height']}x{settings['width']}, {settings['num_frames']} frames"
    versions = machine["versions"]
    hardware = f"{machine['processor']}, {machine['threads']} thread(s)"
    software = f"torch {versions['torch']}, diffusers {versions['diffusers']}"
    work = f"A chunk is {result['work']['chunk_flops'] / 1e9:.1f} GFLOP"
    reached = f"{100 * result['work']['floor_reached']:.0f} % of the matrix rate is reached"
    lines += [
        "",
        f"{settings['checkpoint']} ({settings['variant']}), {size}, steps {steps}, {machine['dtype']}.",
        f"{hardware}, {software}; matrix products {machine['matrix_flops'] / 1e9:.0f} GFLOP/s.",
        f"{work}; {reached}. Peak memory {result['memory']['peak_reserved'] / 2**20:.0f} MiB.",
    ]
    for name, difference in result["differences"].items():
        lines.append(f"Largest difference of the frames (in [0, 1]) to {name}: {difference:.1e}.")
    return "\n".join([*lines, f"`{result['command']}`"])


def _row(name: str, result: dict) -> str:
    figures, ratio = result[name], result["ratios"].get(name)
    chunk = "-"
    if "chunk_p50_s" in figures:
        chunk = " / ".join(f"{figures[f'chunk_p{p}_s']:.3f}" for p in (50, 95, 99)) + " s"
    faster = "1" if ratio is None else f"we are {ratio['wall']:.2f} (wall), {ratio['cpu']:.2f} (processor)"
    rate = f"{figures['fps']:.1f} ({figures['fps_min']:.1f}-{figures['fps_max']:.1f})"
    return f"| {name} | {rate} | {figures['time_to_first_frame_s']:.2f} s | {chunk} | {figures['cpu_s']:.2f} s | {faster} |"


def plot_chunk(result: dict, path: Path) -> Path:
    """Draw where a run's time goes, phase after phase, as a waterfall."""
    load_extra("matplotlib", extra="bench").use("Agg")
    import matplotlib.pyplot as plt

    phases = result["helios"]["phases_s"]
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(phases) + 1.2))
    begin = 0.0
    for row, seconds in enumerate(phases.values()):
        axes.barh(row, seconds, left=begin)
        axes.text(begin + seconds, row, f" {1000 * seconds:.0f} ms", va="center")
        begin += seconds
    axes.set_yticks(range(len(phases)), list(phases))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * begin)
    axes.set_xlabel(f"seconds of one run of {result['settings']['chunks']} chunk(s)")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
