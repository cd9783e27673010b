"""What one process does for all jobs, as long as it runs: dispatches items, sends messages. Knows no Ray."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from serving.database.core import Database
from serving.jobs.deliveries import Outbox, Postman
from serving.jobs.dispatcher import Dispatcher, Execute
from serving.jobs.queue import Queue
from serving.jobs.settings import JobSettings
from serving.sealing import Vault

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 1.0


class Background:
    """For one event loop. Several processes may have one over the same database."""

    def __init__(self, database: Database, vault: Vault, execute: Execute, settings: JobSettings) -> None:
        self._works = {
            "the dispatcher of jobs": Dispatcher(Queue(database, settings), vault, execute).run,
            "the sender of messages": Postman(Outbox(database, vault, settings)).run,
        }
        self._going_on: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        self._going_on = [asyncio.create_task(_for_ever(name, work)) for name, work in self._works.items()]

    async def end(self) -> None:
        """What was begun is given back, for another process to do."""
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
