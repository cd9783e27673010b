"""How soon a running action is right and stays so, and how often labels change."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.targets import IGNORED
from training.measure.earliness import Course, detected_at, earliness, num_flips, num_seen


def course(called: str, *, truth: str, group: str = "x", frames_per_second: float = 2) -> Course:
    """One digit a frame; `?` has no label."""
    true_T, called_T = (np.array([IGNORED if s == "?" else int(s) for s in row]) for row in (truth, called))
    return Course(10 + np.arange(len(called)) / frames_per_second, true_T, called_T, group)


def action(called: str, truth: str, group: str = "x") -> Course:
    return course(called, truth=truth * len(called), group=group)


@pytest.mark.parametrize(("num_frames", "seen"), [(1, [1, 1, 1, 1]), (10, [1, 3, 5, 10]), (40, [4, 10, 20, 40])])
def test_a_share_of_a_clip_is_rounded_up_to_frames(num_frames: int, seen: list[int]) -> None:
    assert [num_seen(num_frames, share=share) for share in (0.1, 0.25, 0.5, 1.0)] == seen


@pytest.mark.parametrize(("right", "at"), [("1111", 0), ("0111", 1), ("1011", 2), ("0001", 3), ("1110", None)])
def test_detected_is_what_is_right_from_then_on(right: str, at: int | None) -> None:
    assert detected_at(np.array([sign == "1" for sign in right])) == at


def test_accuracy_rises_with_what_has_been_seen() -> None:
    found = earliness(actions=[action("0000000001", "1"), action("0011111111", "1")], frames=[])
    assert [(row.share_seen, row.accuracy) for row in found.accuracy_seen] == [
        (0.1, 0),
        (0.25, 0.5),
        (0.5, 0.5),
        (1, 1),
    ]


def test_the_time_to_detect_is_the_median_of_the_clips_that_are_right_in_the_end() -> None:
    clips = [action("0111", "1", "x"), action("0001", "1", "y"), action("0011", "1", "z"), action("1110", "1", "w")]
    found = earliness(actions=clips, frames=[])
    assert found.share_detected == 0.75
    assert found.seconds_to_detect == 1.0, "of 0.5, 1.5 and 1.0 seconds"
    low, high = found.intervals["seconds_to_detect"]
    assert (low, high) == (0.5, 1.5)


def test_nothing_detected_takes_no_time() -> None:
    found = earliness(actions=[action("10", "1")], frames=[])
    assert (found.share_detected, found.seconds_to_detect) == (0, None)


def test_flips_are_counted_over_the_minutes_of_all_clips() -> None:
    """Three flips in 1.5 seconds, none in 3."""
    found = earliness(actions=[action("0101", "1"), action("1111111", "1")], frames=[])
    assert found.action_flips_per_minute == pytest.approx(3 / (4.5 / 60))


def test_flips_of_frame_labels_stand_beside_those_of_the_truth() -> None:
    found = earliness(actions=[], frames=[course("0101110", truth="0011000")])
    assert found.frame_flips_per_minute == pytest.approx(4 / (3 / 60))
    assert found.true_frame_flips_per_minute == pytest.approx(2 / (3 / 60))
    assert found.accuracy_seen == () and found.share_detected is None


def test_what_happens_around_a_frame_without_a_label_is_no_flip() -> None:
    clip = course("01011", truth="1??11")
    assert num_flips(clip.called_T, clip.true_T != IGNORED) == 0
    assert num_flips(clip.true_T, clip.true_T != IGNORED) == 0


def test_clips_of_one_frame_flip_never_and_last_no_time() -> None:
    assert earliness(actions=[action("1", "1")], frames=[]).action_flips_per_minute is None


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_from_the_detection_on_all_is_right_and_just_before_it_is_not(right: list[bool]) -> None:
    at = detected_at(np.array(right))
    assert (at is None) == (not right[-1])
    first = len(right) if at is None else at
    assert all(right[first:])
    assert first == 0 or not right[first - 1]
