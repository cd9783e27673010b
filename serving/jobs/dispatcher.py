"""Leases items that are due and has them labelled, as many at a time as it may. Knows neither HTTP, nor Ray.

What has crashed is due again, and is then labelled beside no other that ever has, so that whoever takes his neighbours
with him does so once. After `max_attempts` it fails, and says why. An attempt whose dispatcher has died counts, too:
nobody can tell whose fault that was.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import nullcontext, suppress

from serving.database.errors import DatabaseDown
from serving.jobs.queue import Crash, Later, Leased, Outcome, Queue
from serving.once.kept import Answer
from vidseq.schemas import Problem

logger = logging.getLogger(__name__)

Execute = Callable[[Leased], Awaitable[Outcome]]

SAVE_SECONDS = 30.0  # how long a database that is down is asked to keep what was found
RETRY_SECONDS = 1.0


class Dispatcher:
    """For one event loop: `run` ends when it is cancelled, and then nothing is held any more.

    `execute` labels an item. What it raises counts as a crash, and is told to nobody but the log.
    """

    def __init__(self, queue: Queue, execute: Execute) -> None:
        self._queue = queue
        self._execute = execute
        self._held: dict[asyncio.Task[None], Leased] = {}
        self._suspects = asyncio.Semaphore(1)

    async def run(self) -> None:
        renewing = asyncio.create_task(self._renew())
        try:
            while True:
                if not await self._begin():
                    await self._wait()
        finally:
            renewing.cancel()
            await self._give_up()

    async def _begin(self) -> int:
        """Lease as many as there is room for; how many that were."""
        room = self._queue.settings.max_in_flight - len(self._held)
        leased: list[Leased] = []
        if room > 0:
            with suppress(DatabaseDown):  # which is in the log
                leased = await self._leased(room)
        for item in leased:
            task = asyncio.create_task(self._do(item))
            self._held[task] = item
            task.add_done_callback(self._ended)
        return len(leased)

    async def _leased(self, most: int) -> list[Leased]:
        """Whoever is cancelled while he waits leaves no lease behind."""
        asked = asyncio.create_task(asyncio.to_thread(self._queue.lease, most))
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            with suppress(DatabaseDown):
                await self._put_back(await asked)
            raise

    async def _wait(self) -> None:
        """Until there may be something to begin."""
        seconds = self._queue.settings.poll_seconds
        if self._held:
            await asyncio.wait(self._held, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(seconds)

    def _ended(self, task: asyncio.Task[None]) -> None:
        item = self._held.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("item %s of job %s is left to its lease", *_named(item), exc_info=error)

    async def _do(self, item: Leased) -> None:
        most = self._queue.settings.max_attempts
        if item.attempts > most:  # those who had it before have died
            outcome: Outcome = Crash("whoever had begun it was not heard of again")
        else:
            async with self._suspects if item.attempts > 1 else nullcontext():
                outcome = await self._outcome(item)
        if isinstance(outcome, Answer):
            await self._saved(lambda: self._queue.finish(item, outcome))
            return
        if isinstance(outcome, Later):
            await self._saved(lambda: self._queue.put_back(item, after_seconds=outcome.after_seconds, counts=False))
            return
        logger.warning("item %s of job %s crashed, attempt %s: %s", *_named(item), item.attempts, outcome.reason)
        if item.attempts < most:
            await self._saved(lambda: self._queue.put_back(item))
        else:
            failed = _failed(item, outcome, num_attempts=min(item.attempts, most))
            await self._saved(lambda: self._queue.finish(item, failed))

    async def _outcome(self, item: Leased) -> Outcome:
        try:
            return await self._execute(item)
        except Exception:
            logger.exception("item %s of job %s", *_named(item))
            return Crash("something went wrong here, of which the service's log knows more")

    async def _saved(self, write: Callable[[], object]) -> None:
        """Written, even where the database is away for a while; in the end the lease runs out."""
        until_seconds = asyncio.get_running_loop().time() + SAVE_SECONDS
        while True:
            try:
                await asyncio.to_thread(write)
                return
            except DatabaseDown:
                if asyncio.get_running_loop().time() > until_seconds:
                    raise
            await asyncio.sleep(RETRY_SECONDS)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._queue.settings.lease_seconds / 3)
            held = dict(self._held)
            lost: list[Leased] = []
            with suppress(DatabaseDown):
                lost = await asyncio.to_thread(self._queue.renew, list(held.values())) if held else []
            for task, item in held.items():
                if item in lost:  # cancelled, deleted, or somebody else's
                    task.cancel()

    async def _give_up(self) -> None:
        """Whoever comes next need not wait for the leases to run out."""
        held = dict(self._held)
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        await self._put_back(held.values())

    async def _put_back(self, items: Iterable[Leased]) -> None:
        for item in items:
            with suppress(DatabaseDown):
                await asyncio.to_thread(self._queue.put_back, item, counts=False)


def _failed(item: Leased, crash: Crash, *, num_attempts: int) -> Answer:
    problem = Problem(
        type="job/crashed",
        title="The video could not be labelled",
        status=500,
        detail=f"it was begun {num_attempts} times, and each time it crashed. The last time: {crash.reason[:500]}",
        request_id="/".join(map(str, _named(item)[::-1])),
        retryable=False,
    )
    return Answer(problem.status, problem.model_dump_json(exclude_none=True).encode())


def _named(item: Leased) -> tuple[int, str]:
    return item.position, item.job_id
