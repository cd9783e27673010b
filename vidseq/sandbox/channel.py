"""Asking a child and hearing its answer, in time: whatever becomes of it is a typed error here. Knows no pictures."""

import select
import signal
import socket
import struct
import time
from contextlib import suppress
from typing import TypeVar

from vidseq.config import Limits
from vidseq.errors import DecoderCrashed, OutOfMemory, SandboxError, TooSlow, UndecodableVideo, VideoError, VidseqError
from vidseq.sandbox.complaints import Complaints
from vidseq.sandbox.protocol import MOST_BYTES, Ask, Ended, Failed, Garbled, Hello, Look, Reason, Shown, Step, read

LISTEN_EVERY = 32  # answers: what is complained of in between fits into a pipe
_LOOKS = 10  # at the pipe of a clip that arrives, within the time that a frame may take

Expected = TypeVar("Expected", Hello, Step, Shown)


class Channel:
    """The caller's end, with what the child complains of. Closing it is the child's end: the server kills it.

    Args:
        arriving: the descriptor of the pipe through which the clip comes; None for a whole file. As long as it is
            empty the child waits for somebody else, and no time counts.
    """

    def __init__(self, limits: Limits, *, arriving: int | None) -> None:
        self.complaints = Complaints()
        self._limits = limits
        self._arriving = arriving
        self._waited_seconds = 0.0
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._num_heard = 0

    @property
    def waited_seconds(self) -> float:
        """For all answers together."""
        return self._waited_seconds

    @property
    def quiet(self) -> bool:
        """Nothing was said that nobody has heard yet, as by a child that has ended."""
        return not _has_bytes(self._ours.fileno())

    def begun(self) -> None:
        """The other ends are the child's alone."""
        self.theirs.close()
        self.complaints.close_writing_end()

    def send(self, ask: Ask | Look) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # what became of the child is in what is heard last
            self._ours.send(ask.pack())

    def hear(self, expected: type[Expected]) -> Expected:
        """The next answer. Raises DecoderCrashed, TooSlow, OutOfMemory, UndecodableVideo, SandboxError."""
        message = self._receive()
        self._num_heard += 1
        if self._num_heard % LISTEN_EVERY == 0:
            self.complaints.listen()
        try:
            told = read(message) if message else None
        except Garbled:
            raise DecoderCrashed("the decoder's process has been taken over: it said what no decoder says") from None
        if isinstance(told, expected):
            return told
        self.complaints.listen()
        if told is None:
            raise DecoderCrashed("the decoder's process was ended, and its server with it")
        if isinstance(told, Ended):
            raise self._why_ended(told.status)
        raise self._why_failed(told.reason if isinstance(told, Failed) else Reason.BROKEN)

    def check_memory(self) -> None:
        """Where decoding has ended, which FFmpeg also does without a word for want of memory."""
        self.complaints.listen()
        if self.complaints.of_memory:
            raise self._no_memory()

    def close(self) -> None:
        self._ours.close()
        self.begun()
        self.complaints.close()

    def _receive(self) -> bytes:
        """The next message, none if nobody is left who could send one. Raises TooSlow."""
        stall_seconds, total_seconds = self._limits.max_stall_seconds, self._limits.max_decode_seconds
        left_seconds = total_seconds - self._waited_seconds
        if self._arriving is not None:  # of these the kernel alone counts what decoding takes in all
            return self._receive_while_arriving(self._arriving, stall_seconds)
        began = time.monotonic()
        message = self._received(within_seconds=min(stall_seconds, left_seconds))
        self._waited_seconds += time.monotonic() - began
        if message is None and left_seconds < stall_seconds:
            raise TooSlow(f"decoding took longer than {total_seconds:g} seconds (max_decode_seconds)")
        return self._in_time(message)

    def _receive_while_arriving(self, pipe: int, stall_seconds: float) -> bytes:
        """As long as the pipe is found empty now and then, the child does not sit on what has come."""
        num_full = 0
        while (message := self._received(within_seconds=stall_seconds / _LOOKS)) is None and num_full < _LOOKS:
            num_full = num_full + 1 if _has_bytes(pipe) else 0
        return self._in_time(message)

    def _in_time(self, message: bytes | None) -> bytes:
        if message is None:
            limit = self._limits.max_stall_seconds
            raise TooSlow(f"decoding took longer than {limit:g} seconds for one frame (max_stall_seconds)")
        return message

    def _received(self, *, within_seconds: float) -> bytes | None:
        """None: nothing came in time."""
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(within_seconds))
        with suppress(ConnectionResetError):  # told once, when the other side left without having read all
            with suppress(BlockingIOError):
                return self._ours.recv(MOST_BYTES)
            return None
        return self._ours.recv(MOST_BYTES)  # what it had said before, or that it is gone

    def _why_ended(self, status: int) -> VideoError:
        if self.complaints.of_memory:
            return self._no_memory()
        number = status & 0x7F
        if number == signal.SIGXCPU:
            limit = self._limits.max_decode_seconds
            return TooSlow(f"decoding took longer than {limit:g} seconds of a CPU (max_decode_seconds)")
        if number == signal.SIGKILL:
            return DecoderCrashed("the decoder's process was killed, perhaps because the machine ran out of memory")
        how = signal.Signals(number).name if number else f"status {status >> 8}"
        return DecoderCrashed(f"the decoder crashed on the video ({how})")

    def _why_failed(self, reason: Reason) -> VidseqError:
        if reason is Reason.NO_MEMORY:
            return self._no_memory()
        if reason is Reason.NO_PIXELS:
            return UndecodableVideo("a frame was decoded but cannot be converted to pixels")
        if reason is Reason.NO_PROCESS:
            return SandboxError("no process for a decoder can be had: this machine has too many, or too little memory")
        return DecoderCrashed("the decoder's process failed on the video")

    def _no_memory(self) -> OutOfMemory:
        limit = self._limits.max_decoder_bytes
        return OutOfMemory(f"decoding the video needs more than {limit:,} bytes of memory (max_decoder_bytes)")


def _timeval(seconds: float) -> bytes:
    """struct timeval; of zero seconds it would mean for ever."""
    microseconds = max(1, round(1_000_000 * seconds))
    return struct.pack("@ll", *divmod(microseconds, 1_000_000))


def _has_bytes(pipe: int) -> bool:
    waiting = select.poll()
    waiting.register(pipe, select.POLLIN)
    return bool(waiting.poll(0))
