"""What scores become, frame by frame: labels, the running action, segments. Knows nothing of pixels, models or clocks.

    Scores, Track  ->  Labelled, Track        the track of a stream is a value, as its state is

Offline and online answers are the same fold, so they cannot differ:

    classify    every Labelled collected, then the end       stream    every Labelled told as it comes, then the end

With a lookahead of K frames the scores of frame i are about frame i - K: the label of a frame is told K frames later,
and at the end the last scores hold for all that still wait.

Shape letters: T frames of one chunk, A action labels, L frame labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vidseq.config import Calibration, ModelConfig
from vidseq.messages import SegmentChange
from vidseq.model import Scores
from vidseq.naming import Naming, Probabilities, temperatures_at
from vidseq.schemas import Moment, Scored, Segment
from vidseq.segments import Automaton, Segmenter


@dataclass(frozen=True, eq=False)
class Track:
    """What labelling remembers of one stream: a few numbers.

    `pending` are the times of frames whose labels are not final; `action_A` and `frame_L` what was said after the last
    frame (of frames only where it may still be needed: with a lookahead), zeros before the first.
    """

    action_A: Probabilities | None
    frame_L: Probabilities | None
    automaton: Automaton = Automaton()
    pending: tuple[float, ...] = ()
    num_frames: int = 0
    first_seconds: float = 0.0
    last_seconds: float = 0.0
    before_last_seconds: float | None = None


@dataclass(frozen=True, eq=False)
class Labelled:
    """Frames whose labels have become final, their scores, the action as it was then, and what became of segments."""

    seconds_T: tuple[float, ...] = ()
    frame_TL: Probabilities | None = None
    action_TA: Probabilities | None = None
    segments: tuple[SegmentChange, ...] = ()


@dataclass(frozen=True)
class Labelling:
    """How one model's scores are read."""

    segmenter: Segmenter | None
    naming: Naming
    calibration: Calibration | None
    lookahead_frames: int

    @classmethod
    def of(cls, config: ModelConfig) -> "Labelling":
        heads = config.heads
        segmenter = Segmenter(heads.frame_labels, heads.background, config.segments) if heads.frame_labels else None
        return cls(segmenter, Naming.of(heads), config.calibration, config.lookahead_frames)

    def start(self) -> Track:
        """Before the first frame."""
        num_labels = len(self.segmenter.labels) if self.segmenter is not None and self.lookahead_frames else 0
        num_actions = len(self.naming.labels)
        return Track(
            action_A=np.zeros(num_actions, np.float32) if num_actions else None,
            frame_L=np.zeros(num_labels, np.float32) if num_labels else None,
        )

    def knows(self, track: Track) -> bool:
        """Whether the runs that it has begun are of frames, with labels of this model."""
        num_labels = 0 if self.segmenter is None else len(self.segmenter.labels)
        runs = (track.automaton.waiting, track.automaton.run)
        return all(run is None or (0 <= run.label < num_labels and run.num_frames > 0) for run in runs)

    def settle(self, track: Track, seconds_T: Sequence[float], scores: Scores) -> tuple[Labelled, Track]:
        """What the next T sampled frames of a stream bring; `scores` are of one stream (B = 1)."""
        frame_BTL = scores.frame_probabilities_BTL()
        action_TA = self.action_scores(track, seconds_T, scores)
        frame_TL = None if frame_BTL is None else frame_BTL[0].numpy()
        waiting = (*track.pending, *seconds_T)
        num_final = max(0, len(waiting) - self.lookahead_frames)
        final, pending = waiting[:num_final], waiting[num_final:]
        # the newest scores are the first that were made with the whole lookahead
        newest = slice(len(seconds_T) - num_final, None)
        automaton, changes = self._run(track.automaton, final, frame_TL if frame_TL is None else frame_TL[newest])
        labelled = Labelled(
            final,
            None if frame_TL is None else frame_TL[newest],
            None if action_TA is None else action_TA[newest],
            tuple(changes),
        )
        times = [] if track.num_frames == 0 else [track.last_seconds]
        times += seconds_T[-2:]
        return labelled, replace(
            track,
            automaton=automaton,
            pending=pending,
            action_A=None if action_TA is None else action_TA[-1],
            frame_L=None if track.frame_L is None or frame_TL is None else frame_TL[-1],
            num_frames=track.num_frames + len(seconds_T),
            first_seconds=_first_seconds(track, seconds_T),
            last_seconds=times[-1],
            before_last_seconds=times[-2] if len(times) > 1 else None,
        )

    def action_scores(self, track: Track, seconds_T: Sequence[float], scores: Scores) -> Probabilities | None:
        """The running action's score_TA over the next T frames, calibrated where the model is; None without actions."""
        temperature_T = None
        if self.calibration is not None:
            elapsed_T = np.asarray(seconds_T) - _first_seconds(track, seconds_T)
            temperature_T = temperatures_at(elapsed_T, self.calibration)
        action_BTA = scores.action_probabilities_BTA(temperature_T)
        return None if action_BTA is None else action_BTA[0].numpy()

    def moments(self, labelled: Labelled) -> tuple[Moment, ...]:
        """What is told of each of these frames."""
        num_frames = len(labelled.seconds_T)
        frames: Sequence[Scored | None] = [None] * num_frames
        if self.segmenter is not None and labelled.frame_TL is not None:
            frames = best(self.segmenter.labels, labelled.frame_TL)
        actions: Sequence[tuple[Scored, ...]] = [()] * num_frames
        if labelled.action_TA is not None:
            actions = [self.naming.actions(score_A) for score_A in labelled.action_TA]
        return tuple(
            Moment(
                seconds=seconds,
                frame=frame,
                action=next(iter(said), None),
                actions=said if self.naming.several else (),
            )
            for seconds, frame, said in zip(labelled.seconds_T, frames, actions, strict=True)
        )

    def said(self, track: Track) -> tuple[tuple[Scored, ...], tuple[Scored, ...]]:
        """The actions that are said after the last frame, and all of them ranked; empty before the first."""
        if track.num_frames == 0 or track.action_A is None:
            return (), ()
        return self.naming.actions(track.action_A), self.naming.ranked(track.action_A)

    def finish(self, track: Track, *, end_seconds: float) -> Labelled:
        """What the end of a stream makes final; what is still open closes at `end_seconds` (see `end_of`)."""
        num_waiting = len(track.pending)
        frame_TL = None if track.frame_L is None else np.repeat(track.frame_L[None], num_waiting, axis=0)
        action_TA = None if track.action_A is None else np.repeat(track.action_A[None], num_waiting, axis=0)
        automaton, changes = self._run(track.automaton, track.pending, frame_TL)
        if self.segmenter is not None:
            last = self.segmenter.finish(automaton, end_seconds)
            changes += [SegmentChange(change="closed", segment=segment) for segment in last]
        return Labelled(track.pending, frame_TL, action_TA, tuple(changes))

    def _run(
        self, automaton: Automaton, seconds_T: Sequence[float], frame_TL: Probabilities | None
    ) -> tuple[Automaton, list[SegmentChange]]:
        changes: list[SegmentChange] = []
        if self.segmenter is None or frame_TL is None:
            return automaton, changes
        for seconds, scores_L in zip(seconds_T, frame_TL.tolist(), strict=True):
            before = automaton
            settled, automaton = self.segmenter.step(before, seconds, scores_L)
            changes += [SegmentChange(change="closed", segment=segment) for segment in settled]
            for run in (automaton.waiting, automaton.run):  # what ends here may just have become long enough too
                opened = self.segmenter.opened(before, Automaton(run=run, is_open=True))
                if opened is not None:
                    changes.append(SegmentChange(change="opened", segment=opened))
        return automaton, changes


def end_of(track: Track, *, interval_seconds: float | None, not_after: float | None) -> float:
    """When the last label stops to hold: one interval after its frame, or earlier.

    Args:
        track: after at least one frame.
        interval_seconds: between sampled frames; None where every frame is taken.
        not_after: when the video or what was asked for ends; None where nobody knows. It may be declared, and a lie: no
            frame that was seen is cut off by it.
    """
    if interval_seconds is None:  # the last is shown for as long as the one before
        before = track.before_last_seconds
        interval_seconds = 0.0 if before is None else track.last_seconds - before
    end_seconds = track.last_seconds + interval_seconds
    return end_seconds if not_after is None else min(end_seconds, max(not_after, track.last_seconds))


def best(labels: Sequence[str], score_TL: Probabilities) -> list[Scored]:
    """The first label of each frame."""
    indices, scores = score_TL.argmax(axis=1).tolist(), score_TL.max(axis=1).tolist()
    return [Scored(label=labels[index], score=score) for index, score in zip(indices, scores, strict=True)]


def _first_seconds(track: Track, seconds_T: Sequence[float]) -> float:
    """When the first frame of the stream was, now that these are known."""
    return track.first_seconds if track.num_frames else seconds_T[0]


def closed(changes: Sequence[SegmentChange]) -> list[Segment]:
    """The segments that are certain."""
    return [change.segment for change in changes if change.change == "closed"]
