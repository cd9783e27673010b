"""Streams through the engine: any cutting into pushes gives the one-shot answer, whatever is stored in between."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.toy_streams import assert_same, chunked, labels, picture, pushed, raw, run, toy_frames, toy_live
from vidseq.config import MAX_SECONDS, Calibration, MotionConfig, Sampling, StreamRules
from vidseq.errors import NothingSampled, OfflineOnly, StateError
from vidseq.live import Live
from vidseq.messages import StreamOptions
from vidseq.segments import Automaton, Run

FRAMES = toy_frames(60, frames_per_second=10)
SURER_WITH_TIME = Calibration(elapsed_seconds=(0.0, 1.0, 3.0), temperatures=(3.0, 1.0, 0.1))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory):
    with toy_live(
        tmp_path_factory.mktemp("live"), cell="lstm", readout="attention", calibration=SURER_WITH_TIME
    ) as live:
        yield live


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory):
    with toy_live(
        tmp_path_factory.mktemp("late"),
        lookahead_seconds=0.5,
        several=True,
        calibration=SURER_WITH_TIME,
        motion=MotionConfig(grid=3, channels=32, pooled=True),
    ) as live:
        yield live


@settings(max_examples=20)
@given(sizes=st.lists(st.integers(1, 23), min_size=1, max_size=8), stored=st.booleans())
def test_any_pushes_give_the_labels_of_one(live: Live, sizes: list[int], stored: bool) -> None:
    between = (lambda session: live.from_bytes(live.to_bytes(session))) if stored else (lambda session: session)
    whole, _ = run(pushed(live, [FRAMES]))
    parts, session = run(pushed(live, chunked(FRAMES, sizes), between=between))
    assert_same(labels(parts), labels(whole))
    assert session.sequence == len(parts) == len({applied.sequence for applied in parts})


@settings(max_examples=10)
@given(sizes=st.lists(st.integers(1, 23), min_size=1, max_size=8))
def test_with_a_lookahead_and_with_motion_too(late: Live, sizes: list[int]) -> None:
    def stored(session):
        return late.from_bytes(late.to_bytes(session))

    whole, one = run(pushed(late, [FRAMES]))
    parts, other = run(pushed(late, chunked(FRAMES, sizes), between=stored))
    assert_same(labels(parts), labels(whole))
    finals = [late.end(session, options=StreamOptions(), video=None, seen_until=None) for session in (one, other)]
    assert_same(finals[0].labels, finals[1].labels)
    assert len(finals[0].labels) == 4  # half a second at 8 frames a second


def test_many_streams_at_once_say_what_each_would_say_alone(live: Live) -> None:
    streams = [toy_frames(40, first=100 * index) for index in range(12)]

    async def together():
        return await asyncio.gather(
            *(pushed(live, chunked(frames, [index + 1])) for index, frames in enumerate(streams))
        )

    for frames, (answers, _) in zip(streams, run(together()), strict=True):
        alone, _ = run(pushed(live, [frames]))
        assert_same(labels(answers), labels(alone))


def test_time_elapses_from_the_first_frame_of_a_stream_however_it_is_stored(live: Live) -> None:
    """A temperature of a thirtieth after three seconds: what is stored in between must know when it began."""
    parts, session = run(
        pushed(live, chunked(FRAMES, [1]), between=lambda session: live.from_bytes(live.to_bytes(session)))
    )
    early, late = (
        max(m.action.score for m in labels(parts) if (m.seconds >= 3) == is_late) for is_late in (False, True)
    )
    assert late > early + 0.1, "an untrained model is sure of nothing but by its temperature"
    assert live.actions(session) == (labels(parts)[-1].action,)
    assert live.actions(live.start()) == ()


def test_a_session_is_a_few_kilobytes(live: Live) -> None:
    _, session = run(pushed(live, [FRAMES]))
    assert len(live.to_bytes(session)) < 4096


def test_a_reset_begins_a_new_video(live: Live) -> None:
    options = StreamOptions(rules=StreamRules(gap="reset"))
    later = toy_frames(20, first=200)  # at 20 seconds, after 14 of nothing
    answers, _ = run(pushed(live, [FRAMES, later], options=options))
    alone, _ = run(pushed(live, [later]))
    assert [notice.kind for notice in answers[1].notices] == ["gap"]
    found, expected = labels(answers[1:]), labels(alone)
    assert [moment.frame.score for moment in found[1:]] == pytest.approx(
        [moment.frame.score for moment in expected[1 : len(found)]], abs=1e-5
    )


def test_a_reset_closes_what_was_open(live: Live) -> None:
    options = StreamOptions(rules=StreamRules(gap="reset"))
    answers, _ = run(pushed(live, [FRAMES, toy_frames(1, first=500)], options=options))
    _, before = run(pushed(live, [FRAMES]))
    expected = live.end(before, options=options, video=None, seen_until=None)
    told = [change.segment for change in answers[1].segments if change.change == "closed"]
    assert told == [change.segment for change in expected.segments]


def test_what_a_reset_closes_does_not_reach_into_the_new_video(live: Live) -> None:
    """At 8 looked at a second the last frame would hold until 1.225 s, and the next is there at 1.15 s."""
    before = [raw(picture(number), seconds) for number, seconds in enumerate((0.9, 1.1))]
    options = StreamOptions(rules=StreamRules(size="reset"))
    answers, _ = run(pushed(live, [before, [raw(picture(2, height=48), 1.15)]], options=options))
    (*_, last) = [change.segment for change in answers[1].segments if change.change == "closed"]
    assert last.end_seconds == 1.15


def test_memory_that_fades_is_between_kept_and_lost(live: Live) -> None:
    later = toy_frames(1, first=200)
    scores = {}
    for rule in ("carry_on", "decay", "reset"):
        options = StreamOptions(rules=StreamRules.model_validate({"gap": rule, "half_life_seconds": 14.0}))
        answers, _ = run(pushed(live, [FRAMES, later], options=options))
        scores[rule] = answers[1].labels[0].action.score
    assert len(set(scores.values())) == 3


def test_frames_that_waited_beyond_their_deadline_are_dropped_and_told(live: Live) -> None:
    options = StreamOptions(deadline_seconds=0.5)
    answers, session = run(pushed(live, [FRAMES[:5]], options=options))  # born at 0 of the clock: long ago
    assert answers[0].labels == ()
    assert [(notice.kind, notice.num_frames) for notice in answers[0].notices] == [("late", 4)]
    assert session.track.num_frames == 0


@pytest.mark.parametrize("seconds", [-MAX_SECONDS, 0.0, MAX_SECONDS])
def test_the_furthest_times_are_labelled_and_kept(live: Live, seconds: float) -> None:
    frames = [[raw(picture(0), -MAX_SECONDS)], [raw(picture(1), seconds)]]
    _, session = run(pushed(live, frames, between=lambda session: live.from_bytes(live.to_bytes(session))))
    final = live.end(session, options=StreamOptions(), video=None, seen_until=session.pace.seen_until)
    assert final.prediction.sampled.end_seconds == seconds


@pytest.mark.parametrize("seconds", [1e308, -1e308, float("nan"), 1.7e12])
def test_no_frame_has_a_time_that_cannot_be_reckoned_with(seconds: float) -> None:
    """The last are milliseconds since 1970, which are a mistake."""
    with pytest.raises(ValidationError, match="seconds"):
        raw(picture(0), seconds)


def test_the_end_says_what_the_last_label_said(live: Live) -> None:
    answers, session = run(pushed(live, chunked(FRAMES, [7])))
    final = live.end(session, options=StreamOptions(top_k=2), video=None, seen_until=session.pace.seen_until)
    assert final.prediction.action == labels(answers)[-1].action
    assert len(final.prediction.top) == 2
    assert final.prediction.sampled.num_frames == len(labels(answers))
    assert final.prediction.frames == () and final.prediction.segments == ()


def test_a_stream_without_a_frame_has_no_end(live: Live) -> None:
    with pytest.raises(NothingSampled, match="before a frame"):
        live.end(live.start(), options=StreamOptions(), video=None, seen_until=None)


def test_a_session_of_another_model_is_refused(live: Live, late: Live) -> None:
    _, session = run(pushed(live, [FRAMES[:5]]))
    with pytest.raises(StateError):
        late.from_bytes(live.to_bytes(session))


@given(data=st.binary(max_size=200))
def test_bytes_that_are_no_session_are_refused(live: Live, data: bytes) -> None:
    with pytest.raises(StateError):
        live.from_bytes(data)


@given(position=st.integers(0, 10_000), byte=st.integers(1, 255))
def test_a_session_with_a_changed_byte_is_refused_or_still_usable(live: Live, position: int, byte: int) -> None:
    """The store is trusted and tokens are sealed; still, nothing that comes in may break more than its own stream."""
    _, session = run(pushed(live, [FRAMES[:3]]))
    data = bytearray(live.to_bytes(session))
    data[position % len(data)] ^= byte
    try:
        changed = live.from_bytes(bytes(data))
    except StateError:
        return
    answers, _ = run(resumed(live, changed))
    assert len(answers.labels) <= 1


@pytest.mark.parametrize("label", [-1, 3, 10**9])
def test_a_session_within_a_label_that_the_model_does_not_have_is_refused(live: Live, label: int) -> None:
    _, session = run(pushed(live, [FRAMES[:3]]))
    automaton = Automaton(run=Run(label, 0.0, 0.5, 0.9, 1), is_open=True)
    other = replace(session, track=replace(session.track, automaton=automaton))
    with pytest.raises(StateError, match="labels that this model does not have"):
        live.from_bytes(live.to_bytes(other))


async def resumed(live: Live, session):
    return await live.push(session, FRAMES[10:11], options=StreamOptions(), born_seconds=0.0)


def test_a_bidirectional_model_cannot_stream(tmp_path: Path) -> None:
    with pytest.raises(OfflineOnly, match="cannot stream"), toy_live(tmp_path, bidirectional=True):
        pass


def test_where_every_frame_is_taken_the_stream_takes_every_frame(tmp_path: Path) -> None:
    with toy_live(tmp_path, sampling=Sampling(frames_per_second="native")) as live:
        answers, _ = run(pushed(live, [toy_frames(13, frames_per_second=100)]))
    assert len(labels(answers)) == 13


def test_the_numbers_of_a_session_are_json_that_a_person_can_read(live: Live) -> None:
    _, session = run(pushed(live, [[raw(picture(1), 2.5)]]))
    data = live.to_bytes(session)
    plain = json.loads(data[4 : 4 + int.from_bytes(data[:4], "little")])
    assert (plain["sequence"], plain["num_frames"], plain["pace"]["clock"]["last_seconds"]) == (1, 1, 2.5)
