"""Fragmented MP4 with H.264: one self-contained fragment per chunk, for files and for live streams.

Letters: F frames, H W height and width in pixels.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from helios.errors import InputError
from helios.media.containers.base import VideoShape
from helios.media.decode import SCALING
from helios.media.part_file import PartFile, Piece
from helios.media.record import METADATA_KEY, dump_record

_MAX_SIDE = 16384
_BT709 = 1
_LIMITED_RANGE = 1
_BOX_HEADER = 8
# frag_custom: a fragment ends only where the muxer is closed. frag_discont: fragments carry their absolute time.
# use_editlist: makes frag_discont start from the time stamps given; no edit list results, as nothing is reordered.
_MOVFLAGS = "empty_moov+default_base_moof+frag_custom+frag_discont+skip_trailer"


@dataclass(frozen=True, kw_only=True)
class H264:
    """How x264 compresses.

    Args:
        crf: constant quality, 0 (lossless) to 51; 16 is visually lossless for generated video.
        preset: x264's effort; "veryfast" keeps up with real time on one core and costs about 30 % in size.
        threads: fixed, not one per core, because the bytes depend on it.
    """

    crf: int = 16
    preset: str = "veryfast"
    threads: int = 4

    def options(self) -> dict[str, str]:
        """No B-frames: nothing is shown before it is stored, so fragments join without an edit list."""
        return {
            "crf": str(self.crf),
            "preset": self.preset,
            "threads": str(self.threads),
            "bf": "0",
            "sc_threshold": "0",
            "flags": "+bitexact",
        }


class FragmentEncoder:
    """Chunks of frames to fragments of one continuous fragmented MP4.

    ``init_segment`` followed by the fragments in order is a file that players take, and what a browser's Media Source
    takes buffer by buffer. Each fragment starts with a keyframe and is coded alone, so a stream may stop after any.
    Nothing of a chunk is kept. The same frames give the same bytes.

    Sizes must be even for 4:2:0 colour: an odd side gets its last row or column twice.
    """

    def __init__(self, shape: VideoShape, metadata: Mapping[str, str], settings: H264 | None = None) -> None:
        """Raises: InputError for more than 16384 pixels a side, or when PyAV was built without x264."""
        shape.check_at_most(_MAX_SIDE, "H.264")
        if "libx264" not in av.codecs_available:
            raise InputError("this PyAV was built without x264: install the one from PyPI with `pip install av`")
        self.shape = shape
        self.height, self.width = shape.height + shape.height % 2, shape.width + shape.width % 2
        self._metadata = dict(metadata)
        self._settings = settings or H264()
        self._frames = 0
        self._fragments = 0
        self.init_segment = self._mux([])

    @property
    def codec(self) -> str:
        """The codec by its RFC 6381 name, as Media Source Extensions want it: for example ``avc1.640016``."""
        at = self.init_segment.index(b"avcC") + 5
        return f"avc1.{self.init_segment[at : at + 3].hex()}"

    def fragment(self, frames_FHWC: np.ndarray) -> bytes:
        """Code the next chunk; its times follow those of the chunk before.

        Args:
            frames_FHWC: uint8 [F, H, W, 3] of the size given at the start, F >= 1.
        """
        pad = ((0, 0), (0, self.height - self.shape.height), (0, self.width - self.shape.width), (0, 0))
        whole = self._mux(np.pad(frames_FHWC, pad, mode="edge") if any(map(any, pad)) else frames_FHWC)
        self._frames += len(frames_FHWC)
        self._fragments += 1
        return whole[_init_length(whole) :]

    def _mux(self, frames_FHWC: np.ndarray | list) -> bytes:
        """A whole MP4 of one fragment (or none); only its head is the same for every chunk."""
        buffer = BytesIO()
        options = {
            "movflags": _MOVFLAGS,
            "use_editlist": "1",
            "fragment_index": str(self._fragments + 1),
            "fflags": "+bitexact",
        }
        with av.open(buffer, "w", format="mp4", container_options=options) as container:
            container.metadata.update(self._metadata)
            stream = self._add_stream(container)
            container.start_encoding()
            for frame in self._converted(frames_FHWC):
                container.mux(stream.encode(frame))
            if len(frames_FHWC):
                container.mux(stream.encode(None))
        return buffer.getvalue()

    def _add_stream(self, container: av.container.OutputContainer) -> av.VideoStream:
        stream = container.add_stream("libx264", rate=self.shape.fps, options=self._settings.options())
        stream.width, stream.height, stream.pix_fmt = self.width, self.height, "yuv420p"
        context = stream.codec_context
        context.time_base = 1 / self.shape.fps
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        return stream

    def _converted(self, frames_FHWC: np.ndarray | list) -> Iterator[av.VideoFrame]:
        for index, frame_HWC in enumerate(frames_FHWC):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24").reformat(
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=SCALING,
            )
            frame.pts, frame.time_base = self._frames + index, 1 / self.shape.fps
            yield frame


def _init_length(data: bytes) -> int:
    """Bytes of ``ftyp`` and ``moov``, the boxes before the first fragment (ISO/IEC 14496-12)."""
    position = 0
    while position < len(data):
        size, name = struct.unpack_from(">I4s", data, position)
        if name == b"moof":
            break
        position += size
    return position


class Mp4Container:
    """A growing MP4 file with the record in its metadata.

    A fragment is first written under the name of a ``free`` box, which players skip, whole or cut off; giving it its
    own name is the commit.
    """

    def __init__(self, shape: VideoShape, record: Mapping[str, Any]) -> None:
        self._encoder = FragmentEncoder(shape, _metadata(record))

    def piece(self, frames_FHWC: np.ndarray, size: int) -> Piece:
        fragment = self._encoder.fragment(frames_FHWC)
        head = b"" if size else self._encoder.init_segment
        data = head + struct.pack(">I4s", len(fragment), b"free") + fragment[_BOX_HEADER:]
        return Piece(data=data, offset=size, commit=(size + len(head), fragment[:_BOX_HEADER]))

    def seal(self, part: PartFile, record: Mapping[str, Any]) -> None:
        """Write the metadata anew when the record has changed since the start; fragments do not mind where they lie."""
        latest = FragmentEncoder(self._encoder.shape, _metadata(record)).init_segment
        if latest != self._encoder.init_segment:
            part.replace_head(len(self._encoder.init_segment), latest)


def _metadata(record: Mapping[str, Any]) -> dict[str, str]:
    return {METADATA_KEY: dump_record(record)}
