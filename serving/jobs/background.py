"""What one process does for all jobs, as long as it runs: dispatches items, sends messages. Knows no Ray."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from serving.database.core import Database
from serving.jobs.deliveries import Outbox, Postman
from serving.jobs.dispatcher import Dispatcher, Execute
from serving.jobs.queue import Queue
from serving.jobs.settings import JobSettings
from serving.sealing import Vault

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 1.0
GIVE_BACK_SECONDS = 5.0


class Background:
    """For one event loop. Several processes may have one over the same database."""

    def __init__(self, database: Database, vault: Vault, execute: Execute, settings: JobSettings) -> None:
        self._works = {
            "the dispatcher of jobs": Dispatcher(Queue(database, settings), vault, execute).run,
            "the sender of messages": Postman(Outbox(database, vault, settings)).run,
        }
        self._going_on: list[asyncio.Task[None]] = []
        self._ending: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._going_on = [asyncio.create_task(_for_ever(name, work)) for name, work in self._works.items()]

    @asynccontextmanager
    async def lifespan(self, _app: object) -> AsyncIterator[None]:
        """As long as an application runs."""
        self.begin()
        try:
            yield
        finally:
            await self.end()

    async def end(self) -> None:
        """What was begun is given back, for another process to do. To end twice is to wait for the same end.

        For GIVE_BACK_SECONDS at most, as where the database is slow: leases end by themselves.
        """
        if self._ending is None:
            self._ending = asyncio.create_task(self._give_back())
        with suppress(TimeoutError):  # who waits no more cancels nothing: to cancel twice would leave things half given
            await asyncio.wait_for(asyncio.shield(self._ending), GIVE_BACK_SECONDS)

    async def _give_back(self) -> None:
        for task in self._going_on:
            task.cancel()
        await asyncio.gather(*self._going_on, return_exceptions=True)


async def _for_ever(name: str, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except Exception:
            logger.exception("%s failed, and begins again", name)
        await asyncio.sleep(AGAIN_SECONDS)
