"""One model's answers beside the truth, and the figures of each kind that follow. Knows of no second model.

Shape letters: N clips, T frames, A action labels, L frame labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from training.data.clips import LabelledClip
from training.data.dataset import Dataset
from training.data.example import Example
from training.data.targets import IGNORED
from training.measure.earliness import Course, earliness
from training.measure.figures import CalibrationResults, ClipMetrics, ClipRow, Earliness, FrameMetrics, SegmentMetrics
from training.measure.metrics.classes import counts
from training.measure.metrics.clips import clip_metrics, several_metrics
from training.measure.metrics.frames import frame_counts, frame_metrics
from training.measure.metrics.resampling import Bools, Floats, Ints
from training.measure.metrics.segments import segment_metrics
from training.measure.paired import Judged
from training.measure.scaling import calibration_results
from training.measure.scores import ClipScores, calibrated_A, groups_of, said_A
from vidseq.config import ModelConfig
from vidseq.naming import Naming


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of clips. `acting` are the clips with an action, `framed` those with a label on some frame."""

    clips: tuple[LabelledClip, ...]
    seconds: tuple[Floats, ...]
    groups: tuple[str, ...]
    true: tuple[Bools | None, ...]
    frame_target: tuple[Ints, ...]
    action_labels: tuple[str, ...]
    frame_labels: tuple[str, ...]
    background: str | None

    @classmethod
    def of(cls, dataset: Dataset, examples: Sequence[Example]) -> "Truth":
        """Of all clips of the dataset, in its order."""
        assert len(dataset.clips) == len(examples), f"{len(dataset.clips)} clips, {len(examples)} examples"
        targets = [example.action_target_A for example in examples]
        return cls(
            clips=dataset.clips,
            seconds=tuple(features.seconds_T for features in dataset.features),
            groups=tuple(groups_of(dataset.clips)),
            true=tuple(None if target_A is None else target_A.numpy() > 0.5 for target_A in targets),
            frame_target=tuple(example.frame_target_T.numpy() for example in examples),
            action_labels=dataset.action_labels,
            frame_labels=dataset.frame_labels,
            background=dataset.background,
        )

    @cached_property
    def acting(self) -> list[int]:
        return [index for index, true_A in enumerate(self.true) if true_A is not None]

    @cached_property
    def framed(self) -> list[int]:
        return [index for index, target_T in enumerate(self.frame_target) if (target_T != IGNORED).any()]

    @cached_property
    def true_NA(self) -> Bools:
        """Of the acting clips."""
        return np.stack([true_A for true_A in self.true if true_A is not None])

    def groups_at(self, indices: Sequence[int]) -> list[str]:
        return [self.groups[index] for index in indices]


class Answers:
    """What a model of this configuration said of the same clips. Figures are None where there is nothing to measure."""

    def __init__(self, truth: Truth, scores: Sequence[ClipScores], config: ModelConfig) -> None:
        assert len(truth.clips) == len(scores), f"{len(truth.clips)} clips, {len(scores)} scores"
        self.truth, self.scores, self.config = truth, scores, config
        rows = zip(scores, truth.seconds, strict=True)
        self.actions = [calibrated_A(score, seconds_T, config) for score, seconds_T in rows]

    @cached_property
    def acting(self) -> bool:
        return bool(self.truth.acting) and self.actions[0] is not None

    @cached_property
    def framed(self) -> bool:
        return bool(self.truth.framed) and self.scores[0].frame_TL is not None

    def clips(self) -> ClipMetrics | None:
        if not self.acting:
            return None
        groups, labels, heads = self.truth.groups_at(self.truth.acting), self.truth.action_labels, self.config.heads
        true_NA = self.truth.true_NA
        if heads.several:
            threshold_A = Naming.of(heads).threshold_A.astype(np.float64)
            return several_metrics(self._action_NA, true_NA, labels=labels, threshold_K=threshold_A, groups=groups)
        return clip_metrics(
            self._action_NA,
            true_NA.argmax(axis=1),
            labels=labels,
            unknown_below=heads.unknown_below,
            groups=groups,
        )

    def frames(self) -> FrameMetrics | None:
        if not self.framed:
            return None
        return frame_metrics(
            self._frame_scores,
            self._frame_targets,
            labels=self.truth.frame_labels,
            background=self.truth.background,
            groups=self.truth.groups_at(self.truth.framed),
        )

    def segments(self) -> SegmentMetrics | None:
        if not self.framed:
            return None
        background = self.truth.background
        return segment_metrics(
            [score_TL.argmax(axis=1) for score_TL in self._frame_scores],
            self._frame_targets,
            [self.truth.seconds[index] for index in self.truth.framed],
            background_index=None if background is None else self.truth.frame_labels.index(background),
            groups=self.truth.groups_at(self.truth.framed),
        )

    def judged_clips(self, indices: Sequence[int]) -> Judged:
        """Of some of the acting clips, for comparing with another model's."""
        chosen = np.isin(self.truth.acting, indices)
        said_NA, true_NA = self._said_NA[chosen], self.truth.true_NA[chosen]
        rows = zip(true_NA[:, None], said_NA[:, None], strict=True)
        count_N3K = np.stack([counts(true_1A, said_1A) for true_1A, said_1A in rows])
        return Judged(count_N3K, exact_N=(said_NA == true_NA).all(axis=1).astype(np.float64))

    def judged_frames(self, indices: Sequence[int]) -> Judged:
        """Of some of the framed clips."""
        chosen = [number for number, index in enumerate(self.truth.framed) if index in set(indices)]
        scores, targets = self._frame_scores, self._frame_targets
        return Judged(frame_counts([scores[number] for number in chosen], [targets[number] for number in chosen]))

    def calibration(self) -> CalibrationResults | None:
        """Of a model that says one action; several have no one score to believe."""
        if not self.acting or self.config.heads.several:
            return None
        acting = self.truth.acting
        logits = [self.scores[index].action_logits_TA for index in acting]
        return calibration_results(
            np.stack([logits_TA[-1] for logits_TA in logits if logits_TA is not None]).astype(np.float64),
            self.truth.true_NA.argmax(axis=1),
            np.array([self.truth.seconds[index][-1] - self.truth.seconds[index][0] for index in acting]),
            groups=self.truth.groups_at(acting),
            calibration=self.config.calibration,
        )

    def earliness(self) -> Earliness | None:
        """A bidirectional model says nothing of an action, or of a frame, before it has seen the whole clip."""
        if self.config.recurrent.bidirectional or not (self.acting or self.framed):
            return None
        actions = [] if self.config.heads.several or not self.acting else [self._course(n) for n in self.truth.acting]
        frames = [self._frame_course(index) for index in self.truth.framed] if self.framed else []
        return earliness(actions=actions, frames=frames)

    def rows(self) -> tuple[ClipRow, ...]:
        """One for each clip, in order."""
        return tuple(self._row(index) for index in range(len(self.truth.clips)))

    @cached_property
    def _action_NA(self) -> Floats:
        return np.stack([action_A for index in self.truth.acting if (action_A := self.actions[index]) is not None])

    @cached_property
    def _said_NA(self) -> Bools:
        return np.stack([said_A(action_A, self.config.heads) for action_A in self._action_NA])

    @cached_property
    def _frame_scores(self) -> list[Floats]:
        found = [self.scores[index].frame_TL for index in self.truth.framed]
        return [score_TL for score_TL in found if score_TL is not None]

    @cached_property
    def _frame_targets(self) -> list[Ints]:
        return [self.truth.frame_target[index] for index in self.truth.framed]

    def _course(self, index: int) -> Course:
        """The running action of one clip."""
        logits_TA, true_A, seconds_T = (
            self.scores[index].action_logits_TA,
            self.truth.true[index],
            self.truth.seconds[index],
        )
        assert logits_TA is not None and true_A is not None
        true_T = np.full(len(seconds_T), true_A.argmax())
        return Course(seconds_T, true_T, logits_TA.argmax(axis=1), self.truth.groups[index])

    def _frame_course(self, index: int) -> Course:
        score_TL = self.scores[index].frame_TL
        assert score_TL is not None
        target_T, seconds_T = self.truth.frame_target[index], self.truth.seconds[index]
        return Course(seconds_T, target_T, score_TL.argmax(axis=1), self.truth.groups[index])

    def _row(self, index: int) -> ClipRow:
        clip, action_A, true_A = self.truth.clips[index], self.actions[index], self.truth.true[index]
        score_TL, target_T = self.scores[index].frame_TL, self.truth.frame_target[index]
        known_T = target_T != IGNORED
        said = None if action_A is None else said_A(action_A, self.config.heads)
        frames_right = None
        if score_TL is not None and known_T.any():
            frames_right = float((score_TL.argmax(axis=1) == target_T)[known_T].mean())
        return ClipRow(
            path=str(clip.path),
            group=clip.group,
            truth=None if true_A is None else self._names(true_A),
            called=None if said is None else self._names(said),
            score=None if action_A is None else float(action_A.max()),
            right=None if said is None or true_A is None else bool((said == true_A).all()),
            num_frames=len(target_T),
            frame_accuracy=frames_right,
        )

    def _names(self, chosen_A: Bools) -> str:
        return "|".join(self.truth.action_labels[index] for index in np.flatnonzero(chosen_A))
