"""From frame scores to segments: one small automaton, run frame by frame. Knows nothing of models or of video.

    score of one label   ..:|||||:.|||:....|....      hysteresis opens at enter_score, closes below exit_score,
    runs                    [-----] [--]   []         neighbours of one label with a small gap are merged,
    segments                [---------]               and what is too short then is dropped.

    labels   AAAAAABAAAAACCCC       a flicker of another label, too short to be kept, is a gap like any other:
    segments [----A-----][C-]       one A, if it comes back in time

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
    """Between two frames: at most two runs, the later open or closed.

    `waiting` is an earlier run that its label may still continue: `run` is too short so far to stand between.
    """

    waiting: Run | None = None
    run: Run | None = None
    is_open: bool = False


@dataclass(frozen=True)
class Segmenter:
    """The rules: label names in the order of the scores, and the thresholds. `background` never makes a segment."""

    labels: tuple[str, ...]
    background: str | None
    config: SegmentsConfig

    def step(self, automaton: Automaton, seconds: float, scores_L: Sequence[float]) -> tuple[list[Segment], Automaton]:
        """Segments that are certain once the frame at `seconds` has these scores, and the automaton after it."""
        label, waiting, run = self._label(automaton, scores_L), automaton.waiting, automaton.run
        if run is not None and automaton.is_open:
            run = replace(run, end_seconds=seconds)
        settled: list[Segment] = []
        if waiting is not None and (self._is_far(waiting, seconds) or (run is not None and self._is_long(run))):
            settled, waiting = self._keep(waiting), None
        if run is not None and self._is_far(run, seconds):  # then so is what waited: it ended earlier
            settled, run = settled + self._keep(run), None
        if label is None:
            return settled, Automaton(waiting, run)
        if run is not None and run.label == label:
            return settled, Automaton(waiting, _extend(run, seconds, scores_L[label]), is_open=True)
        if waiting is not None and waiting.label == label:  # the run between was a flicker
            return settled, Automaton(None, _extend(waiting, seconds, scores_L[label]), is_open=True)
        started = Run(label, seconds, seconds, scores_L[label], 1)
        return settled, Automaton(waiting or run, started, is_open=True)

    def opened(self, before: Automaton, after: Automaton) -> Segment | None:
        """The segment that one step has made long enough to be told, as it is so far. It may still grow and merge."""
        run = after.run
        if run is None or not after.is_open or not self._is_long(run):
            return None
        same = (
            old for old in (before.waiting, before.run) if old is not None and old.start_seconds == run.start_seconds
        )
        return None if any(self._is_long(old) for old in same) else self._keep(run)[0]

    def finish(self, automaton: Automaton, end_seconds: float) -> list[Segment]:
        """What is still open or waiting when the video ends."""
        run = automaton.run
        last = replace(run, end_seconds=end_seconds) if run and automaton.is_open else run
        return self._keep(automaton.waiting) + self._keep(last)

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

    def _is_long(self, run: Run) -> bool:
        return run.end_seconds - run.start_seconds >= self.config.min_duration_seconds

    def _is_far(self, run: Run, seconds: float) -> bool:
        """Whether the gap from the end of the run to a frame is too large to be merged."""
        return seconds - run.end_seconds > self.config.merge_gap_seconds

    def _keep(self, run: Run | None) -> list[Segment]:
        if run is None or not self._is_long(run):
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
