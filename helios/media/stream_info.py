"""What a video file holds, found without decoding it."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from helios.errors import InputError
from helios.media.decode import open_video, square_size, unreadable

_CLOSE = 0.001


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """Facts of a video file.

    Attributes:
        fps: frames per second; of a variable rate the mean.
        num_frames: frames that are shown.
        height, width: in square pixels, before any rotation that the file asks for.
        duration_s: from the first frame to the end of the last, in seconds.
        codec: name of the codec, for example ``"h264"``.
        keyframes: indices of the frames, in presentation order, at which a player can start.
    """

    fps: float
    num_frames: int
    height: int
    width: int
    duration_s: float
    codec: str
    keyframes: tuple[int, ...]


def probe(path: str | Path) -> VideoInfo:
    """Count the frames of a file and read its rate and size; reads all packets, decodes none.

    Raises: InputError when the file cannot be read as a video.
    """
    with open_video(path) as (container, stream):
        nominal = Fraction(stream.average_rate or stream.guessed_rate or 25)
        shown = _shown_packets(path, container, stream, nominal)
        height, width = square_size(stream.height, stream.width, stream.sample_aspect_ratio)
        times = [time for time, _ in shown]
        fps = _measured_rate(times, nominal)
        return VideoInfo(
            fps=float(fps),
            num_frames=len(shown),
            height=height,
            width=width,
            duration_s=float(times[-1] - times[0] + 1 / fps),
            codec=stream.codec_context.name,
            keyframes=tuple(index for index, (_, keyframe) in enumerate(shown) if keyframe),
        )


def _shown_packets(
    path: str | Path, container: av.container.InputContainer, stream: av.VideoStream, nominal: Fraction
) -> list[tuple[Fraction, bool]]:
    """(presentation time, keyframe) of every packet that becomes a picture, in presentation order."""
    shown: list[tuple[Fraction, bool]] = []
    try:
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                stamp = packet.dts if packet.pts is None else packet.pts
                time = len(shown) / nominal if stamp is None else stamp * Fraction(packet.time_base)
                shown.append((time, packet.is_keyframe))
    except (av.FFmpegError, OSError) as error:
        raise unreadable(path, error) from error
    if not shown:
        raise InputError(f"{path} holds no frame that can be shown: convert it to MP4 or copy it again")
    return sorted(shown)


def _measured_rate(times: list[Fraction], nominal: Fraction) -> Fraction:
    """Frames per second by the time stamps; the file's own figure where the two agree, as stamps are rounded."""
    span = times[-1] - times[0]
    if span <= 0:
        return nominal
    measured = (len(times) - 1) / span
    return nominal if abs(measured / nominal - 1) < _CLOSE else measured
