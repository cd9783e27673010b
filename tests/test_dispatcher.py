"""Items that are labelled: as many at once as may be, again after a crash, alone after a crash, never for ever."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from serving.database.core import Database
from serving.database.errors import DatabaseDown
from serving.jobs.dispatcher import Dispatcher, Execute
from serving.jobs.execution import Execution, Item
from serving.jobs.queue import Crash, Leased, Queue, Result
from serving.jobs.settings import JobSettings
from serving.usage.used import Charge, Used, uncharged
from serving.whole import Whole
from tests.toy_jobs import OWNER, Kept, asked_for, inline
from tests.web_server import Held, count_bytes, raising, wait_until
from vidseq.errors import DecoderCrashed, ModelNotFound, UnsupportedContainer
from vidseq.jobs import Job
from vidseq.schemas import Predictions

SECONDS = 20.0


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    with closing(Database(f"sqlite://{tmp_path}/vidseq.db")) as database:
        yield Kept(database, tmp_path / "uploads", JobSettings(poll_seconds=0.02, lease_seconds=3.0, max_in_flight=4))


@asynccontextmanager
async def dispatching(kept: Kept, execute: Execute, *, queue: Queue | None = None) -> AsyncIterator[None]:
    task = asyncio.create_task(Dispatcher(queue or kept.queue, kept.vault, execute).run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def ended(kept: Kept, *jobs: Job) -> list[Job]:
    async with asyncio.timeout(SECONDS):
        while not all(kept.now(job).ended for job in jobs):
            await asyncio.sleep(0.01)
    return [kept.now(job) for job in jobs]


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def in_time() -> Any:
        async with asyncio.timeout(2 * SECONDS):
            return await work()

    return asyncio.run(in_time())


def answering(kept: Kept) -> Execute:
    async def execute(item: Leased) -> Result:
        return kept.result(item)

    return execute


def test_all_items_of_all_jobs_are_labelled(kept: Kept) -> None:
    async def work() -> list[Job]:
        async with dispatching(kept, answering(kept)):
            return await ended(kept, kept.job(30), kept.job(2))

    assert [(job.state, job.num_succeeded) for job in run(work)] == [("succeeded", 30), ("succeeded", 2)]


def test_no_more_are_held_than_may_be_and_as_many_as_may_be(kept: Kept) -> None:
    held, most = 0, 0

    async def execute(item: Leased) -> Result:
        nonlocal held, most
        held += 1
        most = max(most, held)
        await asyncio.sleep(0.02)
        held -= 1
        return kept.result(item)

    async def work() -> None:
        async with dispatching(kept, execute):
            await ended(kept, kept.job(12))

    run(work)
    assert most == kept.settings.max_in_flight


def test_what_takes_longer_than_its_lease_is_begun_once(kept: Kept) -> None:
    begun: list[int] = []

    async def execute(item: Leased) -> Result:
        begun.append(item.position)
        await asyncio.sleep(1.5 * kept.settings.lease_seconds)
        return kept.result(item)

    async def work() -> None:
        async with dispatching(kept, execute), dispatching(kept, execute):
            await ended(kept, kept.job(2))

    run(work)
    assert sorted(begun) == [0, 1]


def test_what_is_held_for_longer_than_its_lease_is_not_begun_beside_itself(kept: Kept) -> None:
    """As where the database was away when a lease was to be renewed, or the whole machine stood still."""
    settings = kept.settings.model_copy(update={"lease_seconds": 0.5})
    back_seconds = time.monotonic() + 3 * settings.lease_seconds
    begun: list[int] = []

    class Away(Queue):
        def renew(self, held: Sequence[Leased]) -> list[Leased]:
            if time.monotonic() < back_seconds:
                raise DatabaseDown("it is away")
            return super().renew(held)

    async def execute(item: Leased) -> Result:
        begun.append(item.position)
        await asyncio.sleep(4 * settings.lease_seconds)
        return kept.result(item)

    async def work() -> list[Job]:
        async with dispatching(kept, execute, queue=Away(kept.database, settings)):
            return await ended(kept, kept.job(2))

    assert run(work)[0].state == "succeeded"
    assert sorted(begun) == [0, 1]


def test_what_crashes_is_begun_again_and_in_the_end_it_has_failed_and_says_why(kept: Kept) -> None:
    begun: Counter[int] = Counter()

    async def execute(item: Leased) -> Result | Crash:
        begun[item.position] += 1
        if item.position == 0:
            return Crash("the decoder was killed")
        if item.position == 1 and item.attempts < 3:
            raise RuntimeError("not for strangers' eyes")
        return kept.result(item)

    async def work() -> list[Job]:
        async with dispatching(kept, execute):
            return await ended(kept, kept.job(3))

    (job,) = run(work)
    assert (job.state, job.num_failed, job.num_succeeded) == ("failed", 1, 2)
    assert begun == {0: 3, 1: 3, 2: 1}
    failed, again, _ = kept.jobs.results(OWNER, job.id, after=None, limit=3).results
    assert failed.problem is not None and failed.problem.type == "job/crashed"
    assert "begun 3 times" in failed.problem.detail and "the decoder was killed" in failed.problem.detail
    assert (again.state, again.attempts) == ("succeeded", 3)


def test_who_has_crashed_is_labelled_beside_no_other_that_has(kept: Kept) -> None:
    suspects, most = 0, 0

    async def execute(item: Leased) -> Result | Crash:
        nonlocal suspects, most
        if item.attempts == 1:
            return Crash("somebody took all with him")
        suspects += 1
        most = max(most, suspects)
        await asyncio.sleep(0.02)
        suspects -= 1
        return kept.result(item)

    async def work() -> list[Job]:
        async with dispatching(kept, execute):
            return await ended(kept, kept.job(8))

    assert run(work)[0].state == "succeeded" and most == 1


def often_begun(kept: Kept, num_items: int) -> Job:
    """A job whose items have one attempt left."""
    job = kept.job(num_items)
    for attempt in range(1, kept.settings.max_attempts):
        for item in kept.queue.lease(num_items, suspected=attempt > 1):
            kept.queue.put_back(item)
    return job


def test_nothing_is_labelled_beside_a_last_attempt(kept: Kept) -> None:
    """Who is new may take his neighbours with him, too: two have, and a third does not make the innocent fail."""
    running, beside = list[Leased](), list[Leased]()

    async def execute(item: Leased) -> Result | Crash:
        running.append(item)
        for _ in range(4):
            if any(other.position == 0 and other.attempts == 3 for other in running):
                beside.extend(running)
            await asyncio.sleep(0.02)
        running.remove(item)
        return Crash("a neighbour took it along") if item.position == 0 and item.attempts < 3 else kept.result(item)

    async def work() -> list[Job]:
        async with dispatching(kept, execute):
            return await ended(kept, kept.job(20))

    assert run(work)[0].num_succeeded == 20
    assert {(item.position, item.attempts) for item in beside} == {(0, 3)}


def test_who_is_new_waits_for_one_last_attempt_and_not_for_all(kept: Kept) -> None:
    begun: list[str] = []

    async def execute(item: Leased) -> Result:
        begun.append(str(item.attempts))
        await asyncio.sleep(0.02)
        return kept.result(item)

    async def work() -> None:
        jobs = [often_begun(kept, 3), kept.job(9)]
        async with dispatching(kept, execute):
            await ended(kept, *jobs)

    run(work)
    assert "".join(begun) == "311113111131"


def test_where_one_attempt_is_all_there_is_items_are_labelled_beside_others(tmp_path: Path) -> None:
    together = asyncio.Barrier(3)

    async def execute(item: Leased) -> Result:
        await together.wait()
        return kept.result(item)

    async def work() -> list[Job]:
        async with dispatching(kept, execute):
            return await ended(kept, kept.job(3))

    with closing(Database(f"sqlite://{tmp_path}/vidseq.db")) as database:
        kept = Kept(database, tmp_path / "uploads", JobSettings(poll_seconds=0.02, max_attempts=1))
        assert run(work)[0].state == "succeeded"


def test_an_item_whose_dispatchers_die_fails_without_being_begun_a_fourth_time(kept: Kept) -> None:
    job = kept.job()
    for attempt in (1, 2, 3):
        (item,) = kept.queue.lease(1, suspected=attempt > 1)
        assert item.attempts == attempt
        kept.queue.put_back(item)  # as if its lease had run out

    async def execute(item: Leased) -> Result:
        raise AssertionError("it is begun once more")

    async def work() -> list[Job]:
        async with dispatching(kept, execute):
            return await ended(kept, job)

    assert run(work)[0].num_failed == 1
    problem = kept.jobs.results(OWNER, job.id, after=None, limit=1).results[0].problem
    assert problem is not None and "begun 3 times" in problem.detail and "not heard of again" in problem.detail


def test_what_is_cancelled_is_stopped(kept: Kept) -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def execute(item: Leased) -> Result:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        raise AssertionError("it is awaited for ever")

    async def work() -> None:
        job = kept.job()
        async with dispatching(kept, execute):
            await begun.wait()
            kept.jobs.cancel(OWNER, job.id)
            await asyncio.wait_for(stopped.wait(), SECONDS)
            assert kept.now(job).state == "cancelled"

    run(work)


def test_a_dispatcher_that_leaves_in_good_order_gives_back_what_it_holds(kept: Kept) -> None:
    async def execute(item: Leased) -> Result:
        await asyncio.Event().wait()
        return kept.result(item)

    async def work() -> None:
        async with dispatching(kept, execute):
            while kept.now(job).state != "running":
                await asyncio.sleep(0.01)

    job = kept.job(3)
    run(work)
    wait_until(lambda: [item.attempts for item in kept.queue.lease(9)] == [1, 1, 1], seconds=SECONDS)


def test_a_dispatcher_whose_leases_cannot_be_renewed_ends_and_says_why(kept: Kept) -> None:
    """It would else begin again and again what it is at work on."""

    class Broken(Queue):
        def renew(self, held: Sequence[Leased]) -> list[Leased]:
            raise RuntimeError("no lease can be renewed")

    async def execute(item: Leased) -> Result:
        await asyncio.Event().wait()
        return kept.result(item)

    kept.job(2)
    with pytest.raises(RuntimeError, match="no lease can be renewed"):
        run(Dispatcher(Broken(kept.database, kept.settings), kept.vault, execute).run)
    assert len(kept.queue.lease(9)) == 2, "both were given back"


# Labelled in the process of the model ------------------------------------------------------------


def execution(kept: Kept, classify: Any = count_bytes, *, charge: Charge = uncharged, at_once: int = 2) -> Execution:
    return Execution(kept.uploads, Whole(classify, None), kept.vault, charge=charge, at_once=at_once)


def item(kept: Kept, content: bytes = b"a video", **options: Any) -> Item:
    kept.jobs.create(OWNER, asked_for([inline(content)], options=options))
    (leased,) = kept.queue.lease(1)
    return Item(leased.job_id, leased.position, leased.owner, leased.upload_id, leased.options)


def test_an_item_is_labelled_as_a_request_would_be_and_charged(kept: Kept) -> None:
    charged: list[tuple[str, Used]] = []
    charging = execution(kept, charge=lambda owner, used: charged.append((owner, used)))
    asked = item(kept, b"12345", top_k=2, frames=False)
    body = kept.body(asked, run(lambda: charging.label(asked)))
    (prediction,) = Predictions.model_validate_json(body).predictions
    assert prediction.action is not None and prediction.action.label == "5 bytes"
    assert len(prediction.top) == 2 and prediction.frames == ()
    assert [(owner, used.frames_labelled) for owner, used in charged] == [(OWNER, 1)]


def test_a_video_that_is_none_is_a_problem_and_a_decoder_that_dies_is_a_crash(kept: Kept) -> None:
    asked = item(kept)
    refused = run(lambda: execution(kept, raising(UnsupportedContainer("it is a letter"))).label(asked))
    assert refused.end == "failed" and b"it is a letter" in kept.body(asked, refused)
    assert run(lambda: execution(kept, raising(DecoderCrashed("it fell"))).label(item(kept))) == Crash("it fell")


def test_what_is_not_there_any_more_is_a_problem(kept: Kept) -> None:
    asked = item(kept)
    gone = run(lambda: execution(kept, raising(ModelNotFound("it is gone"))).label(asked))
    assert b"it is gone" in kept.body(asked, gone)
    kept.uploads.delete(OWNER, asked.upload_id)
    assert b"upload/not-found" in kept.body(asked, run(lambda: execution(kept).label(asked)))


def test_no_more_are_labelled_at_once_than_may_be_and_who_stops_waiting_stops_it(kept: Kept) -> None:
    held = Held()

    async def work() -> None:
        running = execution(kept, held, at_once=1)
        first, second = (asyncio.create_task(running.label(item(kept))) for _ in range(2))
        await asyncio.to_thread(held.entered.wait, SECONDS)
        first.cancel()
        assert await asyncio.to_thread(held.stopped.wait, SECONDS)
        held.release.set()
        answer = await second
        assert isinstance(answer, Result) and answer.end == "succeeded"

    before = set(threading.enumerate())
    run(work)
    assert set(threading.enumerate()) <= before
