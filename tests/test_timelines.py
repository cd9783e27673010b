"""The clips that a report shows: those that tell most, each with what is true and what was said over time."""

from pathlib import Path

import numpy as np
import pytest

from training.data.clips import LabelledClip, LabelledSegment
from training.data.dataset import Dataset
from training.measure.figures import ClipRow
from training.measure.scores import ClipScores
from training.report.timelines import Run, Timeline, choose
from vidseq.features.store import ClipFeatures

ACTIONS, FRAMES = ("serve", "return"), ("wait", "swing")
SECONDS_T = np.arange(8) / 4
TRUTH = (LabelledSegment(0.0, 1.0, "wait"), LabelledSegment(1.0, 2.0, "swing"))


def a_dataset(
    num_clips: int, *, segments: tuple[LabelledSegment, ...] = TRUTH, label: str | None, several: bool = False
) -> Dataset:
    clips = [LabelledClip(Path(f"{n}.mp4"), label, None, None, segments, several) for n in range(num_clips)]
    features = ClipFeatures(np.zeros((8, 4), np.float32), SECONDS_T)
    return Dataset(tuple(clips), (features,) * num_clips, ACTIONS, FRAMES, None, ())


def scores(swing_T: list[float], *, serve: float = 0.9) -> ClipScores:
    """`swing_T` is the score of swing at each frame, `serve` that of the action after every frame."""
    action_A, swing = np.array([serve, 1 - serve]), np.array(swing_T)
    return ClipScores(
        action_A, np.tile(np.log(action_A), (8, 1)).astype(np.float32), np.stack([1 - swing, swing], axis=1)
    )


def a_row(number: int) -> ClipRow:
    said = {"truth": "serve", "called": "serve", "score": 0.9, "right": True, "frame_accuracy": 1.0}
    return ClipRow.model_validate({"path": f"{number}.mp4", "group": None, "num_frames": 8} | said)


def chosen(dataset: Dataset, found: list[ClipScores], *, several: bool = False, num: int = 1) -> list[Timeline]:
    return choose(dataset, found, [a_row(n) for n in range(len(found))], several=several, num_of_each=num)


SERVE = "serve"
RIGHT, WRONG, UNSURE = [0.05] * 4 + [0.95] * 4, [0.95] * 4 + [0.05] * 4, [0.45] * 4 + [0.55] * 4


def test_the_best_the_worst_and_the_least_sure_clips_are_chosen_each_once() -> None:
    fair = [0.3] * 4 + [0.7] * 4
    timelines = chosen(a_dataset(5, label=SERVE), [scores(s) for s in (fair, UNSURE, RIGHT, WRONG, fair)])
    assert [(one.why, one.path.name) for one in timelines] == [
        ("best", "2.mp4"),
        ("worst", "3.mp4"),
        ("least sure", "1.mp4"),
    ]
    assert [one.truth_score for one in timelines] == pytest.approx([0.95, 0.05, 0.55])
    assert [one.row.path for one in timelines] == ["2.mp4", "3.mp4", "1.mp4"]


def test_with_few_clips_each_is_shown_once() -> None:
    timelines = chosen(a_dataset(2, label=SERVE), [scores(RIGHT), scores(WRONG)], num=3)
    assert [(one.why, one.path.name) for one in timelines] == [("best", "0.mp4"), ("best", "1.mp4")]


def test_frames_of_one_label_are_one_run_and_a_wrong_stretch_is_one_of_its_own() -> None:
    (timeline,) = chosen(a_dataset(1, label=SERVE), [scores([0.1] * 2 + [0.9] * 6, serve=0.2)])
    truth, said, action = timeline.ribbons
    assert [ribbon.name for ribbon in timeline.ribbons] == ["truth", "frames", "action"]
    assert truth.runs == (Run(0.0, 1.0, 0, False), Run(1.0, 2.0, 1, False))
    assert said.runs == (Run(0.0, 0.5, 0, False), Run(0.5, 1.0, 1, True), Run(1.0, 2.0, 1, False))
    assert action.runs == (Run(0.0, 2.0, 1, True),)
    assert (said.labels, action.labels) == (FRAMES, ACTIONS)


def test_clips_without_labelled_frames_are_judged_by_their_action() -> None:
    dataset = a_dataset(3, segments=(), label=SERVE)
    timelines = chosen(dataset, [scores(RIGHT, serve=serve) for serve in (0.2, 0.6, 0.9)])
    assert [(one.why, one.path.name) for one in timelines] == [
        ("best", "2.mp4"),
        ("worst", "0.mp4"),
        ("least sure", "1.mp4"),
    ]
    assert [ribbon.name for ribbon in timelines[0].ribbons] == ["frames", "action"]


def test_of_several_actions_each_counts_whether_it_is_true_or_not() -> None:
    dataset = a_dataset(1, segments=(), label="|", several=True)
    (timeline,) = chosen(dataset, [scores(RIGHT, serve=0.2)], several=True)
    assert timeline.truth_score == pytest.approx((0.8 + 0.2) / 2)
    assert [ribbon.name for ribbon in timeline.ribbons] == ["frames"]


def test_a_clip_without_a_truth_is_not_shown() -> None:
    assert chosen(a_dataset(1, segments=(), label=None), [scores(RIGHT)]) == []


def test_a_clip_of_one_frame_is_one_run() -> None:
    clip = LabelledClip(Path("a.mp4"), SERVE, None, None)
    one = ClipFeatures(np.zeros((1, 4), np.float32), np.array([0.5]))
    found = ClipScores(np.array([0.9, 0.1]), np.array([[2.0, 0.0]], np.float32), None)
    (timeline,) = chosen(Dataset((clip,), (one,), ACTIONS, (), None, ()), [found])
    assert [ribbon.runs for ribbon in timeline.ribbons] == [(Run(0.5, 1.5, 0, False),)]
