"""Figures of sampled frames against cases small enough to be worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from training.data.targets import IGNORED
from training.measure.figures import FrameMetrics
from training.measure.metrics.frames import frame_metrics

LABELS = ("a", "b", "c")


def of_frames(called: list[int], truth: list[int], **options: object) -> FrameMetrics:
    """Of one clip."""
    options = {"background": None} | options
    found = frame_metrics([np.eye(len(LABELS))[called]], [np.array(truth)], labels=LABELS, **options)
    assert found is not None
    return found


def test_foreground_accuracy_leaves_out_the_frames_whose_truth_is_the_background() -> None:
    found = of_frames(called=[0, 0, 0, 1], truth=[0, 0, 1, 1], background="a")
    assert (found.num, found.accuracy, found.accuracy_foreground) == (4, 0.75, 0.5)


def test_without_a_background_every_frame_is_foreground() -> None:
    assert of_frames(called=[0, 0, 0, 1], truth=[0, 0, 1, 1]).accuracy_foreground == 0.75


def test_there_is_no_foreground_accuracy_where_all_is_background() -> None:
    assert of_frames(called=[0, 1], truth=[0, 0], background="a").accuracy_foreground is None


def test_frames_without_a_label_are_not_counted() -> None:
    whole = of_frames(called=[0, 1, 2, 2], truth=[0, 1, IGNORED, IGNORED], background="a")
    assert whole == of_frames(called=[0, 1], truth=[0, 1], background="a")


def test_there_are_no_figures_where_no_frame_has_a_label() -> None:
    assert frame_metrics([np.eye(3)[[0]]], [np.array([IGNORED])], labels=LABELS, background="a") is None


def test_the_average_precision_of_frames_is_over_labels_that_occur() -> None:
    generator = np.random.default_rng(0)
    score_TK, truth_T = generator.random((30, 3)), generator.integers(2, size=30)
    found = frame_metrics([score_TK[:10], score_TK[10:]], [truth_T[:10], truth_T[10:]], labels=LABELS, background=None)
    assert found is not None
    expected = [average_precision_score(truth_T == label, score_TK[:, label]) for label in (0, 1)]
    assert [row.average_precision for row in found.classes] == [
        pytest.approx(expected[0]),
        pytest.approx(expected[1]),
        None,
    ]
    assert found.mean_average_precision == pytest.approx(np.mean(expected))


def test_intervals_draw_clips_not_frames() -> None:
    """A hundred frames of two clips, one all right and one all wrong: any mixture of them is possible."""
    right, wrong = np.eye(3)[[0] * 50], np.eye(3)[[1] * 50]
    found = frame_metrics([right, wrong], [np.zeros(50, int)] * 2, labels=LABELS, background=None, groups=["x", "y"])
    assert found is not None
    assert (found.accuracy, found.intervals["accuracy"]) == (0.5, (0.0, 1.0))
