"""Leases items that are due and has them labelled, as many at a time as it may. Knows neither HTTP, nor Ray.

What has crashed is due again, and is then labelled beside no other that ever has, so that whoever takes his neighbours
with him does so once. A neighbour who is new may do the same: the last attempt has none, of all that this dispatcher
holds, so that nobody fails for what another did. After `max_attempts` an item fails, and says why. An attempt whose
dispatcher has died counts, too: nobody can tell whose fault that was.

    last attempts            A           B     one at a time, once all that was begun before has ended
    never begun      x x x       y y y y       between two of them as many as may be: they wait for one, never for all
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from serving.database.errors import DatabaseDown
from serving.jobs.queue import Crash, Later, Leased, Outcome, Queue, Result
from serving.once.kept import Answer
from serving.sealing import Vault
from serving.threads import Threads
from vidseq.schemas import Problem

logger = logging.getLogger(__name__)

Execute = Callable[[Leased], Awaitable[Outcome]]

NUM_THREADS = 4
SAVE_SECONDS = 30.0  # how long a database that is down is asked to keep what was found
RETRY_SECONDS = 1.0


class Dispatcher:
    """For one event loop: `run` ends when it is cancelled, and then nothing is held any more.

    `execute` labels an item. What it raises counts as a crash, and is told to nobody but the log.
    """

    def __init__(self, queue: Queue, vault: Vault, execute: Execute) -> None:
        self._queue = queue
        self._vault = vault
        self._execute = execute
        self._threads = Threads(NUM_THREADS, "jobs")
        self._held: dict[asyncio.Task[None], Leased] = {}
        self._others_first = False  # a last attempt came last

    async def run(self) -> None:
        renewing = asyncio.create_task(self._renew())
        try:
            while True:
                if renewing.done():  # it never ends by itself: without it all that is held would be begun again
                    renewing.result()
                if not await self._begin():
                    await self._wait()
        finally:
            renewing.cancel()
            await self._give_up()

    async def _begin(self) -> int:
        """Lease as many as there is room for; how many that were."""
        room = self._queue.settings.max_in_flight - len(self._held)
        if room <= 0 or any(map(self._queue.is_last, self._held.values())):
            return 0
        leased: list[Leased] = []
        with suppress(DatabaseDown):  # which is in the log
            leased = await self._leased(room)
            self._others_first = any(map(self._queue.is_last, leased))
        for item in leased:
            task = asyncio.create_task(self._do(item))
            self._held[task] = item
            task.add_done_callback(self._ended)
        return len(leased)

    async def _leased(self, most: int) -> list[Leased]:
        """One at a time of those that have crashed before, and then of the others.

        Where one has its last attempt left: none until nothing is held, then that one alone.
        """
        held, others_first = list(self._held.values()), self._others_first
        suspects = any(item.attempts > 1 for item in held)
        lease_of = partial(self._queue.lease, held=held)

        def lease() -> list[Leased]:
            if others_first and (others := lease_of(most)):
                return others
            suspicion = self._queue.suspicion()
            if suspicion == "last":
                return [] if held else lease_of(1, suspected=True)
            look = suspicion == "some" and not suspects
            first = lease_of(1, suspected=True, last=False) if look else []
            return first + (lease_of(most - len(first)) if most > len(first) else [])

        return await self._threads.call(lease, unheard=self._put_back_now)

    def _put_back_now(self, leased: list[Leased]) -> None:
        """Of a lease that nobody waited for to the end. In whatever thread."""
        for item in leased:
            with suppress(DatabaseDown):
                self._queue.put_back(item, counts=False)

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
            outcome = await self._outcome(item)
        if isinstance(outcome, Result):
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
            result = Result.of(failed, self._vault, job_id=item.job_id, position=item.position)
            await self._saved(lambda: self._queue.finish(item, result))

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
                await self._threads.call(write)
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
                lost = await self._threads.call(partial(self._queue.renew, list(held.values()))) if held else []
            for task, item in held.items():
                if item in lost:  # cancelled, deleted, or somebody else's
                    task.cancel()

    async def _give_up(self) -> None:
        """Whoever comes next need not wait for the leases to run out."""
        held = dict(self._held)
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        await self._threads.call(lambda: self._put_back_now(list(held.values())))


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
