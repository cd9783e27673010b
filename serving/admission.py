"""How many requests may be inside, how many bytes they may hold, and the threads that do their work. Knows no routes.

A place is given up when the work has ended, not when its caller stopped waiting: a thread cannot be killed, and a
second one in its place would be one too many.
"""

import asyncio
import contextvars
import functools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect

from serving.problems import AnswerTimeout, Busy, KeyBusy
from serving.waiting import Waiting

T = TypeVar("T")

MAX_RETRY_SECONDS = 30.0  # one long video may keep all, and be gone the next moment


class Admission:
    """Counts requests and the bytes of their bodies; refuses, without waiting, what is too many. Thread-safe.

    Of all places, and of all bytes, one owner may have a share: nobody who has a key can keep everybody else out. Who
    is nobody in particular (None) is bound by the whole alone. A share is never less than one place, or one body.
    With `waiting` there are no more places than it says, which the share is of, too.
    """

    def __init__(
        self,
        *,
        max_requests: int,
        max_bytes: int,
        max_body_bytes: int,
        share: float,
        retry_after_seconds: float,
        waiting: Waiting | None = None,
    ) -> None:
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self._share = share
        self._max_bytes_of_one = max(max_body_bytes, int(share * max_bytes))
        self._waiting = waiting
        self._retry_after_seconds = retry_after_seconds
        self._num_requests = 0
        self._num_bytes = 0
        self._of_owners: dict[str, tuple[int, int]] = {}  # requests and bytes of those who have any
        self._lock = threading.Lock()

    @contextmanager
    def place(self, owner: str | None) -> Iterator[Callable[[int], None]]:
        """A place for one request, and a function to call with the number of bytes before each piece is kept.

        Errors: Busy, from either; KeyBusy, where only `owner` has too much.
        """
        held_bytes = 0

        def hold(num_bytes: int) -> None:
            # Counted as they come: to reserve a declared length would let empty promises fill the house.
            nonlocal held_bytes
            self._add(owner, 0, num_bytes)
            held_bytes += num_bytes

        self._add(owner, 1, 0)
        try:
            yield hold
        finally:
            self._add(owner, -1, -held_bytes)

    def refuse_full(self, owner: str | None) -> None:
        """Raises as `place` would now: who will not find a place need not send a body first."""
        with self._lock:
            self._refuse(owner, 1, 0)

    def _add(self, owner: str | None, num_requests: int, num_bytes: int) -> None:
        with self._lock:
            self._refuse(owner, num_requests, num_bytes)
            self._num_requests += num_requests
            self._num_bytes += num_bytes
            if owner is not None:
                had_requests, had_bytes = self._of_owners.pop(owner, (0, 0))
                has = (had_requests + num_requests, had_bytes + num_bytes)
                if has != (0, 0):
                    self._of_owners[owner] = has
            if self._waiting is not None and num_requests:
                (self._waiting.enter if num_requests > 0 else self._waiting.leave)()

    def _refuse(self, owner: str | None, num_requests: int, num_bytes: int) -> None:
        """Where so many more would be too many."""
        if num_requests > 0:
            most = self.max_requests if self._waiting is None else min(self.max_requests, self._waiting.places())
            if self._num_requests >= most:
                within = "at a time" if most == self.max_requests else "that can be in a reasonable time"
                raise self._busy(f"{most} requests are being answered, which is the most {within}")
            most = max(1, int(self._share * most))
            if owner is not None and self._of_owners.get(owner, (0, 0))[0] >= most:
                raise self._busy(f"{most} requests of this key are being answered, the most of one key", KeyBusy)
        if num_bytes > 0:
            if self._num_bytes + num_bytes > self.max_bytes:
                raise self._busy(
                    f"the bodies of all requests together hold {self.max_bytes:,} bytes, which is the most"
                )
            most = self._max_bytes_of_one
            if owner is not None and self._of_owners.get(owner, (0, 0))[1] + num_bytes > most:
                raise self._busy(
                    f"the bodies of all requests of this key hold {most:,} bytes, the most of one key", KeyBusy
                )

    def _busy(self, message: str, kind: type[Busy] = Busy) -> Busy:
        """When to ask again: not before somebody is likely to have left."""
        next_leaves_seconds = 0.0 if self._waiting is None else min(self._waiting.seconds_of_one(), MAX_RETRY_SECONDS)
        return kind(message, retry_after_seconds=max(self._retry_after_seconds, next_leaves_seconds))


class Workers:
    """A bounded pool of threads for blocking work that is told when nobody waits for it any more."""

    def __init__(self, num_threads: int) -> None:
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="classify")

    async def run(
        self,
        work: Callable[[threading.Event], T],
        *,
        holding: ExitStack,
        gone: Awaitable[None],
        timeout_seconds: float | None,
    ) -> T:
        """`work(stop)` in a thread; `holding` is closed when it has ended, however it ended.

        Errors: AnswerTimeout after `timeout_seconds`, starlette's ClientDisconnect when `gone` is done first. `stop`
        is set in both cases, and the work goes on until it looks.
        """
        stop = threading.Event()
        result = self.begin(functools.partial(work, stop), holding=holding)
        watch = asyncio.ensure_future(gone)
        try:
            either: set[asyncio.Future[Any]] = {result, watch}
            await asyncio.wait(either, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return result.result()
            if watch.done():
                raise ClientDisconnect
            raise AnswerTimeout(f"no answer within {timeout_seconds:g} seconds")
        finally:
            stop.set()
            watch.cancel()

    def begin(self, work: Callable[[], T], *, holding: ExitStack) -> asyncio.Future[T]:
        """`work()` in a thread, whether or not anybody waits for it; `holding` is closed when it has ended."""

        def job() -> T:
            with holding:
                return work()

        loop = asyncio.get_running_loop()
        result = loop.run_in_executor(self._pool, contextvars.copy_context().run, job)
        result.add_done_callback(lambda future: future.cancelled() or future.exception())  # may end unheard
        return result

    @asynccontextmanager
    async def lifespan(self, _app: object) -> AsyncIterator[None]:
        yield
        self._pool.shutdown(wait=False, cancel_futures=True)
