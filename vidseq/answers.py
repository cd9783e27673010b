"""All that was said of one video, collected into a Prediction. Knows no decoder and no stream.

Shape letters: T frames.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vidseq.config import ModelConfig, Sampling
from vidseq.early import Watch
from vidseq.engine import Done
from vidseq.labelling import Labelled, Labelling, closed, end_of
from vidseq.sampling import Clip, summarize
from vidseq.schemas import EarlyExited, FrameLabel, ModelInfo, Prediction, Segment, Timings, VideoReport


class Frames(Protocol):
    """Sampled frames in a row, of which only the times matter here."""

    @property
    def seconds_T(self) -> NDArray[np.float64]: ...

    @property
    def stride(self) -> int: ...

    def __len__(self) -> int: ...


class Collected:
    """What has been learnt of one video so far. Arrays, not objects: an hour has 28,800 sampled frames."""

    def __init__(self, config: ModelConfig, watch: Watch | None = None) -> None:
        """With a `watch` frames are taken until it has seen enough: `exited` says so."""
        self.exited: EarlyExited | None = None
        self._watch = watch
        self._begun = time.perf_counter()
        self._labelling = Labelling.of(config)
        self._track = self._labelling.start()
        self._seconds: list[tuple[float, ...]] = []
        self._best: list[NDArray[np.int64]] = []
        self._scores: list[NDArray[np.float32]] = []
        self._segments: list[Segment] = []
        self._stride = 1
        self._milliseconds = {"decode_ms": 0.0, "encode_ms": 0.0, "recur_ms": 0.0, "queued_ms": 0.0}

    @property
    def watching(self) -> bool:
        """Whether looking is to end once enough was seen."""
        return self._watch is not None

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

    def add(self, clip: Frames, done: Done) -> None:
        """What is said of the next frames, up to the one that was enough."""
        assert self.exited is None, "what comes after an early exit is no part of the answer"
        num_frames = self._num_needed(clip, done)
        (scores,) = done.scores.split([num_frames])
        labelled, self._track = self._labelling.settle(self._track, clip.seconds_T[:num_frames].tolist(), scores)
        self._stride = clip.stride
        self._keep(labelled)
        for name in self._milliseconds.keys() - {"decode_ms"}:
            self._milliseconds[name] += getattr(done, name)

    def _num_needed(self, clip: Frames, done: Done) -> int:
        if self._watch is None:
            return len(clip)
        score_TA = self._labelling.action_scores(self._track, clip.seconds_T.tolist(), done.scores)
        assert score_TA is not None, "only a model of actions can be watched"
        enough, self._watch = self._watch.look(clip.seconds_T, score_TA)
        if enough is None:
            return len(clip)
        self.exited = enough.exited
        return enough.num_frames

    def prediction(
        self, *, report: VideoReport, seen_until: float | None, info: ModelInfo, sampling: Sampling, top_k: int
    ) -> Prediction:
        """The answer once the video or the looking has ended; at least one clip was added.

        `sampling` is the request's; `report` and `seen_until` are the Reader's.
        """
        track = self._track
        if self.exited is not None:  # how far ahead the Reader was by then is a matter of chance
            seen_until = None
        sampled = summarize(
            num_frames=track.num_frames,
            start_seconds=track.first_seconds,
            end_seconds=track.last_seconds,
            sampling=sampling,
            stride=self._stride,
        )
        end_seconds = end_of(
            track,
            interval_seconds=1 / sampled.frames_per_second if sampled.frames_per_second else None,
            not_after=earliest(sampling.end_seconds, seen_until),
        )
        self._keep(self._labelling.finish(track, end_seconds=end_seconds))
        actions, top = self._labelling.said(track)
        return Prediction(
            action=next(iter(actions), None),
            actions=actions,
            top=top[:top_k],
            frames=self._frames(info),
            segments=tuple(self._segments),
            sampled=sampled,
            video=report,
            model=info,
            timings=Timings(**self._milliseconds, total_ms=1000 * (time.perf_counter() - self._begun)),
            early_exit=self.exited,
        )

    def _keep(self, labelled: Labelled) -> None:
        self._segments += closed(labelled.segments)
        if labelled.frame_TL is not None:
            self._seconds.append(labelled.seconds_T)
            self._best.append(labelled.frame_TL.argmax(axis=1))
            self._scores.append(labelled.frame_TL.max(axis=1))

    def _frames(self, info: ModelInfo) -> tuple[FrameLabel, ...]:
        rows = zip(
            (seconds for chunk in self._seconds for seconds in chunk),
            (best for chunk in self._best for best in chunk.tolist()),
            (score for chunk in self._scores for score in chunk.tolist()),
            strict=True,
        )
        return tuple(
            FrameLabel(seconds=seconds, label=info.frame_labels[best], score=score) for seconds, best, score in rows
        )


def earliest(*seconds: float | None) -> float | None:
    """The least of those that are known."""
    return min((known for known in seconds if known is not None), default=None)
