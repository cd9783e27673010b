"""What a process does now and then beside its requests: sweeps, writes accounts. Knows not what that is.

A chore that fails is done again in its time; what its own errors have to say is in the log already.
"""

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from vidseq.errors import VidseqError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chore:
    """`work` is a coroutine function, or blocks and is called in a thread; `at_the_end` once more when the process ends
    in good order."""

    name: str
    work: Callable[[], object]
    every_seconds: float
    at_the_end: bool = False


class Chores:
    def __init__(self, chores: Sequence[Chore]) -> None:
        self._chores = chores

    @asynccontextmanager
    async def lifespan(self, _app: object) -> AsyncIterator[None]:
        going_on = [asyncio.create_task(_again_and_again(chore)) for chore in self._chores]
        try:
            yield
        finally:
            for task in going_on:
                task.cancel()
            await asyncio.gather(*going_on, return_exceptions=True)
            for chore in self._chores:
                if chore.at_the_end:
                    await _once(chore)


async def _again_and_again(chore: Chore) -> None:
    while True:
        await asyncio.sleep(chore.every_seconds)
        await _once(chore)


async def _once(chore: Chore) -> None:
    try:
        if inspect.iscoroutinefunction(chore.work):
            await chore.work()
        else:
            await asyncio.to_thread(chore.work)
    except VidseqError as error:
        logger.warning("%s: %s", chore.name, error)
    except Exception:
        logger.exception("%s failed", chore.name)
