"""The same streams without asyncio: each runs on an event loop in a thread of its own. Knows nothing of messages."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from vidseq.client.conversation import Conversation, Event
from vidseq.client.pushes import pushes
from vidseq.client.streams import AsyncStream, AsyncVideoStream
from vidseq.errors import OptionError
from vidseq.messages import Ready, Resume
from vidseq.schemas import Moment, Prediction

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")
ConversationT = TypeVar("ConversationT", bound=Conversation)


class LoopThread:
    """An event loop that runs beside the caller, from now until `close`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vidseq-stream", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], *, closing: bool = False) -> T:
        """What `work` returns; whoever is interrupted while it waits takes the work back."""
        with self._lock:
            if self.closed:
                work.close()
                raise OptionError("the stream is closed")
            self.closed = closing
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise OptionError("the stream was closed by another thread") from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """What other threads still wait for is cancelled."""
        if self.closed:
            return
        self.run(_cancel_others(), closing=True)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _called(function: Callable[[], T]) -> T:
    return function()


class _Blocking(Generic[ConversationT]):
    def __init__(self, conversation: ConversationT) -> None:
        self._conversation = conversation
        self._thread: LoopThread | None = None

    @property
    def ready(self) -> Ready:
        """What the service said when it was asked last: the session, the model, where the stream stands, the limits."""
        return self._conversation.ready

    @property
    def resume(self) -> Resume | None:
        """Where another stream can go on, `client.stream(resume=...)`, when this one is closed without an end.

        What has come here comes there no more: `take()` it first. The other's `ready.last_seconds` says up to which
        picture the service has come.
        """
        return self._conversation.resume

    @property
    def prediction(self) -> Prediction:
        """What was said of the whole stream, once it has ended."""
        return self._conversation.prediction

    @property
    def num_dropped(self) -> int:
        """How many frames were dropped, here or by the service; `events()` tells each time why."""
        return self._conversation.num_dropped

    def events(self) -> Iterator[Event]:
        """Labels, segments as they open and close, and notices; waits for each until the stream has ended."""
        while (event := self._run(self._conversation.next_event())) is not None:
            yield event

    def __iter__(self) -> Iterator[Moment]:
        """The labels alone; waits as `events` does."""
        return (event for event in self.events() if isinstance(event, Moment))

    def take(self) -> list[Event]:
        """The events that are here, also of a closed stream; with none left, raises what the stream failed with."""
        if self._thread is not None and self._thread.closed:
            return self._conversation.take()
        return self._run(_called(self._conversation.take))

    def close(self) -> None:
        """Leave at once. A session that was not ended can be resumed as long as the service keeps it."""
        if self._thread is not None and not self._thread.closed:
            with contextlib.closing(self._thread) as thread:
                thread.run(self._conversation.close())

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise OptionError("a stream is opened once")
        self._thread = LoopThread()
        try:
            self._thread.run(self._conversation.__aenter__())
        except BaseException:
            self._thread.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._thread is not None and not self._thread.closed:
            with contextlib.closing(self._thread) as thread:
                thread.run(self._conversation.__aexit__(*exc_info))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._thread is None:
            work.close()
            raise OptionError("the stream is not open: use it in a `with` statement")
        return self._thread.run(work)


class Stream(_Blocking[AsyncStream]):
    """A stream of pictures: `push` some, iterate over labels, `end` it. Made by `Client.stream`.

    One thread may push while another iterates; a single thread pushes and takes by turns. Up to 100,000 events wait to
    be taken; then `push` refuses. Leaving the `with` block ends the stream; leaving it with an exception closes the
    connection, and `resume` says where another stream can go on.
    """

    def push(self, image: "Buffer", *, seconds: float) -> None:
        """One picture: the bytes of a JPEG, PNG or WebP, or an array of uint8 [H, W, 3], red first.

        `seconds` is its time in the stream, rising from picture to picture. Waits while as many pushes are unanswered
        as the service allows (`ready.window_pushes`); with `when_full` drop_oldest or thin it does not wait, and a
        Notice tells what was dropped.

        Errors: OptionError for what is no picture, RequestTimeout when no answer comes, and whatever the stream failed
        with: RequestRejected with the service's words, or ConnectionFailed when it could not come back.
        """
        self.push_many([(seconds, image)])

    def push_many(self, frames: "Iterable[tuple[float, Buffer]]") -> None:
        """Several pictures, (seconds, image), in as few messages as hold them."""
        for push in pushes(frames, max_bytes=self.ready.max_push_bytes):
            self._run(self._conversation.add(push))

    def end(self) -> Prediction:
        """Nothing more comes: wait for the last label. Events that were not taken yet can still be iterated over."""
        return self._run(self._conversation.end())


class VideoStream(_Blocking[AsyncVideoStream]):
    """A video whose labels come while it is sent: iterate, then read `prediction`. Made by `Client.classify_stream`.

    After a cut the video is sent again from its first byte, and no label is told twice.
    """

    def events(self) -> Iterator[Event]:
        """Labels, segments as they open and close, and notices, to the last; opens the stream where no `with` does."""
        with contextlib.ExitStack() as stack:
            if self._thread is None:
                stack.enter_context(self)
            yield from super().events()
