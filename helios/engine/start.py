"""What a video starts from: nothing but text, an image, or another video. Read and fitted before any weights load.

B videos, C channels, F pixel frames, H W pixel height and width.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from helios.conditioning.history import AnchorPolicy
from helios.conditioning.picture import (
    Motion,
    chunks_in_window,
    history_from_image,
    history_from_video,
    last_chunks,
    to_signed,
)
from helios.errors import InputError
from helios.models.vae import HeliosVAE
from helios.noise import NoiseSource
from helios.sampling.plan import SamplingPlan
from helios.sampling.rollout import RolloutState, start_state
from helios.shapes import Geometry


class Start(Protocol):
    """Makes the state before the first chunk."""

    def state(
        self, vae: HeliosVAE, plan: SamplingPlan, noise: NoiseSource, motion: Motion, batch: int, device: torch.device
    ) -> RolloutState:
        """The past that the first chunk is conditioned on.

        Args:
            vae: encodes the given picture or video; unused for text alone.
            plan: sizes, and where the anchor comes from.
            noise: of the motion that is put into the encoded past.
            motion: how much of it.
            batch: videos that start alike.
            device: where the state lives.
        Returns: window [B, C, T, H, W] and anchor [B, C, 1, H, W] as latents; chunk 0.
        """
        ...


@dataclass(frozen=True)
class FromText:
    """Text to video: an empty past."""

    def state(self, vae, plan, noise, motion, batch, device) -> RolloutState:
        return start_state(plan, batch, device)


@dataclass(frozen=True)
class FromImage:
    """Image to video.

    Args:
        image_BCHW: RGB in [-1, 1] at the size of the frames; one image, which is repeated for a batch, or one per video.
    """

    image_BCHW: Tensor

    def state(self, vae, plan, noise, motion, batch, device) -> RolloutState:
        image_BCHW = _for_batch(self.image_BCHW, batch).to(device)
        history = history_from_image(vae, image_BCHW, noise, geometry=plan.geometry, anchor=plan.anchor, motion=motion)
        return RolloutState(history=history)


@dataclass(frozen=True)
class FromVideo:
    """Video to video.

    Args:
        first_BCHW: the video's first frame, RGB in [-1, 1], from which the anchor is made.
        chunks_BCFHW: its last whole chunks, oldest first, as many as the window reaches back.
        skipped: how many whole chunks come before those; their frames are not read into the past.
    """

    first_BCHW: Tensor
    chunks_BCFHW: Sequence[Tensor]
    skipped: int

    def state(self, vae, plan, noise, motion, batch, device) -> RolloutState:
        history = history_from_video(
            vae,
            _for_batch(self.first_BCHW, batch).to(device),
            [_for_batch(chunk, batch).to(device) for chunk in self.chunks_BCFHW],
            noise,
            geometry=plan.geometry,
            anchor=plan.anchor,
            motion=motion,
            skipped=self.skipped,
        )
        return RolloutState(history=history)


def _for_batch(pixels: Tensor, batch: int) -> Tensor:
    return pixels.expand(batch, *pixels.shape[1:]) if len(pixels) == 1 else pixels


def read_start(
    *,
    image: Any | None,
    video: Any | None,
    height: int,
    width: int,
    fps: float,
    geometry: Geometry,
    anchor: AnchorPolicy,
    fit: str = "crop",
) -> Start:
    """Read and fit an image (path, PIL image or [H, W, 3] uint8) or a video (path or [F, H, W, 3] uint8) at ``fps``.

    Args:
        image, video: at most one; text alone where both are None.
        height, width: of the frames, in pixels.
        fps: frames per second at which a video file is read.
        geometry: of the checkpoint: how long a chunk is.
        anchor: decides how far back the window reaches.
        fit: ``crop`` or ``pad``. The aspect ratio is always kept.
    Raises: InputError for both at once, media that cannot be read, or a video shorter than one chunk.
    """
    from helios import media

    if image is not None and video is not None:
        raise InputError("image and video were both given: a run starts from one of them, leave the other out")
    how = {"crop": media.Crop(), "pad": media.Pad()}[fit]
    if image is not None:
        frame_HWC = media.read_image(image)
        fitted_FHWC = media.fit(frame_HWC[None], height, width, how)
        return FromImage(_signed(fitted_FHWC)[:, :, 0])
    if video is not None:
        return _read_video(video, height, width, fps, geometry, chunks_in_window(geometry, anchor), how)
    return FromText()


def _read_video(video: Any, height: int, width: int, fps: float, geometry: Geometry, keep: int, fit: Any) -> FromVideo:
    from helios import media

    if isinstance(video, str | Path):
        fitted = {"size": (height, width), "fit": fit}
        clip = media.read_video_ends(video, fps=fps, last=keep * geometry.chunk_frames, **fitted)
        first_HWC, tail_FHWC, total = clip.first_HWC, clip.last_FHWC, clip.total_frames
    else:
        frames_FHWC = np.asarray(video)
        if frames_FHWC.ndim != 4 or frames_FHWC.shape[-1] != 3 or frames_FHWC.dtype != np.uint8 or not len(frames_FHWC):
            shape = f"{frames_FHWC.dtype} of shape {frames_FHWC.shape}"
            raise InputError(f"the video is {shape}: pass a path, or uint8 frames [F, H, W, 3]")
        first_HWC, tail_FHWC, total = frames_FHWC[0], frames_FHWC[-keep * geometry.chunk_frames :], len(frames_FHWC)
    if total < geometry.chunk_frames:
        raise InputError(
            f"the video has {total} frame(s) at {fps:g} fps: to go on from it Helios needs {geometry.chunk_frames} or more"
        )
    chunks = last_chunks(_signed(media.fit(tail_FHWC, height, width, fit)), geometry)
    first_BCHW = _signed(media.fit(first_HWC[None], height, width, fit))[:, :, 0]
    return FromVideo(first_BCHW, chunks, total // geometry.chunk_frames - len(chunks))


def _signed(frames_FHWC: np.ndarray) -> Tensor:
    return to_signed(torch.from_numpy(np.array(frames_FHWC)))


def describe_inputs(*, image: Any | None, video: Any | None) -> dict[str, dict[str, str | None]]:
    """Path and SHA-256 of what a run begins from, so that a repeat can find it and tell whether it changed.

    An image or video given as an array or a picture object has no path.
    """
    given = {kind: value for kind, value in (("image", image), ("video", video)) if value is not None}
    return {kind: _described(value) for kind, value in given.items()}


def _described(value: Any) -> dict[str, str | None]:
    if not isinstance(value, str | Path):
        return {"path": None, "sha256": hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()}
    path = Path(value).resolve()
    return {"path": str(path), "sha256": file_sha256(path)}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
