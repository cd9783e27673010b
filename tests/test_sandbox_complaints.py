"""vidseq.sandbox.complaints: what a decoder prints is counted and told in plain characters, and never waited for."""

import os
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseq.sandbox.complaints import MOST_KINDS, MOST_LETTERS, Complaints


def after(said: bytes) -> tuple[int, tuple[str, ...], bool]:
    complaints = Complaints()
    os.write(complaints.write_fd, said)
    complaints.listen()
    complaints.close()
    return complaints.count, complaints.warnings, complaints.of_memory


def test_nothing_said_is_no_warning() -> None:
    assert after(b"") == (0, (), False)


def test_lines_are_counted_and_their_kinds_told_once() -> None:
    count, warnings, _ = after(b"[OPENCV:FFMPEG:16] Invalid NAL unit size (9 > 7).\n[h264 @ 0x5d0] no frame!\n" * 600)
    assert (count, warnings) == (
        1200,
        ("the decoder complained 1,200 times: Invalid NAL unit size (# > #); no frame!",),
    )


def test_what_is_said_of_our_own_lists_is_no_complaint() -> None:
    assert after(b"[OPENCV:FFMPEG:16] Codec (aac) not on whitelist 'h264'\n") == (0, (), False)


@pytest.mark.parametrize(
    "line", [b"get_buffer() failed\n", b"x: Cannot allocate memory\n", b"what():  std::bad_alloc\n"]
)
def test_want_of_memory_is_noticed(line: bytes) -> None:
    assert after(line)[2]


@given(said=st.binary(max_size=4000))
def test_whatever_is_said_a_warning_is_short_and_plain(said: bytes) -> None:
    _, warnings, _ = after(said)
    assert all(warning.isascii() and warning.isprintable() for warning in warnings)
    assert all(len(warning) < 60 + MOST_KINDS * (MOST_LETTERS + 2) for warning in warnings)


def test_who_says_too_much_does_not_wait_and_is_heard_again_later() -> None:
    complaints = Complaints()
    with suppress(BlockingIOError):
        while os.write(complaints.write_fd, b"again\n" * 100):
            pass
    complaints.listen()
    heard = complaints.count
    os.write(complaints.write_fd, b"once more\n")
    complaints.listen()
    complaints.close()
    assert complaints.count > heard > 1000
