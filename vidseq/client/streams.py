"""Streams of pictures and of video bytes for asyncio: what is sent, and how far ahead. Knows no sockets."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterable
from typing import TYPE_CHECKING, BinaryIO, Self

from vidseq.client.conversation import MAX_EVENTS, Conversation, Event, Terms, clock_seconds
from vidseq.client.faststart import faststart
from vidseq.client.pushes import Push, pushes
from vidseq.client.sockets import Socket
from vidseq.client.uploads import Progress, Source, Upload, open_upload
from vidseq.errors import OptionError, UnexpectedAnswer
from vidseq.messages import Applied, End, Notice, Ready
from vidseq.schemas import Prediction

if TYPE_CHECKING:
    from typing_extensions import Buffer


_END = Push(b"", 0.0, 0)  # it has a number too: after a cut it may have to be sent again


class AsyncStream(Conversation):
    """As `Stream`, for asyncio. Made by `AsyncClient.stream`."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._on_way: dict[int, Push] = {}  # by number: sent and not answered, so that they can be sent again
        self._waiting = deque[Push]()  # those that have no number yet
        self._next_sequence: int | None = None  # the number that the next of them gets
        self._next_sent = 0  # the number that is sent next on this connection
        self._ended = False

    async def push(self, image: "Buffer", *, seconds: float) -> None:
        """As `Stream.push`."""
        await self.push_many([(seconds, image)])

    async def push_many(self, frames: "Iterable[tuple[float, Buffer]]") -> None:
        """As `Stream.push_many`."""
        for push in pushes(frames, max_bytes=self.ready.max_push_bytes):
            await self.add(push)

    async def add(self, push: Push) -> None:
        """One push."""
        if len(self._events) >= MAX_EVENTS:
            raise OptionError(f"{len(self._events):,} labels and notices wait: take them before more is pushed")
        if self._is_blocking:
            await self._until(lambda: self._has_ended or self._fits(push, [*self._on_way.values(), *self._waiting]))
        if self._has_ended:
            raise OptionError("the stream has ended: nothing can be pushed any more")
        self._raise_failure()
        while not self._fits(push, self._waiting):
            if clock_seconds() - self._heard_seconds > self._terms.timeout_seconds:
                raise self._silence()
            self._drop()
        if not self._awaits_answer():
            self._heard_seconds = clock_seconds()
        self._waiting.append(push)
        self._notify()

    async def end(self) -> Prediction:
        """As `Stream.end`."""
        if not self._has_ended:
            self._raise_failure()
            self._ended = True
            self._waiting.append(_END)
            self._notify()
        await self._until(lambda: self._prediction is not None)
        return self.prediction

    async def __aexit__(self, *exc_info: object) -> None:
        is_open = self._task is not None and not self._task.done()
        has_begun = self._received > 0 or self._num_unanswered > 0
        try:
            if exc_info[0] is None and ((is_open and has_begun) or (self._error is not None and not self._error_told)):
                await self.end()
        finally:
            await self.close()

    @property
    def _num_unanswered(self) -> int:
        return len(self._on_way) + len(self._waiting)

    @property
    def _has_ended(self) -> bool:
        return self._ended or self._prediction is not None

    @property
    def _is_blocking(self) -> bool:
        return self._terms.opening.options.when_full == "block"

    def _fits(self, push: Push, others: Collection[Push], *, times: int = 1) -> bool:
        """Whether one push more is within the window of the service; one alone always is."""
        num_bytes = len(push.data) + sum(len(other.data) for other in others)
        max_pushes, max_bytes = self.ready.window_pushes * times, self.ready.window_bytes * times
        return not others or (len(others) < max_pushes and num_bytes <= max_bytes)

    def _awaits_answer(self) -> bool:
        return self._num_unanswered > 0

    def _loss(self) -> str:
        num_pushes = self._num_unanswered - self._ended
        if num_pushes <= 0:
            return "all that was pushed has been answered"
        return f"no answer came to the last {num_pushes} of the pushes, from number {self._received} on"

    def _begin(self, ready: Ready) -> None:
        if self._next_sequence is None:
            self._next_sequence = ready.next_sequence
        if not self._received <= ready.next_sequence <= self._next_sequence:
            raise UnexpectedAnswer(
                f"the service expects push {ready.next_sequence}; "
                f"{self._received} to {self._next_sequence} can be sent from here"
            )
        self._next_sent = ready.next_sequence

    async def _send(self, socket: Socket) -> None:
        assert self._next_sequence is not None
        while True:
            await self._until(self._may_send, patient=True)
            if self._next_sent == self._next_sequence:
                self._on_way[self._next_sequence] = self._waiting.popleft()
                self._next_sequence += 1
            push = self._on_way[self._next_sent]
            self._next_sent += 1
            await socket.send(End() if push is _END else push.data)

    def _may_send(self) -> bool:
        """A service that drops does so when it has more than it asked for; the rest waits here."""
        assert self._next_sequence is not None
        if self._next_sent < self._next_sequence:
            return True
        if not self._waiting or self._waiting[0] is _END:
            return bool(self._waiting)
        return self._fits(self._waiting[0], self._on_way.values(), times=1 if self._is_blocking else 2)

    def _answered(self, sequence: int) -> None:
        assert self._next_sequence is not None
        if sequence >= self._next_sequence:
            raise UnexpectedAnswer(f"the service answered push {sequence}; {self._next_sequence} were sent")
        self._on_way.pop(sequence, None)

    def _drop(self) -> None:
        """Pictures come faster than they can be sent: leave some out, and say so."""
        waiting, thin = list(self._waiting), self._terms.opening.options.when_full == "thin"
        dropped, kept = (waiting[::2], waiting[1::2]) if thin else (waiting[:1], waiting[1:])
        self._waiting = deque(kept)
        num_frames = sum(push.num_frames for push in dropped)
        detail = f"{len(waiting)} pushes waited to be sent: {len(dropped)} of them were left out"
        seconds = dropped[0].first_seconds
        notice = Notice(kind="dropped", effect="dropped", seconds=seconds, num_frames=num_frames, detail=detail)
        self._tell(Applied(sequence=-1, notices=(notice,)))


class AsyncVideoStream(Conversation):
    """As `VideoStream`, for asyncio. Made by `AsyncClient.classify_stream`.

    A loop that is left early closes it only in an `async with` block.
    """

    def __init__(self, terms: Terms, source: Source, *, move_index: bool, on_progress: Progress | None) -> None:
        super().__init__(terms)
        self._source = source
        self._move_index = move_index
        self._on_progress = on_progress
        self._file: BinaryIO | None = None
        self._upload: Upload | None = None
        self._num_sent = 0
        self._has_begun = self._all_sent = False

    async def events(self) -> AsyncIterator[Event]:
        """As those of a stream; opens and closes the stream where no `async with` does."""
        async with contextlib.AsyncExitStack() as stack:
            if self._task is None:
                await stack.enter_async_context(self)
            async for event in super().events():
                yield event

    async def __aenter__(self) -> Self:
        if self._move_index:
            self._file = await asyncio.to_thread(faststart, self._source)
        self._upload = open_upload(self._file or self._source, on_progress=self._on_progress)
        return await super().__aenter__()

    async def close(self) -> None:
        await super().close()
        if self._file is not None:
            self._file.close()

    def _awaits_answer(self) -> bool:
        return self._all_sent

    def _may_repeat(self) -> bool:
        return self._upload is not None and (self._upload.repeatable or not self._has_begun)

    def _loss(self) -> str:
        reason = "" if self._may_repeat() else "the source cannot be rewound and sent again; "
        last = "no label came" if self._last_seconds is None else f"labels came up to {self._last_seconds:.3f} s"
        return f"{reason}{last}"

    def _begin(self, ready: Ready) -> None:
        self._num_sent = 0
        self._all_sent = False

    async def _send(self, socket: Socket) -> None:
        assert self._upload is not None
        self._has_begun = True
        async with contextlib.aclosing(self._upload.chunks_async()) as chunks:
            async for chunk in chunks:
                await self._send_chunk(socket, memoryview(chunk))
        self._all_sent = True
        await socket.send(End())

    async def _send_chunk(self, socket: Socket, chunk: memoryview) -> None:
        """In pieces, where the service does not take it all at once."""
        while chunk:
            await self._until(lambda: self._num_allowed > 0 and len(self._events) < MAX_EVENTS, patient=True)
            piece = bytes(chunk[: self._num_allowed])
            self._num_sent += len(piece)
            await socket.send(piece)
            chunk = chunk[len(piece) :]

    @property
    def _num_allowed(self) -> int:
        return self._num_taken + self.ready.window_bytes - self._num_sent

    def _answered(self, sequence: int) -> None:
        pass  # the service numbers its answers; all bytes are sent again
