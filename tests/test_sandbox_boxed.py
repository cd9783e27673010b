"""vidseq.sandbox.boxed: whatever a child that was taken over says, its own clip has a typed error, and nothing else."""

import os
import socket
from collections.abc import Callable, Sequence

import pytest

from tests.open_files import none_stays_open
from vidseq.config import Limits, Picture
from vidseq.errors import DecoderCrashed, OutOfMemory, SandboxError, TooSlow, UndecodableVideo, VidseqError
from vidseq.sandbox.boxed import BoxedDecoder
from vidseq.sandbox.protocol import Ended, Failed, Hello, Job, Reason, Step

PICTURE = Picture(size=16)
HELLO = Hello(0, True, 96.0, 64.0, b"h264", 12.0, 10.0).pack()
FILLED = Step((0.0,), filled=True, height=16, width=16)


def begin_saying(*messages: bytes, words: bytes = b"") -> Callable[[Job, Sequence[int]], None]:
    """Takes a job as the server would, and says these messages, whatever will be asked."""

    def begin(job: Job, fds: Sequence[int]) -> None:
        os.write(fds[3], words)
        with socket.socket(fileno=os.dup(fds[1])) as channel:
            for message in messages:
                channel.send(message)

    return begin


def decode(begin: Callable[[Job, Sequence[int]], None], *, whole: bool = False, limits: Limits = Limits()) -> None:
    """Asks for one picture; a test that gets one has failed."""
    picture = None if whole else PICTURE
    with open(os.devnull, "rb") as clip:
        decoder = BoxedDecoder(clip.fileno(), arriving=False, picture=PICTURE, limits=limits, begin=begin)
        try:
            if decoder.grab(picture, 0.0):
                decoder.picture(picture, 1.0)
        finally:
            decoder.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"\2",
        b"\2" + b"\xff" * 40,
        bytes(2048),
        os.urandom(64),
        HELLO,
        Step(()).pack(),
        FILLED._replace(height=1 << 31).pack(),
        FILLED._replace(width=17).pack(),
        FILLED._replace(height=0).pack(),
        Step((float("nan"),)).pack(),
    ],
    ids=["short", "long", "zeros", "noise", "hello again", "nothing", "too high", "too wide", "flat", "nan"],
)
def test_an_answer_that_no_decoder_gives_is_a_crash(answer: bytes) -> None:
    with pytest.raises(DecoderCrashed):
        decode(begin_saying(HELLO, answer))


@pytest.mark.parametrize(("height", "width"), [(1 << 16, 1 << 16), (0, 10), (4096, 4096)])
def test_a_whole_picture_that_does_not_fit_into_its_slot_is_a_crash(height: int, width: int) -> None:
    answer = FILLED._replace(height=height, width=width).pack()
    with pytest.raises(DecoderCrashed):
        decode(begin_saying(HELLO, answer), whole=True)


@pytest.mark.parametrize(
    ("answers", "error", "words"),
    [
        ((), DecoderCrashed, "its server with it"),
        ((HELLO, Ended(11).pack()), DecoderCrashed, "SIGSEGV"),
        ((HELLO, Ended(9).pack()), DecoderCrashed, "killed"),
        ((HELLO, Ended(1 << 8).pack()), DecoderCrashed, "status 1"),
        ((HELLO, Ended(24).pack()), TooSlow, "3600 seconds of a CPU"),
        ((HELLO, Failed(Reason.NO_MEMORY).pack()), OutOfMemory, "1,073,741,824 bytes"),
        ((HELLO, Failed(Reason.NO_PIXELS).pack()), UndecodableVideo, "converted to pixels"),
        ((Failed(Reason.NO_PROCESS).pack(),), SandboxError, "no process"),
        ((HELLO, Failed(Reason.BROKEN).pack()), DecoderCrashed, "failed on the video"),
    ],
)
def test_each_end_has_an_error_of_its_own(answers: Sequence[bytes], error: type[VidseqError], words: str) -> None:
    with pytest.raises(error, match=words):
        decode(begin_saying(*answers))


def test_an_end_for_want_of_memory_is_no_end_of_the_video() -> None:
    with pytest.raises(OutOfMemory):
        decode(begin_saying(HELLO, Step((), ended=True).pack(), words=b"get_buffer() failed\n"))


def test_nothing_stays_open_after_any_of_them() -> None:
    with none_stays_open():
        for answers in ((), (HELLO,), (HELLO, b"\2"), (HELLO, Ended(11).pack())):
            with pytest.raises(DecoderCrashed):
                decode(begin_saying(*answers))


def test_of_a_clip_that_arrives_what_has_come_and_is_not_read_is_too_slow() -> None:
    held = []

    def begin_and_sleep(job: Job, fds: Sequence[int]) -> None:
        held.append(socket.socket(fileno=os.dup(fds[1])))
        held[0].send(HELLO)

    pipe, end = os.pipe()
    os.write(end, b"a piece of the clip")
    limits = Limits(max_stall_seconds=0.2)
    decoder = BoxedDecoder(pipe, arriving=True, picture=PICTURE, limits=limits, begin=begin_and_sleep)
    with pytest.raises(TooSlow, match="max_stall_seconds"):
        decoder.grab(PICTURE, 0.0)
    decoder.close()
    held[0].close()
    os.close(pipe)
    os.close(end)
