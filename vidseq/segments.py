"""From frame scores to segments: one small automaton, run frame by frame. Knows nothing of models or of video.

    score of one label   ..:|||||:.|||:....|....      hysteresis opens at enter_score, closes below exit_score,
    runs                    [-----] [--]   []         neighbours of one label with a small gap are merged,
    segments                [---------]               and what is too short then is dropped.

Nothing looks ahead or smooths around a centre, so the offline answer is the fold of the online one.

Shape letters: L frame labels.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from vidseq.config import SegmentsConfig
from vidseq.schemas import Segment


@dataclass(frozen=True)
class Run:
    """A stretch of one label [start_seconds, end_seconds): the mean of `num_frames` scores is its score."""

    label: int
    start_seconds: float
    end_seconds: float
    score_sum: float
    num_frames: int


@dataclass(frozen=True)
class Automaton:
    """Between two frames: at most one run, either open or closed and waiting to be continued by its neighbour."""

    run: Run | None = None
    is_open: bool = False

    def to_numbers(self) -> list[float]:
        """Six plain numbers, for a state that is stored; a label of -1 says that there is no run."""
        run = self.run or Run(-1, 0.0, 0.0, 0.0, 0)
        return [
            *map(float, (run.label, run.start_seconds, run.end_seconds, run.score_sum, run.num_frames, self.is_open))
        ]

    @classmethod
    def from_numbers(cls, numbers: Sequence[float]) -> "Automaton":
        label, start_seconds, end_seconds, score_sum, num_frames, is_open = numbers
        run = Run(int(label), start_seconds, end_seconds, score_sum, int(num_frames))
        return cls(run if label >= 0 else None, bool(is_open))


@dataclass(frozen=True)
class Segmenter:
    """The rules: label names in the order of the scores, and the thresholds. `background` never makes a segment."""

    labels: tuple[str, ...]
    background: str | None
    config: SegmentsConfig

    def step(self, automaton: Automaton, seconds: float, scores_L: Sequence[float]) -> tuple[list[Segment], Automaton]:
        """Segments that are certain once the frame at `seconds` has these scores, and the automaton after it."""
        run, label = automaton.run, self._label(automaton, scores_L)
        if run is not None and automaton.is_open:
            if label == run.label:
                return [], Automaton(_extend(run, seconds, scores_L[label]), is_open=True)
            run = replace(run, end_seconds=seconds)
        mergeable = run is not None and seconds - run.end_seconds <= self.config.merge_gap_seconds
        if label is None:
            return ([], Automaton(run)) if mergeable else (self._keep(run), Automaton())
        started = Run(label, seconds, seconds, scores_L[label], 1)
        if run is not None and mergeable and run.label == label:
            return [], Automaton(_extend(run, seconds, scores_L[label]), is_open=True)
        return self._keep(run), Automaton(started, is_open=True)

    def finish(self, automaton: Automaton, end_seconds: float) -> list[Segment]:
        """What is still open or waiting when the video ends."""
        run = automaton.run
        return self._keep(replace(run, end_seconds=end_seconds) if run and automaton.is_open else run)

    def fold(self, frames: Iterable[tuple[float, Sequence[float]]], *, end_seconds: float) -> list[Segment]:
        """All segments of a whole video: `frames` are (seconds, scores_L) in order."""
        automaton, segments = Automaton(), []
        for seconds, scores_L in frames:
            settled, automaton = self.step(automaton, seconds, scores_L)
            segments += settled
        return segments + self.finish(automaton, end_seconds)

    def _label(self, automaton: Automaton, scores_L: Sequence[float]) -> int | None:
        """Hysteresis: the label that this frame belongs to, or None."""
        best = max(range(len(scores_L)), key=scores_L.__getitem__)
        if scores_L[best] >= self.config.enter_score:
            return None if self.labels[best] == self.background else best
        if automaton.run is not None and automaton.is_open:
            current = automaton.run.label
            return current if scores_L[current] >= self.config.exit_score else None
        return None

    def _keep(self, run: Run | None) -> list[Segment]:
        if run is None or run.end_seconds - run.start_seconds < self.config.min_duration_seconds:
            return []
        score = run.score_sum / run.num_frames
        return [
            Segment(
                start_seconds=run.start_seconds,
                end_seconds=run.end_seconds,
                label=self.labels[run.label],
                score=score,
            )
        ]


def _extend(run: Run, seconds: float, score: float) -> Run:
    return replace(run, end_seconds=seconds, score_sum=run.score_sum + score, num_frames=run.num_frames + 1)
