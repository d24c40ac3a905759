"""A speed result as Markdown tables and as a picture of where the time of one chunk goes.

The *floor* is the products that an accelerator would do (:mod:`helios.bench.speed.work`) at this machine's matrix rate. On
the CPU in float32 the VAE's upsampling layers do 4/9 of theirs, so decoding's true floor is 5 % lower than what is shown.
"""

from pathlib import Path

from helios.engine.approximation import Fp8Linears, told
from helios.extras import load_extra

_CONTENDERS = ("helios", "diffusers", "diffusers compiled")
_BEYOND_ROUNDING = 0.01  # of frames in [0, 1]; the small models differ by 4e-4 at most


def markdown(result: dict) -> str:
    """Tables of a result of :func:`helios.bench.speed.measure_speed`, with the machine and the command under them."""
    return "\n".join([*_speed(result), "", *_chunk(result), "", *_operations(result), "", *_provenance(result)])


def _speed(result: dict) -> list[str]:
    lines = ["| | fps (min-max) | first frame | chunk p50 / p95 / p99 | processor time | we are faster by |"]
    lines.append("|---|---|---|---|---|---|")
    return lines + [_row(name, result) for name in _CONTENDERS if name in result]


def _row(name: str, result: dict) -> str:
    figures, ratio = result[name], result["ratios"].get(name)
    chunk = "-"
    if "chunk_p50_s" in figures:
        chunk = " / ".join(f"{figures[f'chunk_p{p}_s']:.3f}" for p in (50, 95, 99)) + " s"
    faster = "-"
    if ratio is not None:
        parts = f"denoise {ratio['denoise']:.2f}, decode {ratio['decode']:.2f}"
        faster = f"{ratio['wall']:.2f} (wall), {ratio['cpu']:.2f} (processor); {parts}"
    rate = f"{figures['fps']:.1f} ({figures['fps_min']:.1f}-{figures['fps_max']:.1f})"
    return f"| {name} | {rate} | {figures['time_to_first_frame_s']:.2f} s | {chunk} | {figures['cpu_s']:.2f} s | {faster} |"


def _chunk(result: dict) -> list[str]:
    """One steady chunk beside its floor."""
    roofline, ours = result["roofline"], result["helios"]
    lines = ["| one chunk | ms | work | floor, ms | reached |", "|---|--:|--:|--:|--:|"]
    for row in roofline["phases"]:
        lines.append(_chunk_row(row["phase"], row["seconds"], row["flops"], row["floor_s"]))
    whole = (roofline["chunk_s"], roofline["chunk_flops"], roofline["floor_s"])
    rest = whole[0] - sum(row["seconds"] for row in roofline["phases"])
    lines.append(_chunk_row("rest", max(0.0, rest), 0.0, 0.0))
    lines.append(_chunk_row("**whole chunk**", *whole))
    lines.append(_chunk_row("text encoder, once", ours["text_s"], 0.0, 0.0))
    lines.append(_chunk_row("writing MP4, beside", ours["file_s"], 0.0, 0.0))
    return lines


def _chunk_row(name: str, seconds: float, flops: float, floor: float) -> str:
    if not flops:
        return f"| {name} | {1e3 * seconds:.1f} | - | - | - |"
    return f"| {name} | {1e3 * seconds:.1f} | {_flops(flops)} | {1e3 * floor:.1f} | {100 * floor / seconds:.0f} % |"


def _flops(count: float) -> str:
    return f"{count / 1e12:.1f} TFLOP" if count >= 1e12 else f"{count / 1e9:.2f} GFLOP"


def _operations(result: dict) -> list[str]:
    """Where a chunk's time goes by kind of operation."""
    total = sum(result["operations_s"].values())
    lines = ["| by operation (profiled) | ms | share |", "|---|--:|--:|"]
    for kind, seconds in result["operations_s"].items():
        if seconds >= 0.005 * total:
            lines.append(f"| {kind} | {1e3 * seconds:.1f} | {100 * seconds / total:.0f} % |")
    return lines


def _provenance(result: dict) -> list[str]:
    settings, machine, roofline = result["settings"], result["machine"], result["roofline"]
    steps = "+".join(map(str, settings["steps"])) + (", first chunk doubled" if settings["amplify_first_chunk"] else "")
    size = f"{settings['height']}x{settings['width']}, {settings['num_frames']} frames"
    precision = f"{settings['dtype']}, VAE {settings['vae_dtype']}"
    versions, memory = machine["versions"], result["memory"]
    grown = memory["growth_after_third_chunk"]
    growth = "" if grown is None else f", {grown / 2**20:+.1f} MiB after the third chunk"
    model = f"{settings['checkpoint']} ({settings['variant']}), {size}, steps {steps}, {precision}"
    hardware = f"{machine['processor']}, {machine['threads']} thread(s)"
    software = f"torch {versions['torch']}, diffusers {versions['diffusers']}"
    vae_rate = machine.get("vae_matrix_flops")  # the first results lack it, and the two below
    vae = "" if vae_rate is None else f" ({_flops(vae_rate)}/s in the VAE)"
    rates = f"matrix products {_flops(machine['matrix_flops'])}/s{vae}, copies {machine['copy_bytes'] / 1e9:.0f} GB/s"
    busy, psnr = machine.get("busy_with_other_work"), result.get("vae_psnr_db")
    stolen = machine.get("taken_by_other_guests")
    others = "" if busy is None else f"; other work took {100 * busy:.0f} % of the host"
    others += "" if stolen is None else f", other guests {100 * stolen:.0f} %"
    reached = f"{100 * roofline['floor_reached']:.0f} % of the matrix rate is reached"
    lines = [
        f"{model}; {result['helios']['real_time_factor']:.2f} times real time at 24 fps.",
        f"{hardware}, {software}; {rates}{others}.",
        f"{reached}. Peak memory {memory['peak_reserved'] / 2**20:.0f} MiB{growth}.",
    ]
    if psnr is not None:
        lines.append(f"The VAE in {settings['vae_dtype']} is {psnr:.1f} dB from its float32 decode of the first chunk.")
    if (made := result.get("approximations")) is not None:
        lines.append(f"Approximate by {told(**made)}.")
        if Fp8Linears.name in made["names"]:
            lines.append(f"The floor counts 8-bit products at the rate of {settings['dtype']} ones.")
    for name, difference in result["differences"].items():
        lines.append(
            f"Largest difference of the frames (in [0, 1]) to {name}: {difference:.1e}.{_doubt(result, difference)}"
        )
    return ["  \n".join([*lines, f"`{result['command']}`"])]


def _doubt(result: dict, difference: float) -> str:
    """What to think of a ratio between programs that made different frames where nothing but rounding may differ."""
    settings = result["settings"]
    exact = settings["dtype"] == settings["vae_dtype"] == "float32" and result.get("approximations") is None
    if not exact or difference <= _BEYOND_ROUNDING:
        return ""
    return " **These are other frames: the ratio compares two different things.**"


def plot_chunk(result: dict, path: Path) -> Path:
    """Draw where a chunk's time goes, phase after phase, as a waterfall; the dark part is the floor of its arithmetic."""
    load_extra("matplotlib", extra="bench").use("Agg")
    import matplotlib.pyplot as plt

    rows = result["roofline"]["phases"]
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(rows) + 1.4))
    begin = 0.0
    for index, row in enumerate(rows):
        seconds = row["seconds"]
        axes.barh(index, seconds, left=begin, color="#9ecae1")
        axes.barh(index, min(seconds, row["floor_s"]), left=begin, color="#08519c")
        axes.text(begin + seconds, index, f" {1000 * seconds:.0f} ms", va="center")
        begin += seconds
    axes.set_yticks(range(len(rows)), [row["phase"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * begin)
    axes.set_xlabel("seconds of one chunk; dark: its arithmetic at the machine's matrix rate")
    settings = result["settings"]
    axes.set_title(
        f"{settings['checkpoint']}, {settings['height']}x{settings['width']}, {settings['dtype']}", fontsize=10
    )
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
