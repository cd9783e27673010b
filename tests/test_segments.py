"""The automaton: hysteresis, merged gaps, minimum duration, and a fold that equals its steps."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from vidseq.config import SegmentsConfig
from vidseq.schemas import Segment
from vidseq.segments import Automaton, Segmenter

RULES = Segmenter(
    labels=("rest", "wave", "jump"),
    background="rest",
    config=SegmentsConfig(enter_score=0.6, exit_score=0.4, merge_gap_seconds=0.25, min_duration_seconds=0.3),
)
STORED = TypeAdapter(Automaton)


def frames(*waves: float) -> list[tuple[float, list[float]]]:
    """Frames 0.1 s apart in which `wave` has these scores and `rest` the remainder."""
    return [(index / 10, [1 - wave, wave, 0.0]) for index, wave in enumerate(waves)]


def spans(segments: list[Segment]) -> list[tuple[str, float, float]]:
    return [(s.label, round(s.start_seconds, 3), round(s.end_seconds, 3)) for s in segments]


def test_a_segment_opens_at_the_upper_threshold_and_closes_below_the_lower() -> None:
    found = RULES.fold(frames(0.1, 0.5, 0.7, 0.5, 0.45, 0.41, 0.3, 0.5), end_seconds=0.8)
    assert spans(found) == [("wave", 0.2, 0.6)]


def test_a_small_gap_is_merged_and_a_large_one_is_not() -> None:
    small = frames(0.9, 0.9, 0.9, 0.1, 0.1, 0.9, 0.9, 0.9)
    large = frames(0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9)
    assert spans(RULES.fold(small, end_seconds=0.8)) == [("wave", 0.0, 0.8)]
    assert spans(RULES.fold(large, end_seconds=1.0)) == [("wave", 0.0, 0.3), ("wave", 0.7, 1.0)]


def test_what_is_too_short_is_dropped_only_after_merging() -> None:
    flicker = frames(0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1)
    assert spans(RULES.fold(flicker, end_seconds=1.4)) == [("wave", 0.0, 0.5)]


def test_another_label_that_enters_ends_the_one_before() -> None:
    scores = [(index / 10, [0.0, 0.9, 0.1] if index < 4 else [0.0, 0.3, 0.7]) for index in range(8)]
    assert spans(RULES.fold(scores, end_seconds=0.8)) == [("wave", 0.0, 0.4), ("jump", 0.4, 0.8)]


def labels(names: str) -> list[tuple[float, list[float]]]:
    """Frames 0.1 s apart, each surely of one label: `w`ave, `j`ump or `r`est."""
    return [(index / 10, [float(name == label) for label in "rwj"]) for index, name in enumerate(names)]


def test_a_flicker_of_another_label_is_a_gap_like_any_other() -> None:
    assert spans(RULES.fold(labels("wwwwjwwwww"), end_seconds=1.0)) == [("wave", 0.0, 1.0)]
    assert spans(RULES.fold(labels("wwwwjrwwww"), end_seconds=1.0)) == [("wave", 0.0, 1.0)]
    assert spans(RULES.fold(labels("wwwwjjrwww"), end_seconds=1.0)) == [("wave", 0.0, 0.4), ("wave", 0.7, 1.0)]


def test_a_flicker_on_the_way_to_another_label_is_dropped() -> None:
    found = RULES.fold(labels("wwwwjrjjjj"), end_seconds=1.0)
    assert spans(found) == [("wave", 0.0, 0.4), ("jump", 0.4, 1.0)]
    assert spans(RULES.fold(labels("wwwwjrrrrr"), end_seconds=1.0)) == [("wave", 0.0, 0.4)]


def test_a_label_that_lasts_ends_the_one_before_however_large_a_gap_may_be() -> None:
    patient = Segmenter(RULES.labels, "rest", RULES.config.model_copy(update={"merge_gap_seconds": 5.0}))
    found = patient.fold(labels("wwwwjjjjwwww"), end_seconds=1.2)
    assert spans(found) == [("wave", 0.0, 0.4), ("jump", 0.4, 0.8), ("wave", 0.8, 1.2)]


def test_the_background_makes_no_segment() -> None:
    assert RULES.fold(frames(*[0.0] * 20), end_seconds=2.0) == []


def test_a_segments_score_is_the_mean_of_its_frames() -> None:
    (segment,) = RULES.fold(frames(0.8, 0.6, 0.7, 0.5), end_seconds=0.4)
    assert round(segment.score, 6) == 0.65


SCORES = st.lists(st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3), min_size=1, max_size=60)


@given(SCORES)
def test_segments_are_in_order_apart_and_long_enough(scores: list[list[float]]) -> None:
    found = RULES.fold(
        [(i / 10, [s / sum(row) for s in row]) for i, row in enumerate(scores)], end_seconds=len(scores) / 10
    )
    assert all(s.end_seconds - s.start_seconds >= 0.3 and s.label != "rest" for s in found)
    assert all(left.end_seconds <= right.start_seconds for left, right in pairwise(found))


@given(SCORES)
def test_an_automaton_stored_as_json_after_every_frame_gives_the_same_segments(scores: list[list[float]]) -> None:
    rows = [(i / 10, row) for i, row in enumerate(scores)]
    automaton, found = Automaton(), []
    for seconds, row in rows:
        automaton = STORED.validate_json(STORED.dump_json(automaton))
        settled, automaton = RULES.step(automaton, seconds, row)
        found += settled
    assert found + RULES.finish(automaton, 9.0) == RULES.fold(rows, end_seconds=9.0)
