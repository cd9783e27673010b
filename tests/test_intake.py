"""What comes in: which frames are looked at, and what is told of gaps, jumps, sizes, rates and broken pictures."""

import functools
import threading
from concurrent.futures import CancelledError
from dataclasses import replace

import pytest

from tests.toy_streams import encoded, picture, raw, toy_frames
from vidseq.config import Limits, Picture, Sampling, StreamRules
from vidseq.errors import StreamRefused
from vidseq.intake import Intake, Pace, take_frames
from vidseq.messages import Encoded
from vidseq.pictures import decode_picture

SAMPLING = Sampling(frames_per_second=10)


def taken(
    frames: list[Encoded],
    *,
    pace: Pace = Pace(),
    sampling: Sampling = SAMPLING,
    stop: threading.Event | None = None,
    **rules: object,
) -> Intake:
    return take_frames(
        pace,
        frames,
        sampling=sampling,
        rules=StreamRules.model_validate(rules),
        picture=Picture(size=16),
        decode=functools.partial(decode_picture, max_pixels=Limits().max_pixels),
        stop=stop,
    )


def at(*seconds: float) -> list[Encoded]:
    return [raw(picture(index), time) for index, time in enumerate(seconds)]


def kinds(intake: Intake) -> list[tuple[str, str]]:
    return [(notice.kind, notice.effect) for notice in intake.notices]


def times(intake: Intake) -> list[list[float]]:
    return [piece.clip.seconds_T.tolist() for piece in intake.pieces]


def test_frames_between_two_ticks_are_not_looked_at() -> None:
    intake = taken(toy_frames(30, frames_per_second=30))
    assert times(intake) == [[pytest.approx(index / 10) for index in range(10)]]
    assert kinds(intake) == []


def test_a_picture_that_is_not_sampled_is_not_even_decoded() -> None:
    broken = Encoded(encoded(picture(1), 0.01).header, b"no picture")
    assert kinds(taken([*at(0.0), broken, *at(0.1)])) == []


def test_pushes_of_any_size_have_the_same_frames_looked_at() -> None:
    frames, pace, found = toy_frames(31, frames_per_second=17), Pace(), []
    for start in range(0, 31, 3):
        intake = taken(frames[start : start + 3], pace=pace)
        pace, found = intake.pace, found + [time for piece in times(intake) for time in piece]
    assert found == times(taken(frames))[0]


def test_the_next_picture_takes_the_place_of_a_broken_one() -> None:
    broken = Encoded(encoded(picture(1), 0.1).header, b"no picture")
    intake = taken([*at(0.0), broken, *at(0.12, 0.2)])
    assert kinds(intake) == [("undecodable", "dropped")]
    assert times(intake) == [[0.0, 0.12, 0.2]]


def test_broken_pictures_of_one_push_are_told_together() -> None:
    broken = [Encoded(encoded(picture(1), seconds).header, b"no") for seconds in (0.1, 0.2, 0.3)]
    (notice,) = taken([*at(0.0), *broken]).notices
    assert (notice.num_frames, notice.seconds) == (3, 0.1)


def test_a_time_that_runs_backward_is_dropped_and_told() -> None:
    intake = taken(at(0.0, 0.1, 0.05, 0.1, 0.2))
    assert times(intake) == [[0.0, 0.1, 0.2]]
    (notice,) = intake.notices
    assert (notice.kind, notice.effect, notice.num_frames) == ("backward", "dropped", 2)
    assert "0.050 s came after one at 0.100 s" in notice.detail


def test_a_clock_that_jumps_back_may_begin_a_new_video() -> None:
    intake = taken(at(50.0, 50.1, 3.0, 3.1), backward="reset")
    assert kinds(intake) == [("backward", "reset")]
    assert times(intake) == [[50.0, 50.1], [3.0, 3.1]]
    assert [piece.keep for piece in intake.pieces] == [1.0, 0.0]


@pytest.mark.parametrize("start", [0.0, 2.0])
def test_a_reset_is_done_also_where_the_frame_that_brought_it_is_not_looked_at(start: float) -> None:
    """It cannot be decoded, or lies before what is looked at; the next one comes in another push."""
    told = taken(at(50.0, 50.2), backward="reset")
    unseen = [Encoded(encoded(picture(1), 3.0).header, b"no")] if not start else at(0.0, 1.0)
    sampling = Sampling(frames_per_second=10, start_seconds=start)
    between = taken(unseen, pace=told.pace, sampling=sampling, backward="reset")
    assert kinds(between)[0] == ("backward", "reset") and between.pieces == ()
    (piece,) = taken(at(3.2), pace=between.pace, sampling=sampling, backward="reset").pieces
    assert piece.keep == 0.0
    (after,) = taken(at(3.4), pace=taken(at(3.2), pace=between.pace, sampling=sampling).pace, sampling=sampling).pieces
    assert after.keep == 1.0


def test_nothing_is_decoded_for_whoever_has_gone() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(CancelledError):
        taken(at(0.0), stop=stop)


@pytest.mark.parametrize(
    ("rule", "keep"), [("carry_on", 1.0), ("reset", 0.0), ("decay", pytest.approx(0.5 ** (4.9 / 5)))]
)
def test_a_gap_has_the_effect_that_the_rule_says(rule: str, keep: float) -> None:
    intake = taken(at(0.0, 0.1, 5.0, 5.1), gap=rule)
    assert kinds(intake) == [("gap", rule)]
    assert [seconds for piece in times(intake) for seconds in piece] == [0.0, 0.1, 5.0, 5.1]
    assert intake.pieces[-1].keep == keep


def test_after_the_longest_gap_a_memory_has_faded_and_is_not_reset() -> None:
    """A reset is a keep of nothing: it ends what is going on and counts frames anew."""
    (_, after) = taken(at(0.0, 1e6), gap="decay", half_life_seconds=1.0).pieces
    assert 0 < after.keep < 1e-100


def test_a_gap_between_two_pushes_is_seen_too() -> None:
    pace = taken(at(0.0, 0.1)).pace
    assert kinds(taken(at(2.05), pace=pace)) == []
    assert kinds(taken(at(2.2), pace=pace)) == [("gap", "carry_on")]


def test_another_size_is_told_and_the_picture_is_looked_at() -> None:
    large = raw(picture(2, height=48, width=64), 0.1)
    intake = taken([*at(0.0), large])
    assert kinds(intake) == [("size", "carry_on")]
    assert "48 x 32 and are 64 x 48" in intake.notices[0].detail
    assert times(intake) == [[0.0, 0.1]]


def test_a_camera_that_slows_down_is_told_once() -> None:
    fast = [index / 10 for index in range(40)]
    slow = [4 + index / 4 for index in range(60)]
    intake = taken(at(*fast, *slow))
    assert kinds(intake) == [("rate", "carry_on")]
    assert "0.100 s has become one each 0.1" in intake.notices[0].detail


def test_a_rate_that_only_jitters_is_no_change() -> None:
    jittering = [index / 10 + (0.03 if index % 2 else 0) for index in range(100)]
    assert kinds(taken(at(*jittering), sampling=Sampling(frames_per_second="native"))) == []


@pytest.mark.parametrize(
    ("frames", "rule"),
    [
        (at(0.0, 9.0), "gap"),
        (at(1.0, 0.5), "backward"),
        ([*at(0.0), raw(picture(1, height=64), 0.1)], "size"),
        (at(*[index / 10 for index in range(20)], *[2 + index for index in range(20)]), "rate"),
    ],
)
def test_what_a_rule_refuses_is_refused_in_a_sentence(frames: list[Encoded], rule: str) -> None:
    with pytest.raises(StreamRefused, match=f"refuse that .{rule}."):
        taken(frames, **{rule: "refuse"})


def test_nothing_before_the_start_and_nothing_after_the_end_is_looked_at() -> None:
    sampling = replace_interval(start=0.5, end=1.0)
    intake = taken(toy_frames(20), sampling=sampling)
    assert times(intake) == [[pytest.approx(index / 10) for index in range(5, 10)]]


def replace_interval(*, start: float, end: float) -> Sampling:
    return SAMPLING.model_copy(update={"start_seconds": start, "end_seconds": end})


def test_a_stream_is_seen_until_one_interval_after_its_last_frame() -> None:
    assert taken(toy_frames(30, frames_per_second=30)).pace.seen_until == pytest.approx(1.0)
    assert taken(at(4.0)).pace.seen_until is None


def test_an_empty_push_leaves_the_pace_as_it_was() -> None:
    pace = replace(taken(at(0.0, 0.1)).pace)
    assert taken([], pace=pace).pace == pace
