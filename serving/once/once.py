"""One answer to each request with a key: claims it, executes it, keeps what was answered. Knows no routes, no SQL.

What is final is kept. What raises is not: a service that was full, a body that came too slowly, a client that went away
leave the key as it was, and the next try executes. A claim is renewed while its execution lasts; the calls of the
database block, and are made in threads of their own.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from serving.database.errors import DatabaseDown
from serving.once.kept import Answer, Claim, ClaimLost, Kept
from serving.once.question import Question

T = TypeVar("T")

logger = logging.getLogger(__name__)

NUM_THREADS = 4  # of which SQLite lets one through at a time


@dataclass(frozen=True)
class Given:
    """An answer as it leaves: whether it is given again, and whether it can be."""

    answer: Answer
    replayed: bool
    kept: bool


class Once:
    """For one process; any event loop of it may call."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        self._threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="once")

    async def answer(self, question: Question, execute: Callable[[], Awaitable[Answer]]) -> Given:
        """The answer that is kept; else that of `execute()`, whatever it is, once it is kept.

        Raises:
            StillRunning, AskedOtherwise, DatabaseDown; and what `execute` raises.
        """
        claim = await self._claim(question)
        if isinstance(claim, Answer):
            return Given(claim, replayed=True, kept=True)
        renewing = asyncio.create_task(self._renew(claim))
        try:
            answer = await execute()
            kept = await self._call(lambda: self.kept.keep(claim, answer))
            return Given(answer, replayed=False, kept=kept)
        except ClaimLost:
            standing = await self._call(lambda: self.kept.standing(question))
            return Given(standing, replayed=True, kept=True)
        except BaseException:
            self._release(claim)
            raise
        finally:
            renewing.cancel()

    @asynccontextmanager
    async def lifespan(self, _app: object) -> AsyncIterator[None]:
        """Every process sweeps now and then: answers go when their time is over, whether or not anybody asks."""
        sweeping = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            sweeping.cancel()

    async def _claim(self, question: Question) -> Claim | Answer:
        """Whoever stops waiting for it leaves no claim behind."""
        asked = self._threads.submit(self.kept.claim, question)
        try:
            return await asyncio.wrap_future(asked)
        except asyncio.CancelledError:
            asked.add_done_callback(self._release_unheard)
            raise

    def _release_unheard(self, asked: "Future[Claim | Answer]") -> None:
        if not asked.cancelled() and asked.exception() is None and isinstance(claim := asked.result(), Claim):
            self._release(claim)

    def _release(self, claim: Claim) -> None:
        """Nobody waits for it: if it fails, the lease runs out."""

        def release() -> None:
            with suppress(DatabaseDown):  # which is in the log
                self.kept.release(claim)

        self._threads.submit(release)

    async def _renew(self, claim: Claim) -> None:
        while True:
            await asyncio.sleep(self.kept.settings.lease_seconds / 3)
            with suppress(DatabaseDown):
                await self._call(lambda: self.kept.renew(claim))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.kept.settings.sweep_seconds)
            try:
                await self._call(self.kept.sweep)
            except DatabaseDown:
                pass
            except Exception:
                logger.exception("old answers could not be swept")

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._threads.submit(work))
