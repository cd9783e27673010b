"""Figures of whole clips against cases small enough to be worked out by hand."""

import numpy as np
import pytest

from training.data.targets import IGNORED
from training.measure.figures import ClipMetrics
from training.measure.metrics.clips import clip_metrics, several_metrics

LABELS = ("a", "b", "c")


def calls(*called: int) -> np.ndarray:
    """Scores that call these labels, one row each."""
    return np.eye(len(LABELS))[list(called)]


def of_clips(called: list[int], truth: list[int], **options: object) -> ClipMetrics:
    found = clip_metrics(calls(*called), np.array(truth), labels=LABELS, **options)
    assert found is not None
    return found


def test_accuracy_is_the_share_of_clips_called_right() -> None:
    assert of_clips(called=[0, 0, 1, 0], truth=[0, 0, 1, 1]).accuracy == 0.75


def test_macro_f1_is_the_mean_over_labels_whatever_their_clips() -> None:
    found = of_clips(called=[0, 0, 1, 0], truth=[0, 0, 1, 1])
    assert found.macro_f1 == pytest.approx((4 / 5 + 2 / 3) / 2)  # a: 2 hits, 1 false alarm; b: 1 hit, 1 miss


def test_a_label_that_is_only_called_does_not_enter_macro_f1_but_costs_those_it_was_called_for() -> None:
    found = of_clips(called=[0, 0, 1, 2], truth=[0, 0, 1, 1])
    assert found.macro_f1 == pytest.approx((1 + 2 / 3) / 2)


def test_mean_class_accuracy_gives_a_rare_label_the_weight_of_a_frequent_one() -> None:
    found = of_clips(called=[0, 0, 0, 0], truth=[0, 0, 0, 1])
    assert (found.accuracy, found.mean_class_accuracy) == (0.75, 0.5)


def test_confusion_has_a_row_for_each_truth_and_a_column_for_each_call() -> None:
    found = of_clips(called=[1, 1, 1, 0], truth=[0, 0, 1, 1])
    assert found.labels == LABELS
    assert found.confusion == ((0, 2, 0), (1, 1, 0), (0, 0, 0))


def test_top5_counts_a_truth_among_the_five_best_and_no_sixth() -> None:
    scores_NK = np.array([[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]] * 2)
    found = clip_metrics(scores_NK, np.array([4, 5]), labels=tuple("abcdef"))
    assert found is not None
    assert (found.accuracy, found.top5) == (0.0, 0.5)


def test_clips_without_a_label_are_not_counted() -> None:
    groups = ["x", "y", "z", "z"]
    with_them = of_clips(called=[0, 1, 2, 1], truth=[0, IGNORED, IGNORED, 2], groups=groups)
    assert with_them == of_clips(called=[0, 1], truth=[0, 2], groups=["x", "z"])


def test_there_are_no_figures_where_no_clip_has_a_label() -> None:
    assert clip_metrics(calls(0, 1), np.array([IGNORED, IGNORED]), labels=LABELS) is None


def test_every_figure_lies_in_its_interval_and_each_label_has_its_own() -> None:
    called, truth = [0, 1, 2, 0, 1, 2, 0, 0] * 5, [0, 1, 2, 0, 1, 2, 1, 2] * 5
    found = of_clips(called=called, truth=truth, groups=[f"{n}" for n in range(40)])
    assert found.intervals.keys() == {"accuracy", "top5", "macro_f1", "mean_class_accuracy"}
    for name, (low, high) in found.intervals.items():
        assert low <= getattr(found, name) <= high, name
    recall = found.classes[1].intervals["recall"]
    assert recall[0] < found.classes[1].recall == 2 / 3 < recall[1]


def test_an_unknown_answer_is_no_call_but_the_best_guess_still_counts_as_accuracy() -> None:
    scores_NK = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.4, 0.6]])
    found = clip_metrics(scores_NK, np.array([0, 1, 0, 0]), labels=("a", "b"), unknown_below=0.7)
    assert found is not None
    assert (found.accuracy, found.share_answered, found.accuracy_answered) == (0.5, 0.5, 0.5)


def test_a_model_that_answers_nothing_is_right_in_no_share_of_its_answers() -> None:
    found = clip_metrics(np.full((2, 2), 0.5), np.array([0, 1]), labels=("a", "b"), unknown_below=0.7)
    assert found is not None
    assert (found.share_answered, found.accuracy_answered) == (0.0, None)


# Several labels at once -------------------------------------------------------------------------------

SCORES_NK = np.array([[0.9, 0.8, 0.1], [0.7, 0.3, 0.2], [0.2, 0.6, 0.1]])
TRUE_NK = np.array([[True, True, False], [False, True, False], [False, True, False]])


def of_several(**options: object) -> ClipMetrics:
    found = several_metrics(SCORES_NK, TRUE_NK, labels=LABELS, threshold_K=np.array([0.5, 0.5, 0.5]), **options)
    assert found is not None
    return found


def test_of_several_labels_a_clip_is_right_if_all_are() -> None:
    assert of_several().accuracy == pytest.approx(2 / 3)


def test_the_mean_average_precision_is_over_labels_that_occur() -> None:
    """a: its only clip has the highest score; b: all are true; c: never occurs."""
    scores_NK = SCORES_NK[:, [1, 1, 2]]
    found = several_metrics(scores_NK, TRUE_NK[:, [0, 1, 2]], labels=LABELS, threshold_K=np.full(3, 0.5))
    assert found is not None
    assert [row.average_precision for row in found.classes] == [1.0, 1.0, None]
    assert found.mean_average_precision == 1.0


def test_average_precision_falls_with_each_wrong_clip_above_a_right_one() -> None:
    scores_NK = np.array([[0.9], [0.8], [0.7]])
    found = several_metrics(scores_NK, np.array([[False], [True], [True]]), labels=("a",), threshold_K=np.array([0.5]))
    assert found is not None
    assert found.mean_average_precision == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_a_label_is_called_from_its_own_threshold_on() -> None:
    found = several_metrics(SCORES_NK, TRUE_NK, labels=LABELS, threshold_K=np.array([0.8, 0.3, 0.5]))
    assert found is not None
    assert found.accuracy == 1.0
    assert [row.f1 for row in found.classes] == [1.0, 1.0, None]


def test_several_labels_have_intervals_too_and_no_confusion() -> None:
    found = of_several(groups=["x", "y", "z"])
    assert found.intervals.keys() == {"accuracy", "macro_f1", "mean_average_precision"}
    assert (found.confusion, found.top5, found.mean_class_accuracy) == ((), None, None)
