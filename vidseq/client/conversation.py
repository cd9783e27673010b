"""One stream over as many connections as it takes: each answer once, in order. Knows nothing of what is sent.

connect, Open ........ Ready, answers that were missed, then sending and receiving side by side
    a cut ............ a pause (see retries.py), connect, Open with the number of the first missing answer, Ready ...
"""

import asyncio
import contextlib
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Self

from vidseq.client.retries import Retries
from vidseq.client.sockets import Address, Socket, Told, opened
from vidseq.errors import ConnectionFailed, OptionError, RequestTimeout, ServiceError, UnexpectedAnswer
from vidseq.messages import Applied, Final, Notice, Noticed, Open, Ready, Received, Resume, SegmentChange
from vidseq.schemas import FrameLabel, Moment, Prediction, Segment

Event = Moment | SegmentChange | Notice

MAX_EVENTS = 100_000  # that wait to be taken
STEADY_SECONDS = 8.0  # a connection that held so long was a good one


@dataclass(frozen=True)
class Terms:
    """How a stream is opened, and how patiently. `collect`: keep frames and segments for the Prediction at the end.

    `retries` hold until the stream has been opened once, `reconnects` from then on.
    """

    address: Address
    opening: Open
    timeout_seconds: float
    retries: Retries
    reconnects: Retries
    collect: bool


class Conversation(ABC):
    """What streams of pictures and of video have in common. All of it happens on one event loop."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._received = terms.opening.resume.received if terms.opening.resume else 0
        self._ready: Ready | None = None
        self._ready_seconds = math.inf  # on the loop's clock; infinite while there is no connection
        self._heard_seconds = 0.0  # when an answer came last, or became due
        self._token: str | None = None
        self._events = deque[Event]()
        self._num_dropped = 0
        self._num_taken = 0  # bytes of a video, by the service, on this connection
        self._last_seconds: float | None = None  # of a label
        self._frames: list[FrameLabel] = []
        self._segments: list[Segment] = []
        self._prediction: Prediction | None = None
        self._error: Exception | None = None
        self._error_told = False
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    # What differs: what is sent.

    @abstractmethod
    async def _send(self, socket: Socket) -> None:
        """All that is to be sent on a connection, End included."""

    @abstractmethod
    def _begin(self, ready: Ready) -> None:
        """A connection is open: the service expects push `ready.next_sequence`."""

    @abstractmethod
    def _answered(self, sequence: int) -> None:
        """A push was answered, and need not be sent again."""

    @abstractmethod
    def _awaits_answer(self) -> bool:
        """Whether it is the service's turn."""

    @abstractmethod
    def _loss(self) -> str:
        """What is missing, for a person, when the stream is given up."""

    def _may_repeat(self) -> bool:
        """Whether what a cut has swallowed can be sent again."""
        return True

    # What a user sees.

    @property
    def ready(self) -> Ready:
        """What the service said when it was asked last: the session, the model, where the stream stands, the limits."""
        if self._ready is None:
            raise OptionError("the stream is not open: use it in a `with` statement")
        return self._ready

    @property
    def resume(self) -> Resume | None:
        """Where another stream can go on, `client.stream(resume=...)`, when this one is closed without an end.

        What has come here comes there no more: `take()` it first. The other's `ready.last_seconds` says up to which
        picture the service has come.
        """
        if self._ready is None:
            return self._terms.opening.resume
        if self._ready.session is not None:
            return Resume(session=self._ready.session, received=self._received)
        return Resume(token=self._token, received=self._received)

    @property
    def prediction(self) -> Prediction:
        """What was said of the whole stream, once it has ended."""
        if self._prediction is None:
            raise OptionError("the stream has not ended yet")
        return self._prediction

    @property
    def num_dropped(self) -> int:
        """How many frames were dropped, here or by the service; `events()` tells each time why."""
        return self._num_dropped

    async def next_event(self) -> Event | None:
        """None when the stream has ended and everything was taken."""
        await self._until(lambda: bool(self._events) or self._prediction is not None)
        return self._taken() if self._events else None

    async def events(self) -> AsyncIterator[Event]:
        """Labels, segments as they open and close, and notices; waits for each until the stream has ended."""
        while (event := await self.next_event()) is not None:
            yield event

    async def __aiter__(self) -> AsyncIterator[Moment]:
        """The labels alone; waits as `events` does."""
        async for event in self.events():
            if isinstance(event, Moment):
                yield event

    def take(self) -> list[Event]:
        """The events that are here, also of a closed stream; with none left, raises what the stream failed with."""
        if not self._events:
            self._raise_error()
        return [self._taken() for _ in range(len(self._events))]

    async def close(self) -> None:
        """Leave at once. A session that was not ended can be resumed as long as the service keeps it."""
        if self._task is not None:
            if self._prediction is None:
                self._task.cancel()
            await asyncio.wait({self._task})
        self._notify()

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise OptionError("a stream is opened once")
        self._task = asyncio.create_task(self._run())
        try:
            await self._until(lambda: self._ready is not None)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    # How it is done.

    async def _until(self, holds: Callable[[], bool], *, patient: bool = False) -> None:
        """Waits until `holds`. Raises what the stream failed with, and RequestTimeout when no answer comes."""
        began_seconds = clock_seconds()
        while not holds():
            self._raise_failure()
            deadline_seconds = max(began_seconds, self._heard_seconds) + self._terms.timeout_seconds
            try:
                async with asyncio.timeout_at(None if patient else deadline_seconds):
                    await self._changed.wait()
            except TimeoutError:
                if self._awaits_answer():
                    raise self._silence() from None
                began_seconds = clock_seconds()

    def _silence(self) -> RequestTimeout:
        return RequestTimeout(f"{self._terms.address.url} did not answer for {self._terms.timeout_seconds:g} s")

    def _raise_error(self) -> None:
        if self._error is not None:
            self._error_told = True
            raise self._error

    def _raise_failure(self) -> None:
        self._raise_error()
        if self._prediction is None and (self._task is None or self._task.done()):
            raise OptionError("the stream is closed")

    def _notify(self) -> None:
        """Wakes everybody who waits, to look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _run(self) -> None:
        try:
            await self._talk_to_the_end()
        except Exception as error:  # raised where the stream is used
            self._error = error
        finally:
            self._notify()

    async def _talk_to_the_end(self) -> None:
        num_failed, failing_since = 0, 0.0
        while True:
            received = self._received
            try:
                return await self._talk()
            except ServiceError as error:
                now_seconds = clock_seconds()
                if num_failed == 0 or self._received > received or now_seconds - self._ready_seconds > STEADY_SECONDS:
                    num_failed, failing_since = 0, now_seconds
                num_failed += 1
                elapsed_seconds = now_seconds - failing_since
                retries = self._terms.retries if self._ready is None else self._terms.reconnects
                pause_seconds = retries.pause_seconds(error, num_failed=num_failed, elapsed_seconds=elapsed_seconds)
                if pause_seconds is None or not self._may_repeat():
                    if self._ready is not None:
                        times = f" after {num_failed} failures" if num_failed > 1 else ""
                        error.args = (f"{error}; the stream was given up{times}: {self._loss()}",)
                    raise
            await asyncio.sleep(pause_seconds)

    async def _talk(self) -> None:
        """One connection, to the end of the stream or of the connection."""
        self._ready_seconds = math.inf
        async with opened(self._terms.address) as socket:
            await self._open(socket)
            receiving = asyncio.create_task(self._receive(socket))
            sending = asyncio.create_task(self._send(socket))
            try:
                await asyncio.wait({receiving, sending}, return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    with contextlib.suppress(ConnectionFailed):  # what was received before the cut says why
                        sending.result()
                await receiving
            finally:
                receiving.cancel()
                sending.cancel()
                await asyncio.gather(receiving, sending, return_exceptions=True)

    async def _open(self, socket: Socket) -> None:
        await socket.send(self._terms.opening.model_copy(update={"resume": self.resume}))
        try:
            async with asyncio.timeout(self._terms.address.connect_seconds):
                ready = await socket.receive()
        except TimeoutError:
            raise ConnectionFailed(f"{self._terms.address.url} took the connection and said nothing") from None
        if not isinstance(ready, Ready):
            raise UnexpectedAnswer(f"{self._terms.address.url} began a stream with {ready.type!r} in place of 'ready'")
        self._begin(ready)
        self._num_taken = 0
        self._ready, self._ready_seconds, self._token = ready, clock_seconds(), ready.resume_token
        self._notify()

    async def _receive(self, socket: Socket) -> None:
        while self._prediction is None:
            self._hear(await socket.receive())
            self._heard_seconds = clock_seconds()
            self._notify()

    def _hear(self, message: Told) -> None:
        match message:
            case Applied(sequence=sequence) if sequence < self._received:
                pass  # heard before the cut
            case Applied(sequence=sequence) if sequence == self._received:
                self._received += 1
                self._token = message.resume_token
                self._answered(sequence)
                self._tell(message)
            case Noticed():
                self._tell(Applied(sequence=-1, notices=message.notices))
            case Received():
                self._num_taken = message.num_bytes
            case Final():
                self._tell(message)
                told = {"frames": tuple(self._frames), "segments": tuple(self._segments)}
                self._prediction = message.prediction.model_copy(update=told)
            case _:
                number = f" {message.sequence}" if isinstance(message, Applied) else ""
                raise UnexpectedAnswer(
                    f"{self._terms.address.url} sent {message.type!r}{number} where answer {self._received} was due"
                )

    def _tell(self, message: Applied | Final) -> None:
        self._events.extend((*message.notices, *message.labels, *message.segments))
        self._num_dropped += sum(notice.num_frames for notice in message.notices if notice.effect == "dropped")
        self._last_seconds = message.labels[-1].seconds if message.labels else self._last_seconds
        if self._terms.collect:
            self._frames += [
                FrameLabel(seconds=moment.seconds, label=moment.frame.label, score=moment.frame.score)
                for moment in message.labels
                if moment.frame is not None
            ]
            self._segments += [change.segment for change in message.segments if change.change == "closed"]

    def _taken(self) -> Event:
        event = self._events.popleft()
        if len(self._events) == MAX_EVENTS - 1:
            self._notify()  # there is room again
        return event


def clock_seconds() -> float:
    return asyncio.get_running_loop().time()
