"""vidseq.sandbox.protocol: what is written is read again, and what a child makes up is refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseq.sandbox.protocol import (
    MOST_BYTES,
    MOST_FRAMES,
    Ask,
    Ended,
    Failed,
    Garbled,
    Hello,
    Job,
    Look,
    Outcome,
    Reason,
    Shown,
    Step,
    Told,
    read,
)

numbers = st.floats(allow_nan=False, allow_infinity=False)
words = st.integers(0, 2**32 - 1)
long_words = st.integers(0, 2**64 - 1)
TOLD = st.one_of(
    st.builds(
        Hello, words, st.booleans(), numbers, numbers, st.binary(min_size=4, max_size=4), numbers, numbers
    ),
    st.builds(
        Step, st.lists(numbers, max_size=MOST_FRAMES).map(tuple), st.booleans(), st.booleans(), words, words, numbers
    ),
    st.builds(Shown, st.sampled_from(Outcome), words, words, long_words),
    st.builds(Failed, st.sampled_from(Reason)),
    st.builds(Ended, st.integers(-(2**31), 2**31 - 1)),
)  # fmt: skip


@given(told=TOLD)
def test_what_is_told_is_read_as_it_was(told: Told) -> None:
    assert read(told.pack()) == told
    assert len(told.pack()) <= MOST_BYTES


@given(job=st.builds(Job, st.booleans(), st.booleans(), st.integers(0, 255), words, words, long_words, long_words))
def test_a_job_is_read_as_it_was(job: Job) -> None:
    assert Job.unpack(job.pack()) == job


@given(ask=st.builds(Ask, numbers, st.integers(0, 255), st.booleans(), st.booleans(), st.booleans()))
def test_an_ask_is_read_as_it_was(ask: Ask) -> None:
    assert Ask.unpack(ask.pack()) == ask


@given(look=st.builds(Look, long_words, long_words))
def test_a_look_is_read_as_it_was(look: Look) -> None:
    assert Look.unpack(look.pack()) == look


def understood(message: bytes) -> bool:
    try:
        return read(message) is not None
    except Garbled:
        return False


@given(message=st.binary(max_size=MOST_BYTES))
def test_any_bytes_are_a_message_or_garbled(message: bytes) -> None:
    assert understood(message) in (True, False)


@given(told=TOLD, cut=st.integers(1, 40))
def test_a_message_that_is_cut_short_or_goes_on_is_garbled(told: Told, cut: int) -> None:
    message = told.pack()
    assert not understood(message[:-cut])
    assert not understood(message + bytes(cut))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_garbled(number: float) -> None:
    assert not understood(Step((0.0, number)).pack())
    assert not understood(Hello(0, True, width=number, four_letters=b"h264").pack())


def test_a_reason_that_nobody_knows_is_garbled() -> None:
    assert not understood(b"\3\0")
    assert not understood(b"\3\xff")


def test_an_outcome_that_nobody_knows_is_garbled() -> None:
    assert understood(Shown(Outcome.NO_PICTURE).pack())
    assert not understood(b"\5\xff" + Shown(Outcome.NO_PICTURE).pack()[2:])
