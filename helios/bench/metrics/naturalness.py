"""Official naturalness: a vision-language judge looks at 16 sparse frames and says how real the video seems.

H W pixels.
"""

from dataclasses import dataclass

from helios.bench.frames.samplers import Window, end_windows, stepped
from helios.bench.frames.source import Frame, Pixels
from helios.bench.judge import Judge, JudgeConfig, naturalness, parse_rating
from helios.bench.metrics.base import Clip, Fields, Tier, Unavailable, require_frames
from helios.bench.vision import opencv

FRAMES = 16
LONG_SIDE = 512


def judge_picture(rgb_HW3: Pixels) -> bytes:
    """A frame as the judge gets it: long side 512, the other truncated, area interpolation, default JPEG quality."""
    cv2 = opencv()
    height, width = rgb_HW3.shape[:2]
    scale = LONG_SIDE / max(height, width)
    size = (LONG_SIDE, max(1, int(height * scale))) if width >= height else (max(1, int(width * scale)), LONG_SIDE)
    small = cv2.resize(rgb_HW3, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1].tobytes()


@dataclass(frozen=True, kw_only=True)
class Naturalness:
    """Fields: ``naturalness_score``, ``raw_score``; with drift the same with ``start_`` and ``end_``, ``drift_naturalness_score``.

    With the official instruction the announced number of frames is always 16, also where a short window sends fewer, as
    in the published scripts; our own wording names the true number.
    """

    judge: JudgeConfig | None = None
    with_drift: bool = True
    name: str = "naturalness"
    tier: Tier = "official"

    @property
    def version(self) -> str:
        return f"1{'+drift' * self.with_drift}:{self.judge.identity if self.judge else ''}"

    def check(self) -> None:
        if self.judge is None:
            raise Unavailable("needs a judge: name an OpenAI-compatible endpoint")
        Judge(self.judge).check()

    def begin(self, clip: Clip) -> "_Pictures":
        if self.judge is None:
            raise Unavailable("needs a judge: name an OpenAI-compatible endpoint")
        require_frames(clip, 1, self.name)
        windows = {"": Window(0, clip.info.num_frames)}
        if self.with_drift:
            windows["start_"], windows["end_"] = end_windows(clip.info.num_frames, at_least=1)
        return _Pictures(self.judge, {name: stepped(window, FRAMES) for name, window in windows.items()})


class _Pictures:
    def __init__(self, config: JudgeConfig, chosen: dict[str, list[int]]):
        self._judge = Judge(config)
        self._chosen = chosen
        self._needed = {index for indices in chosen.values() for index in indices}
        self._pictures: dict[int, bytes] = {}

    def add(self, frame: Frame) -> None:
        if frame.index in self._needed:
            self._pictures[frame.index] = judge_picture(frame.native)

    def finish(self) -> Fields:
        fields: Fields = {}
        for name, indices in self._chosen.items():
            announced = FRAMES if self._judge.config.official_instruction else len(indices)
            answer = self._judge.rate([self._pictures[index] for index in indices], announced=announced)
            fields[f"{name}naturalness_score"] = naturalness(parse_rating(answer))
            fields[f"{name}raw_score"] = answer.strip()
        if "start_" in self._chosen:
            drift = fields["start_naturalness_score"] - fields["end_naturalness_score"]
            fields["drift_naturalness_score"] = abs(drift)
        return fields
