"""A finished video and a finished chunk of one. B videos, F frames, H W pixel height and width."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from helios.device import DeviceMemory


@dataclass(frozen=True, kw_only=True)
class ChunkTimings:
    """Seconds spent on one chunk, by phase.

    Attributes:
        condition: encoding text that changed, the history, and drawing noise.
        levels: denoising, from the coarsest level to the full resolution.
        decode: the VAE.
        copy: conversion of the pixels and their way to the host.
        total: from the beginning of the chunk until it was handed out.
    """

    condition: float
    levels: tuple[float, ...]
    decode: float
    copy: float
    total: float


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One finished piece of a video, handed out as soon as it is decoded.

    Attributes:
        index: number of the chunk, from 0.
        first_frame: number of its first frame in the video.
        frames_BFHWC: [B, F, H, W, 3], one entry per video of the session; uint8, or float32 in [0, 1] when the session
            was asked for floats. The last chunk is cut to the number of frames that was asked for.
        timings: seconds by phase.
        memory: of the device, after this chunk.
        prompts: the prompt that governs each video in it (the one faded to, in a blend).
    """

    index: int
    first_frame: int
    frames_BFHWC: np.ndarray
    timings: ChunkTimings
    memory: DeviceMemory
    prompts: tuple[str, ...]

    @property
    def frames(self) -> np.ndarray:
        """[F, H, W, 3] of the session's only (or first) video."""
        return self.frames_BFHWC[0]


@dataclass(frozen=True, kw_only=True)
class Video:
    """Frames with the record of how they were made.

    Attributes:
        frames_FHWC: [F, H, W, 3] uint8, or float32 in [0, 1].
        fps: frames per second for playback.
        record: seed, settings, prompt timeline, checkpoint identity and version; enough to repeat the run.
    """

    frames_FHWC: np.ndarray
    fps: float
    record: Mapping = field(default_factory=dict)

    @property
    def frames(self) -> np.ndarray:
        """[F, H, W, 3]; the short name for interactive use."""
        return self.frames_FHWC

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write to .mp4, .gif, .webp, .npy or a folder of PNGs, by the name's ending; returns the path.

        A .npy file holds floats if the video does; the other formats hold 8 bits.

        Raises: InputError when the file exists and ``overwrite`` is not set, or the ending is unknown.
        """
        from helios.media import open_writer

        count, height, width, _ = self.frames_FHWC.shape
        sizes = {"fps": self.fps, "height": height, "width": width, "num_frames": count}
        as_float = self.frames_FHWC.dtype == np.float32 and Path(path).suffix == ".npy"
        writer = open_writer(path, **sizes, record=dict(self.record), overwrite=overwrite, as_float=as_float)
        with writer:
            writer.write(self.frames_FHWC)
        return writer.path
