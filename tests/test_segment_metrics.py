"""Edit score and F1 of segments, each against cases worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.targets import IGNORED
from training.measure.figures import SegmentMetrics
from training.measure.metrics.segments import edit_score, num_matched, runs, segment_metrics

BACKGROUND = 0


def frames(drawn: str) -> np.ndarray:
    """One digit a frame; `.` is the background, `?` has no label."""
    return np.array([IGNORED if sign == "?" else int(sign) for sign in drawn.replace(".", str(BACKGROUND))])


def of_clips(*clips: tuple[str, str], groups: list[str] | None = None) -> SegmentMetrics:
    """Of clips at two frames a second: what was called, and the truth."""
    found = segment_metrics(
        [frames(called) for called, _ in clips],
        [frames(truth) for _, truth in clips],
        [np.arange(len(truth)) / 2 for _, truth in clips],
        background_index=BACKGROUND,
        groups=groups,
    )
    assert found is not None
    return found


def test_runs_last_until_the_next_frame_and_leave_out_the_background() -> None:
    found = runs(frames("11.22"), np.array([0.0, 0.5, 1.0, 1.5, 2.0]), without=BACKGROUND)
    assert found.label_S.tolist() == [1, 2]
    assert list(zip(found.start_seconds_S, found.end_seconds_S, strict=True)) == [(0.0, 1.0), (1.5, 2.5)]


def test_runs_follow_the_times_of_the_frames_not_their_number() -> None:
    found = runs(frames("1122"), np.array([0.0, 0.1, 3.0, 3.1]))
    assert found.end_seconds_S.tolist() == [3.0, pytest.approx(3.2)]


def test_a_single_frame_is_a_run() -> None:
    found = runs(frames("1"), np.array([2.0]))
    assert (found.label_S.tolist(), found.start_seconds_S.tolist()) == ([1], [2.0])


@pytest.mark.parametrize(
    ("called", "truth", "score"),
    [
        ([1, 2, 1], [1, 2, 1], 100),
        ([1, 2, 1], [1, 2], 100 * (1 - 1 / 3)),  # one too many
        ([2, 1], [1, 2], 0),  # both replaced
        ([1, 3, 2], [1, 2], 100 * (1 - 1 / 3)),
        ([1, 2, 3, 4], [2, 3, 4, 1], 100 * (1 - 2 / 4)),  # 1 taken away in front, put on at the end
        ([], [1, 2], 0),
        ([1], [], 0),
        ([], [], 100),
    ],
)
def test_edit_is_the_share_of_labels_that_stand_where_they_should(
    called: list[int], truth: list[int], score: float
) -> None:
    assert edit_score(np.array(called), np.array(truth)) == pytest.approx(score)


def test_edit_does_not_care_how_long_a_segment_is() -> None:
    assert of_clips(("12222222", "11111112")).edit == 100


def test_edit_is_the_mean_over_clips_and_f1_is_of_all_counts_together() -> None:
    """One clip with one segment, right; one with four of which none is."""
    found = of_clips(("1111", "1111"), ("2323", "1212"))
    assert found.edit == pytest.approx((100 + edit_score(np.array([2, 3, 2, 3]), np.array([1, 2, 1, 2]))) / 2)
    assert (found.num_called, found.num_true) == (5, 5)
    assert found.f1_at_50 == pytest.approx(100 * 2 * 1 / (5 + 5))


@pytest.mark.parametrize(
    ("called", "f1"),
    [
        ("1111111111", (100, 100, 100)),
        ("111111111.", (100, 100, 100)),  # 9/10
        (".....11111", (100, 100, 100)),  # 5/10: just enough
        ("......1111", (100, 100, 0)),  # 4/10
        ("........11", (100, 0, 0)),  # 2/10
        (".........1", (100, 0, 0)),  # 1/10: just enough
        ("2222222222", (0, 0, 0)),  # where, but not what
        ("..........", (0, 0, 0)),
    ],
)
def test_a_segment_is_right_if_it_overlaps_its_truth_by_so_much(called: str, f1: tuple[float, float, float]) -> None:
    found = of_clips((called, "1111111111"))
    assert (found.f1_at_10, found.f1_at_25, found.f1_at_50) == pytest.approx(f1)


def test_each_truth_is_used_once() -> None:
    """Two halves of one segment: the first one hits, the second is a false alarm (1 hit of 2 called and 1 true)."""
    found = of_clips(("11111.1111", "1111111111"))
    assert found.f1_at_25 == pytest.approx(100 * 2 * 1 / (2 + 1))


def test_a_called_segment_over_two_truths_is_right_by_the_one_it_overlaps_most() -> None:
    called, truth = frames("1111111111"), frames("11.1111111")
    seconds_T = np.arange(10.0)
    ours, theirs = (runs(label_T, seconds_T, without=BACKGROUND) for label_T in (called, truth))
    assert num_matched(ours, theirs, overlap=0.5) == 1  # 7/10, not 2/10
    assert num_matched(ours, theirs, overlap=0.75) == 0


def test_frames_without_a_label_count_in_neither() -> None:
    assert of_clips(("11222", "11???")) == of_clips(("11...", "11..."))


def test_background_alone_called_for_background_alone_is_perfect() -> None:
    found = of_clips(("....", "...."))
    assert (found.edit, found.f1_at_50, found.num_true) == (100, 100, 0)


def test_without_a_background_every_label_is_a_segment() -> None:
    found = segment_metrics([frames("..11")], [frames("..11")], [np.arange(4.0)], background_index=None)
    assert found is not None and found.num_true == 2


def test_there_are_no_figures_where_no_frame_has_a_label() -> None:
    assert segment_metrics([frames("1")], [frames("?")], [np.zeros(1)], background_index=None) is None


def test_intervals_draw_clips() -> None:
    found = of_clips(("1111", "1111"), ("2222", "1111"), groups=["x", "y"])
    assert found.intervals.keys() == {"edit", "f1_at_10", "f1_at_25", "f1_at_50"}
    assert found.intervals["f1_at_50"] == (0, 100)


labels = st.lists(st.integers(0, 3), min_size=1, max_size=15)


@given(labels, st.lists(st.integers(1, 20), min_size=15, max_size=15))
def test_what_is_called_as_it_is_true_is_perfect_at_any_times(label_T: list[int], steps: list[int]) -> None:
    seconds_T = np.cumsum(steps[: len(label_T)]) / 7
    found = segment_metrics([np.array(label_T)], [np.array(label_T)], [seconds_T], background_index=BACKGROUND)
    assert found is not None
    assert (found.edit, found.f1_at_10, found.f1_at_50) == (100, 100, 100)


@given(labels, labels)
def test_edit_is_the_same_from_both_sides_and_between_0_and_100(left: list[int], right: list[int]) -> None:
    score = edit_score(np.array(left), np.array(right))
    assert score == edit_score(np.array(right), np.array(left))
    assert 0 <= score <= 100
