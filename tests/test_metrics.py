"""Figures of merit against cases small enough to be worked out by hand."""

import numpy as np
import pytest

from training.metrics import ClipMetrics, FrameMetrics, Ints, bootstrap_interval, clip_metrics, frame_metrics
from training.targets import IGNORED

LABELS = ("a", "b", "c")


def calls(*called: int, num_labels: int = 3) -> np.ndarray:
    """Scores that call these labels, one row each."""
    return np.eye(num_labels)[list(called)]


def of_clips(called: list[int], truth: list[int]) -> ClipMetrics:
    found = clip_metrics(calls(*called), np.array(truth), labels=LABELS)
    assert found is not None
    return found


def of_frames(called: list[int], truth: list[int], *, background: str | None = None) -> FrameMetrics:
    found = frame_metrics(calls(*called), np.array(truth), labels=LABELS, background=background)
    assert found is not None
    return found


# Clips -----------------------------------------------------------------------------------------------


def test_accuracy_is_the_share_of_clips_called_right() -> None:
    assert of_clips(called=[0, 0, 1, 0], truth=[0, 0, 1, 1]).accuracy == 0.75


def test_macro_f1_is_the_mean_over_labels_whatever_their_clips() -> None:
    found = of_clips(called=[0, 0, 1, 0], truth=[0, 0, 1, 1])
    assert found.macro_f1 == pytest.approx((4 / 5 + 2 / 3) / 2)  # a: 2 hits, 1 false alarm; b: 1 hit, 1 miss


def test_a_label_that_is_only_called_does_not_enter_macro_f1_but_costs_those_it_was_called_for() -> None:
    found = of_clips(called=[0, 0, 1, 2], truth=[0, 0, 1, 1])
    assert found.macro_f1 == pytest.approx((1 + 2 / 3) / 2)


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
    assert of_clips(called=[0, 1, 2], truth=[0, IGNORED, IGNORED]) == of_clips(called=[0], truth=[0])


def test_there_are_no_figures_where_no_clip_has_a_label() -> None:
    assert clip_metrics(calls(0, 1), np.array([IGNORED, IGNORED]), labels=LABELS) is None


# Frames ----------------------------------------------------------------------------------------------


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
    assert frame_metrics(calls(0), np.array([IGNORED]), labels=LABELS, background="a") is None


# The bootstrap ---------------------------------------------------------------------------------------


def width(groups: list[str], values_N: np.ndarray) -> float:
    low, high = bootstrap_interval(groups, lambda indices: float(values_N[indices].mean()), num_resamples=400)
    return high - low


def test_groups_are_drawn_whole_and_as_many_as_there_are() -> None:
    drawn: list[list[int]] = []

    def statistic(indices: Ints) -> float:
        drawn.append(sorted(indices.tolist()))
        return 0.0

    bootstrap_interval(["x", "y", "x"], statistic, num_resamples=50)
    assert {tuple(indices) for indices in drawn} == {(0, 0, 2, 2), (0, 1, 2), (1, 1)}


def test_with_one_group_the_interval_is_a_point() -> None:
    values_N = np.array([1.0, 0.0, 1.0, 1.0])
    low, high = bootstrap_interval(["x"] * 4, lambda indices: float(values_N[indices].mean()))
    assert (low, high) == (0.75, 0.75)


def test_the_interval_is_wider_when_the_same_clips_come_from_fewer_groups() -> None:
    values_N = np.repeat([1.0, 0.0, 1.0, 0.0], 10)
    few, many = [f"{index // 10}" for index in range(40)], [f"{index}" for index in range(40)]
    assert width(few, values_N) > 2 * width(many, values_N)


def test_the_interval_holds_the_value_and_a_seed_repeats_it() -> None:
    values_N = np.repeat([1.0, 0.0], 20)
    groups = [f"{index}" for index in range(40)]
    intervals = [bootstrap_interval(groups, lambda indices: float(values_N[indices].mean())) for _ in range(2)]
    assert intervals[0] == intervals[1]
    assert intervals[0][0] < 0.5 < intervals[0][1]
