"""What a client has sent and nobody has looked at yet: bounded, and nothing leaves it in silence. Knows no sockets.

put  push push push push  ->  Backlog  ->  take  push | the dropped ones before it, which are answered too
put  bytes of a video     ->  Inflow   ->  take  bytes

when_full   block         the client waits for answers; one that does not is refused
            drop_oldest   the push that has waited longest goes
            thin          every second one goes, then only every second one comes in, every fourth, ...
"""

import asyncio
import hashlib
import time
from collections import deque
from dataclasses import dataclass

from serving.problems import BodyTooLarge, WindowExceeded
from vidseq.errors import OptionError
from vidseq.messages import Notice, unpack_frames

MAX_OWED_PUSHES = 4096  # that may wait for an answer, dropped ones included: a client that reads nothing meets it
MAX_SKIPPED_PUSHES = 64  # that are answered in one step


@dataclass(eq=False)
class Waiting:
    """A push in its place; `dropped` has the digest of one whose content is gone, and what is told of it."""

    push: bytes
    born_seconds: float
    dropped: tuple[bytes, Notice] | None = None

    def drop(self) -> None:
        """Raises OptionError: it is not a push."""
        frames = unpack_frames(self.push)
        detail = "the client is faster than the service"
        notice = Notice(
            kind="dropped", effect="dropped", seconds=frames[0].seconds, num_frames=len(frames), detail=detail
        )
        self.dropped = hashlib.sha256(self.push).digest(), notice
        self.push = b""


class Backlog:
    """Pushes of frames, in the order in which they came.

    Args:
        when_full: what happens when the client is faster than the service.
        max_push_bytes: how large one may be.
        max_pushes: how many may wait, and be labelled.
        max_bytes: how many bytes they may hold together; a push alone may be larger.
    """

    def __init__(self, *, when_full: str, max_push_bytes: int, max_pushes: int, max_bytes: int) -> None:
        self._when_full = when_full
        self._max_push_bytes = max_push_bytes
        self._max_pushes = max_pushes
        self._max_bytes = max_bytes
        self._waiting: deque[Waiting] = deque()  # all
        self._whole: deque[Waiting] = deque()  # those of them that are not dropped
        self._whole_bytes = 0
        self._stride = 1
        self._num_put = 0
        self._ended = False
        self._busy = False
        self._came = asyncio.Event()

    @property
    def owes(self) -> bool:
        """Whether the next word is the service's."""
        return self._ended or self._busy or bool(self._waiting)

    def put(self, push: bytes) -> None:
        """Never waits.

        Raises:
            WindowExceeded: the client does not wait although it said that it would, or does not read its answers.
            BodyTooLarge: it is too large.
            OptionError: it comes after the end; or a push that has to be dropped is none.
        """
        _refuse_after(self._ended)
        if len(push) > self._max_push_bytes:
            raise BodyTooLarge(f"a push of {len(push):,} bytes; at most {self._max_push_bytes:,} are allowed")
        if len(self._waiting) >= MAX_OWED_PUSHES:
            raise WindowExceeded(f"{MAX_OWED_PUSHES:,} pushes wait for their answers, which is the most")
        one = Waiting(push, time.perf_counter())
        self._waiting.append(one)
        self._whole.append(one)
        self._whole_bytes += len(push)
        if self._num_put % self._stride:
            self._drop(self._whole.pop())
        self._num_put += 1
        while self._full and len(self._whole) > 1:
            self._make_room()
        self._came.set()

    def end(self) -> None:
        """No more will come."""
        self._ended = True
        self._came.set()

    async def take(self) -> Waiting | list[tuple[bytes, Notice]] | None:
        """The next push, or the dropped ones that stand before it: digest and notice of each. None after the last."""
        self._busy = False
        while not self._waiting:
            if self._ended:
                return None
            self._came.clear()
            await self._came.wait()
        self._busy = True
        if self._waiting[0].dropped is not None:
            return self._take_dropped()
        one = self._waiting.popleft()
        assert self._whole.popleft() is one, "the first that is whole is the first of all"
        self._whole_bytes -= len(one.push)
        if not self._whole:  # the service has caught up
            self._stride = max(1, self._stride // 2)
        return one

    def _take_dropped(self) -> list[tuple[bytes, Notice]]:
        taken: list[tuple[bytes, Notice]] = []
        while self._waiting and (dropped := self._waiting[0].dropped) and len(taken) < MAX_SKIPPED_PUSHES:
            taken.append(dropped)
            self._waiting.popleft()
        return taken

    @property
    def _full(self) -> bool:
        return len(self._whole) > self._max_pushes or self._whole_bytes > self._max_bytes

    def _make_room(self) -> None:
        if self._when_full == "block":
            raise WindowExceeded(
                f"{len(self._whole)} pushes with {self._whole_bytes:,} bytes came before they could be answered; "
                f"at most {self._max_pushes} with {self._max_bytes:,} may be on their way"
            )
        if self._when_full == "drop_oldest":
            self._drop(self._whole.popleft())
            return
        self._stride *= 2
        kept: deque[Waiting] = deque()
        for number, one in enumerate(self._whole):
            if number % 2:
                self._drop(one)
            else:
                kept.append(one)
        self._whole = kept

    def _drop(self, one: Waiting) -> None:
        self._whole_bytes -= len(one.push)
        one.drop()


class Inflow:
    """Bytes of a video, in any pieces: at most `max_bytes` have come and not been passed on to the decoder."""

    def __init__(self, *, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._held = bytearray()
        self._num_ahead = 0
        self._ended = False
        self._came = asyncio.Event()
        self.num_passed = 0

    def put(self, piece: bytes) -> None:
        """Raises WindowExceeded: the client has not waited for Received; and OptionError: it comes after the end."""
        _refuse_after(self._ended)
        self._num_ahead += len(piece)
        if self._num_ahead > self.max_bytes:
            raise WindowExceeded(
                f"{self._num_ahead:,} bytes came that the decoder has not taken; at most {self.max_bytes:,} may"
            )
        self._held += piece
        self._came.set()

    def end(self) -> None:
        """No more will come."""
        self._ended = True
        self._came.set()

    @property
    def owes(self) -> bool:
        """Whether the next word is the service's: labels, or leave to send more."""
        return self._ended or self._num_ahead > 0

    async def take(self, *, max_bytes: int) -> bytes:
        """The next bytes; b"" after the last."""
        while not self._held and not self._ended:
            self._came.clear()
            await self._came.wait()
        piece = bytes(self._held[:max_bytes])
        del self._held[:max_bytes]
        return piece

    def passed(self, num_bytes: int) -> None:
        """So many of the bytes that were taken are the decoder's now."""
        self._num_ahead -= num_bytes
        self.num_passed += num_bytes


def _refuse_after(ended: bool) -> None:
    if ended:
        raise OptionError("something was sent after the end")
