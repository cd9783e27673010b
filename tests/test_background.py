"""What a control application does for jobs: begun with it, given back when it ends, in good order and once."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from serving.database.core import Database
from serving.jobs.background import Background
from serving.jobs.queue import Leased, Outcome
from serving.jobs.settings import JobSettings
from serving.web import create_control_app
from serving.web_settings import WebSettings
from tests.toy_jobs import Kept
from tests.web_server import running, wait_until

SECONDS = 20.0
LONG_SECONDS = 600.0


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    """Leases outlive a test: what is due again was given back."""
    with closing(Database(f"sqlite://{tmp_path}/vidseq.db")) as database:
        yield Kept(database, tmp_path / "uploads", JobSettings(poll_seconds=0.02, lease_seconds=LONG_SECONDS))


async def for_ever(_item: Leased) -> Outcome:
    await asyncio.Event().wait()
    raise AssertionError("it is awaited for ever")


@asynccontextmanager
async def begun(kept: Kept) -> AsyncIterator[Background]:
    """A background at work on a job of three items."""
    background = Background(kept.database, kept.vault, for_ever, kept.settings)
    job = kept.job(3)
    async with asyncio.timeout(SECONDS), background.lifespan(None):
        while kept.now(job).state != "running":
            await asyncio.sleep(0.01)
        yield background


def attempts(kept: Kept) -> list[int]:
    """Of what was given back, with the one that is begun with this."""
    return [item.attempts for item in kept.queue.lease(9)]


def test_a_control_application_that_is_stopped_gives_back_what_it_holds(kept: Kept) -> None:
    """As Serve stops a replica: by the lifespan of its application."""
    background = Background(kept.database, kept.vault, for_ever, kept.settings)
    app = create_control_app(ready=lambda: None, metrics=None, settings=WebSettings(), lifespan=background.lifespan)
    job = kept.job(3)
    with running(app):
        wait_until(lambda: kept.now(job).state == "running", seconds=SECONDS)
    assert attempts(kept) == [1, 1, 1]


def test_to_end_twice_is_to_end_once(kept: Kept) -> None:
    async def work() -> None:
        async with begun(kept) as background:
            await asyncio.gather(background.end(), background.end())
            await background.end()

    asyncio.run(work())
    assert attempts(kept) == [1, 1, 1]


def test_who_stops_waiting_for_the_end_does_not_stop_it(kept: Kept) -> None:
    async def work() -> None:
        async with begun(kept) as background:
            leaving = asyncio.create_task(background.end())
            await asyncio.sleep(0)
            leaving.cancel()

    asyncio.run(work())
    assert attempts(kept) == [1, 1, 1]
