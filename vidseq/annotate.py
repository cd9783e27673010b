"""A copy of a clip with its labels burnt in, for people who would rather look. Knows nothing of models.

the action        written in the corner
the label of the moment, as long as it lasts
a ribbon below    all segments over the whole clip, with a mark where it is being shown
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from vidseq.config import Limits, Picture
from vidseq.decoder import Pixels
from vidseq.drawing import Annotated, Ribbon, refuse_place
from vidseq.sandbox.box import Sandbox
from vidseq.schemas import Prediction, Segment
from vidseq.timeline import in_words
from vidseq.video import Reader, Verdict

_USUAL_RATE, _LEAST_RATE, _MOST_RATE = 25.0, 1.0, 120.0  # pictures a second


def annotate(
    clip: Path,
    prediction: Prediction,
    out: Path,
    *,
    limits: Limits = Limits(),
    sandbox: Sandbox | None = None,
    shown: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Write the pictures of `clip`, with what `prediction` says of it, to `out` (.mp4 or .mkv, MPEG-4, without sound).

    Pictures come at a constant rate, the mean of the clip's, each for as long as it was shown.

    Args:
        shown: is told how far it is, in seconds of the clip.

    Raises:
        OptionError: another suffix, a file that cannot be written, or the clip itself.
        VideoError, SourceNotFound, SandboxError: as a Reader.
    """
    refuse_place(out, source=clip)
    ribbon, last_seconds = _ribbon(prediction), _last_seconds(prediction)
    said = in_words(prediction.actions, several=prediction.model.several) if prediction.top else ""
    rate = _rate(prediction)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        fresh = Path(scratch) / out.name
        with Annotated(fresh, frames_per_second=rate) as annotated, _opened(clip, limits, sandbox) as reader:
            for pixels_HWC, seconds in _steady(reader.pictures(lambda _: Verdict.TAKE), rate):
                lines = [*filter(None, [said]), *_labels_at(prediction.segments, seconds)]
                annotated.draw(pixels_HWC, lines, ribbon, at=seconds / last_seconds)
                shown(seconds)
        fresh.replace(out)


def _opened(clip: Path, limits: Limits, sandbox: Sandbox | None) -> Reader:
    return Reader(clip, picture=Picture(), limits=limits, sandbox=sandbox)


def _rate(prediction: Prediction) -> float:
    video = prediction.video
    if not video.duration_seconds:
        return _USUAL_RATE
    num_frames = video.frames_declared or video.frames_decoded
    return min(_MOST_RATE, max(_LEAST_RATE, num_frames / video.duration_seconds))


def _last_seconds(prediction: Prediction) -> float:
    ends = [segment.end_seconds for segment in prediction.segments]
    return max(prediction.video.duration_seconds or 0.0, prediction.sampled.end_seconds, 1e-3, *ends)


def _ribbon(prediction: Prediction) -> Ribbon:
    """One colour a label, in the order in which they come."""
    numbers: dict[str, int] = {}
    last_seconds = _last_seconds(prediction)
    return [
        (
            segment.start_seconds / last_seconds,
            segment.end_seconds / last_seconds,
            numbers.setdefault(segment.label, len(numbers)),
        )
        for segment in prediction.segments
    ]


def _labels_at(segments: tuple[Segment, ...], seconds: float) -> list[str]:
    return [
        f"{segment.label} {segment.score:.2f}"
        for segment in segments
        if segment.start_seconds <= seconds < segment.end_seconds
    ]


def _steady(pictures: Iterator[tuple[Pixels, float]], rate: float) -> Iterator[tuple[Pixels, float]]:
    """At each tick the picture that is shown then, with the time of the tick; the last one once."""
    shown: Pixels | None = None
    origin_seconds, num_ticks = 0.0, 0
    for pixels_HWC, seconds in pictures:
        if shown is None:
            origin_seconds = seconds
        while shown is not None and (tick := origin_seconds + num_ticks / rate) < seconds - 0.5 / rate:
            yield shown, tick
            num_ticks += 1
        shown = pixels_HWC
    if shown is not None:
        yield shown, origin_seconds + num_ticks / rate
