"""Threads for calls that block, apart from all others: what is slow there holds up nobody else."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """A pool of its own."""

    def __init__(self, num_threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix=name)

    async def call(self, work: Callable[[], T], *, unheard: Callable[[T], object] = lambda result: None) -> T:
        """`work()` to its end, whether or not anybody waits for it; what nobody hears goes to `unheard`."""
        asked = self._pool.submit(work)
        try:
            return await asyncio.shield(asyncio.wrap_future(asked))
        except asyncio.CancelledError:
            asked.add_done_callback(lambda done: _heard(done, unheard))
            raise

    @asynccontextmanager
    async def lifespan(self, _app: object) -> AsyncIterator[None]:
        """At its end what was begun is done: nobody then closes a database under it."""
        yield
        await asyncio.to_thread(self._pool.shutdown)


def _heard(done: "Future[T]", unheard: Callable[[T], object]) -> None:
    if done.exception() is None:
        unheard(done.result())
