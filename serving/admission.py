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

from serving.problems import AnswerTimeout, Busy

T = TypeVar("T")


class Admission:
    """Counts requests and the bytes of their bodies; refuses, without waiting, what is too many. Thread-safe."""

    def __init__(self, *, max_requests: int, max_bytes: int, retry_after_seconds: float) -> None:
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self._retry_after_seconds = retry_after_seconds
        self._num_requests = 0
        self._num_bytes = 0
        self._lock = threading.Lock()

    @contextmanager
    def place(self) -> Iterator[Callable[[int], None]]:
        """A place for one request, and a function to call with the number of bytes before each piece is kept.

        Errors: Busy, from either.
        """
        held_bytes = 0

        def hold(num_bytes: int) -> None:
            # Counted as they come: to reserve a declared length would let empty promises fill the house.
            nonlocal held_bytes
            self._add(0, num_bytes)
            held_bytes += num_bytes

        self._add(1, 0)
        try:
            yield hold
        finally:
            self._add(-1, -held_bytes)

    def _add(self, num_requests: int, num_bytes: int) -> None:
        with self._lock:
            if num_requests > 0 and self._num_requests >= self.max_requests:
                raise self._busy(f"{self.max_requests} requests are being answered, which is the most at a time")
            if num_bytes > 0 and self._num_bytes + num_bytes > self.max_bytes:
                raise self._busy(
                    f"the bodies of all requests together hold {self.max_bytes:,} bytes, which is the most"
                )
            self._num_requests += num_requests
            self._num_bytes += num_bytes

    def _busy(self, message: str) -> Busy:
        return Busy(message, retry_after_seconds=self._retry_after_seconds)


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
        timeout_seconds: float,
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
