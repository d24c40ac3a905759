"""Pictures and videos in and out of files: reading, fitting, writing chunk by chunk, and the record beside a video.

The names below load their module, and with it PyAV or Pillow, when they are first used.
"""

from helios.lazy_names import lazy_names

_PUBLIC = {
    "AllFrames": "helios.media.video",
    "ClipEnds": "helios.media.video",
    "Crop": "helios.media.fitting",
    "Fit": "helios.media.fitting",
    "FirstFrames": "helios.media.video",
    "LastFrames": "helios.media.video",
    "Pad": "helios.media.fitting",
    "VideoClip": "helios.media.video",
    "VideoInfo": "helios.media.stream_info",
    "VideoWriter": "helios.media.writer",
    "check_output": "helios.media.output",
    "contact_sheet": "helios.media.sheet",
    "fit": "helios.media.fitting",
    "open_writer": "helios.media.writer",
    "probe": "helios.media.stream_info",
    "read_image": "helios.media.image",
    "read_record": "helios.media.record",
    "read_video": "helios.media.video",
    "read_video_ends": "helios.media.video",
    "sidecar_path": "helios.media.record",
    "stream_frames": "helios.media.video",
}
__all__ = list(_PUBLIC)
__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
