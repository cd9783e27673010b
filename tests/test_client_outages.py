"""Jobs and a service that is away, full, or refuses: nothing is left behind, a wait goes on, a deletion is done."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from databases import *  # noqa: F403  fixtures
from running import free_port

from serving.database.core import Database
from serving.uploads.uploads import Uploads
from tests.line import Line
from tests.test_client import Through, awaiting, blocking
from tests.test_client_jobs import QUICK, service
from tests.test_uploads import uploads_in
from tests.toy_jobs import Kept, worked_at
from tests.web_server import Held, running, toy_app, wait_until
from vidseq.client import AsyncClient
from vidseq.client.answers import status_error
from vidseq.client.retries import Retries
from vidseq.client.watching import Watching
from vidseq.errors import (
    ConnectionFailed,
    InputError,
    JobUnfinished,
    NotFound,
    OptionError,
    Overloaded,
    RequestTimeout,
    ServerFault,
    ServiceError,
    UnexpectedAnswer,
)
from vidseq.jobs import Job


@pytest.fixture(params=[blocking, awaiting])
def through(request: pytest.FixtureRequest) -> Through:
    """`through(ask, base_url, ...)`: what `ask(client)` gives, with each of the two clients."""
    through: Through = request.param
    return through


@pytest.fixture
def uploads(sqlite_url: str, tmp_path: Path) -> Iterator[Uploads]:
    """Of which a key may have three."""
    with closing(Database(sqlite_url)) as database:
        yield uploads_in(database, tmp_path / "uploads", max_owner_uploads=3)


@pytest.fixture
def url(uploads: Uploads) -> Iterator[str]:
    with running(toy_app(uploads=uploads)) as url:
        yield url


class Between:
    """A proxy that loses its service for a moment: it answers 502 to the next requests of these methods.

    To those of `lost` after the service has done what it was asked; `away` never reach it.
    """

    def __init__(self, *, lost: tuple[str, ...] = (), away: tuple[str, ...] = ()) -> None:
        self.lost = list(lost)
        self.away = list(away)

    def around(self, app: Any) -> Any:
        async def between(scope: Any, receive: Any, send: Any) -> None:
            method = scope.get("method")
            if method not in self.lost + self.away:
                await app(scope, receive, send)
                return
            if method in self.lost:
                self.lost.remove(method)
                await app(scope, receive, unheard)
            else:
                self.away.remove(method)
            await send({"type": "http.response.start", "status": 502, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})

        return between


async def unheard(message: Any) -> None:
    pass


@contextlib.contextmanager
def running_at(port: int, app: Any) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", port)) as listener, running(app, fd=listener.fileno()) as url:
        yield url


def kept_in(folder: Path) -> list[str]:
    """The ids of the uploads whose files are there."""
    return [file.stem for file in (folder / "uploads").iterdir()]


def create(videos: list[Any], **options: Any) -> Callable[[Any], Any]:
    return lambda client: client.jobs.create(videos, **options)


# Uploads that fail -------------------------------------------------------------------------------


def test_of_uploads_that_were_too_many_none_stays_and_the_quota_is_free_again(
    through: Through, url: str, tmp_path: Path
) -> None:
    apart = blocking(lambda client: client.uploads.create(b"1"), url)
    for _ in range(2):
        with pytest.raises(Overloaded) as caught:
            through(create([b"2", apart, b"3", b"4"]), url, max_retries=0)
        assert (caught.value.status, caught.value.type) == (429, "upload/quota")
        assert kept_in(tmp_path) == [apart.id]


def test_of_uploads_on_a_line_that_is_cut_none_stays_nor_the_half_of_one(
    through: Through, url: str, tmp_path: Path
) -> None:
    with Line(url, [500_000]) as line, pytest.raises(ConnectionFailed):
        through(create([b"1", bytes(10**6), b"3"]), line.url, max_retries=0)
    assert kept_in(tmp_path) == []


def test_whatever_is_wrong_with_a_later_video_the_earlier_ones_do_not_stay(
    through: Through, url: str, tmp_path: Path
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"123")
    with pytest.raises(OptionError, match="0 bytes"):
        through(create([b"1", b""]), url)
    with pytest.raises(InputError, match="cannot read"):
        through(create([b"1", clip], on_uploaded=lambda *_: clip.unlink()), url)
    with pytest.raises(OptionError, match="idempotency_key"):
        through(create([b"1"], idempotency_key=""), url)
    assert kept_in(tmp_path) == []


def test_whoever_is_interrupted_between_two_videos_leaves_none(through: Through, url: str, tmp_path: Path) -> None:
    def interrupt(num_uploaded: int, _total: int) -> None:
        if num_uploaded == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        through(create([b"1", b"2", b"3"], on_uploaded=interrupt), url)
    assert kept_in(tmp_path) == []


def test_a_task_that_is_cancelled_while_it_uploads_leaves_none(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        this = asyncio.current_task()
        assert this is not None
        async with AsyncClient(url) as client:
            await client.jobs.create([b"1", b"2"], on_uploaded=lambda *_: this.cancel())

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(work())
    assert kept_in(tmp_path) == []


def test_where_uploads_cannot_be_deleted_either_the_first_error_is_told(
    through: Through, uploads: Uploads, tmp_path: Path
) -> None:
    between = Between(away=("DELETE",) * 2)
    with running(between.around(toy_app(uploads=uploads))) as url, pytest.raises(OptionError, match="0 bytes"):
        through(create([b"1", b"2", b""]), url, max_retries=0)
    assert len(between.away) == 1, "of a service that is away no more is asked"
    assert len(kept_in(tmp_path)) == 2


# A wait ------------------------------------------------------------------------------------------


def test_a_wait_outlives_a_service_that_is_started_anew(through: Through, tmp_path: Path) -> None:
    held, port, seen = Held(), free_port(), list[str]()

    def wait(client: Any) -> Any:
        return client.jobs.wait(job.id, on_progress=lambda now: seen.append(now.state))

    with closing(Database(f"sqlite://{tmp_path}/vidseq.db")) as database:
        kept = Kept(database, tmp_path / "uploads", QUICK)
        with worked_at(kept, held), ThreadPoolExecutor() as beside:
            with running_at(port, toy_app(uploads=kept.uploads, jobs=kept.jobs)) as url:
                job = blocking(create([b"1"]), url)
                waiting = beside.submit(through, wait, url, max_retries=1)
                wait_until(lambda: "running" in seen)
            time.sleep(2.5)  # more than one retry of a look takes
            held.release.set()
            assert not waiting.done()
            with running_at(port, toy_app(uploads=kept.uploads, jobs=kept.jobs)):
                assert waiting.result(60).state == seen[-1] == "succeeded"


def test_a_wait_outlives_looks_that_fail_in_between(through: Through, tmp_path: Path) -> None:
    between = Between(away=("GET",) * 4)  # two looks, each with its retry
    with service(tmp_path, around=between.around) as client:
        job = client.jobs.create([b"1"])
        waited = through(lambda client: client.jobs.wait(job.id, timeout_seconds=60), client.base_url, max_retries=1)
        assert (waited.state, between.away) == ("succeeded", [])


def test_what_a_wait_met_is_told_when_its_time_is_over(through: Through) -> None:
    nowhere, began_seconds = f"http://127.0.0.1:{free_port()}", time.monotonic()
    with pytest.raises(ConnectionFailed):
        through(lambda client: client.jobs.wait("job_1", timeout_seconds=2.0), nowhere, max_retries=1)
    assert time.monotonic() - began_seconds >= 2.0


def test_with_retries_switched_off_the_first_look_that_fails_is_the_last(through: Through, tmp_path: Path) -> None:
    between = Between(away=("GET",) * 2)
    with service(tmp_path, around=between.around) as client, pytest.raises(ServerFault, match="502"):
        through(lambda client: client.jobs.wait("job_1", timeout_seconds=60), client.base_url, max_retries=0)
    assert len(between.away) == 1


def watching(timeout_seconds: float | None = None) -> Watching:
    return Watching(None, timeout_seconds, Retries(1), max_away_seconds=0.05)


def a_job() -> Job:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    counts = {"num_items": 1, "num_succeeded": 0, "num_failed": 0, "num_cancelled": 0}
    return Job(id="job_1", state="running", created_at=at, finished_at=None, expires_at=at, **counts)


def test_a_wait_without_an_end_ends_after_failures_in_a_row() -> None:
    watched, away = watching(), ConnectionFailed("x")
    for _ in range(3):
        assert 0 < watched.seconds_after_failure(away) <= 0.05
        time.sleep(0.06)
        assert watched.seconds_after(a_job()) is not None  # the row is broken
    watched.seconds_after_failure(away)
    time.sleep(0.06)
    with pytest.raises(ConnectionFailed):
        watched.seconds_after_failure(away)


def test_a_wait_with_an_end_goes_on_until_then_whoever_is_away() -> None:
    watched = watching(timeout_seconds=1.0)
    for _ in range(2):
        assert watched.seconds_after_failure(ConnectionFailed("x")) > 0.05
        time.sleep(0.06)
    time.sleep(1.0)
    with pytest.raises(JobUnfinished):
        watched.seconds_after(a_job())


def answered(status: int) -> ServiceError:
    return status_error(httpx2.Response(status))


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_service_that_is_full_or_away_is_waited_for(status: int) -> None:
    assert watching().seconds_after_failure(answered(status)) > 0


def test_a_look_that_takes_too_long_is_waited_out() -> None:
    assert watching().seconds_after_failure(RequestTimeout("x")) > 0


@pytest.mark.parametrize(
    "error", [answered(401), answered(404), answered(500), answered(501), UnexpectedAnswer("x")], ids=repr
)
def test_what_waiting_does_not_help_is_told_at_once(error: ServiceError) -> None:
    with pytest.raises(type(error)):
        watching().seconds_after_failure(error)


# A deletion --------------------------------------------------------------------------------------


def test_to_delete_a_job_again_after_a_lost_answer_is_no_error(through: Through, tmp_path: Path) -> None:
    between = Between(lost=("DELETE",))
    with service(tmp_path, around=between.around) as client:
        job = client.jobs.create([b"1"])
        assert through(lambda client: client.jobs.delete(job), client.base_url, max_retries=1) is None
        assert (between.lost, list(client.jobs.list())) == ([], [])
        with pytest.raises(NotFound):
            through(lambda client: client.jobs.delete(job), client.base_url, max_retries=1)  # nothing was lost
