"""From scores to the words of an answer: what was collected of one video becomes a Prediction. Knows no decoder.

Shape letters: T frames, A action labels, L frame labels.
"""

import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vidseq.config import ModelConfig, Sampling
from vidseq.engine import Done
from vidseq.model import Scores
from vidseq.sampling import Clip, summarize
from vidseq.schemas import FrameLabel, ModelInfo, Moment, Prediction, Sampled, Scored, Segment, Timings, VideoReport
from vidseq.segments import Segmenter

Probabilities = NDArray[np.float32]


def moments(clip: Clip, scores: Scores, info: ModelInfo) -> Iterator[Moment]:
    """One for each frame of the clip: its label, and the action so far."""
    action_TA, frame_TL = _probabilities(scores)
    for frame, seconds in enumerate(clip.seconds_T.tolist()):
        yield Moment(
            seconds=seconds,
            frame=None if frame_TL is None else ranked(info.frame_labels, frame_TL[frame])[0],
            action=None if action_TA is None else ranked(info.action_labels, action_TA[frame])[0],
        )


def ranked(labels: Sequence[str], scores: Probabilities) -> tuple[Scored, ...]:
    """Labels with their scores, the best first."""
    order = np.argsort(-scores, kind="stable")
    return tuple(Scored(label=labels[index], score=float(scores[index])) for index in order)


class Collected:
    """What has been learnt of one video so far. Arrays, not objects: an hour has 28,800 sampled frames."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._seconds: list[NDArray[np.float64]] = []
        self._frame_scores: list[Probabilities] = []
        self._action_A: Probabilities | None = None
        self._stride = 1
        self._milliseconds = {"decode_ms": 0.0, "encode_ms": 0.0, "recur_ms": 0.0, "queued_ms": 0.0}

    def timed(self, clips: Iterable[Clip]) -> Iterator[Clip]:
        """The same clips; the wall time of making them is counted as decoding."""
        iterator = iter(clips)
        while True:
            begun = time.perf_counter()
            clip = next(iterator, None)
            self._milliseconds["decode_ms"] += 1000 * (time.perf_counter() - begun)
            if clip is None:
                return
            yield clip

    def add(self, clip: Clip, done: Done) -> None:
        action_TA, frame_TL = _probabilities(done.scores)
        self._seconds.append(clip.seconds_T)
        self._stride = clip.stride
        if action_TA is not None:
            self._action_A = action_TA[-1]
        if frame_TL is not None:
            self._frame_scores.append(frame_TL)
        for name in ("encode_ms", "recur_ms", "queued_ms"):
            self._milliseconds[name] += getattr(done, name)

    def prediction(
        self, *, report: VideoReport, info: ModelInfo, config: ModelConfig, sampling: Sampling, top_k: int
    ) -> Prediction:
        """The answer once the video has ended; at least one clip has been added. `sampling` is the request's."""
        seconds_T = np.concatenate(self._seconds)
        sampled = summarize(seconds_T, sampling, stride=self._stride)
        end_seconds = _end_seconds(seconds_T, sampled, sampling, report)
        frame_TL = np.concatenate(self._frame_scores) if self._frame_scores else None
        top = () if self._action_A is None else ranked(info.action_labels, self._action_A)
        return Prediction(
            action=top[0] if top else None,
            top=top[:top_k],
            frames=() if frame_TL is None else _frame_labels(info.frame_labels, seconds_T, frame_TL),
            segments=() if frame_TL is None else _segments(config, seconds_T, frame_TL, end_seconds),
            sampled=sampled,
            video=report,
            model=info,
            timings=Timings(**self._milliseconds, total_ms=1000 * (time.perf_counter() - self._begun)),
        )


def _probabilities(scores: Scores) -> tuple[Probabilities | None, Probabilities | None]:
    """action_TA and frame_TL of one stream."""
    action_BTA, frame_BTL = scores.action_probabilities_BTA(), scores.frame_probabilities_BTL()
    return (
        None if action_BTA is None else action_BTA[0].numpy(),
        None if frame_BTL is None else frame_BTL[0].numpy(),
    )


def _frame_labels(
    labels: Sequence[str], seconds_T: NDArray[np.float64], frame_TL: Probabilities
) -> tuple[FrameLabel, ...]:
    best_T = frame_TL.argmax(axis=1)
    rows = zip(seconds_T.tolist(), best_T.tolist(), frame_TL.max(axis=1).tolist(), strict=True)
    return tuple(FrameLabel(seconds=seconds, label=labels[best], score=score) for seconds, best, score in rows)


def _segments(
    config: ModelConfig, seconds_T: NDArray[np.float64], frame_TL: Probabilities, end_seconds: float
) -> tuple[Segment, ...]:
    segmenter = Segmenter(config.heads.frame_labels, config.heads.background, config.segments)
    frames = zip(seconds_T.tolist(), frame_TL.tolist(), strict=True)
    return tuple(segmenter.fold(frames, end_seconds=end_seconds))


def _end_seconds(seconds_T: NDArray[np.float64], sampled: Sampled, sampling: Sampling, report: VideoReport) -> float:
    """When the last label stops to hold: one interval after its frame, but not after the request or the video ends."""
    last_seconds = sampled.end_seconds
    if sampled.frames_per_second:
        interval_seconds = 1 / sampled.frames_per_second
    else:  # every frame was taken: the last is shown for as long as the one before
        interval_seconds = float(seconds_T[-1] - seconds_T[-2]) if len(seconds_T) > 1 else 0.0
    bounds = [last_seconds + interval_seconds]
    if sampling.end_seconds is not None:
        bounds.append(sampling.end_seconds)
    if report.duration_seconds is not None:  # declared, and maybe a lie: no frame that was seen is cut off
        bounds.append(max(report.duration_seconds, last_seconds))
    return min(bounds)
