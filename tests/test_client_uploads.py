"""The SDK sends a file in pieces, and goes on whatever happens to connections, to the service, or to itself."""

import asyncio
import contextlib
import hashlib
import io
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
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
from tests.test_client import Ask, Script, Stub, Through, awaiting, blocking
from tests.test_uploads import SHA256, VIDEO, begun, content, send, uploads_in
from tests.upload_server import serve_at
from tests.web_server import running, toy_app
from vidseq.client import AsyncClient, Client
from vidseq.client.courses import Hashed
from vidseq.client.retries import Failures, Retries
from vidseq.client.uploads import open_upload
from vidseq.errors import (
    BodyTooLarge,
    ConnectionFailed,
    InputError,
    NotFound,
    OptionError,
    Overloaded,
    RequestRejected,
    RequestTimeout,
    ServerFault,
    SourceNotFound,
    UnexpectedAnswer,
)
from vidseq.schemas import Upload

SPAWN = multiprocessing.get_context("spawn")
PROBLEM = {"Content-Type": "application/problem+json", "Retry-After": "0"}


@pytest.fixture(params=[blocking, awaiting])
def through(request: pytest.FixtureRequest) -> Through:
    """`through(ask, base_url, ...)`: what `ask(client)` gives, with each of the two clients."""
    through: Through = request.param
    return through


@pytest.fixture
def uploads(sqlite_url: str, tmp_path: Path) -> Iterator[Uploads]:
    with closing(Database(sqlite_url)) as database:
        yield uploads_in(database, tmp_path / "uploads", max_upload_bytes=2**25)


@pytest.fixture
def service(uploads: Uploads) -> Iterator[str]:
    with running(toy_app(uploads=uploads, body_grace_seconds=1.0)) as url:
        yield url


def create(source: Any, **options: Any) -> Ask:
    return lambda client: client.uploads.create(source, **options)


def problem(status: int, kind: str) -> tuple[int, dict[str, str], bytes]:
    fields = f'"type": "{kind}", "title": "", "status": {status}, "detail": "", "request_id": "", "retryable": true'
    return status, PROBLEM, f"{{{fields}}}".encode()


def standing(offset: int) -> tuple[int, dict[str, str], bytes]:
    """What a service says of an upload of three bytes."""
    expires_at = datetime(2030, 1, 1, tzinfo=UTC)
    upload = Upload(id="a" * 32, num_bytes=3, offset=offset, complete=offset == 3, expires_at=expires_at)
    return 200, {"Content-Type": "application/json"}, upload.model_dump_json().encode()


@pytest.mark.parametrize("chunk_bytes", [1_000_000, len(VIDEO), 30_001])
def test_a_file_arrives_whole(
    through: Through, service: str, uploads: Uploads, tmp_path: Path, chunk_bytes: int
) -> None:
    (tmp_path / "clip.mp4").write_bytes(VIDEO)
    upload: Upload = through(create(tmp_path / "clip.mp4", chunk_bytes=chunk_bytes), service)
    assert (upload.complete, upload.sha256, upload.offset) == (True, SHA256, len(VIDEO))
    assert content(uploads, upload.id, owner="") == VIDEO


def test_bytes_and_the_rest_of_a_file_arrive_too(through: Through, service: str) -> None:
    file = io.BytesIO(b"before" + VIDEO)
    file.seek(6)
    for source in (VIDEO, file):
        assert through(create(source, chunk_bytes=9_999), service).sha256 == SHA256


def test_an_upload_is_looked_at_and_deleted(through: Through, service: str) -> None:
    upload: Upload = through(create(VIDEO), service)
    assert through(lambda client: client.uploads.get(upload), service) == upload
    assert through(lambda client: client.uploads.get(upload.id), service) == upload
    assert through(lambda client: client.uploads.delete(upload), service) is None
    for ask in ("get", "delete"):
        with pytest.raises(NotFound):
            through(lambda client, ask=ask: getattr(client.uploads, ask)(upload), service)


def test_progress_is_told_from_the_first_byte_to_the_last(through: Through, service: str) -> None:
    told = list[tuple[int, int | None]]()
    through(create(VIDEO, chunk_bytes=40_000, on_progress=lambda *counts: told.append(counts)), service)
    assert told == [(40_000, 100_000), (80_000, 100_000), (100_000, 100_000)]


# Cuts ----------------------------------------------------------------------------------------


def test_a_line_that_is_cut_ten_times_delays_it_and_nothing_else(
    through: Through, service: str, uploads: Uploads
) -> None:
    video = random.Random(7).randbytes(6_000_000)
    chance = random.Random(2)
    budgets = [chance.randrange(300_000, 550_000) for _ in range(10)]
    with Line(service, budgets) as line:
        upload = through(create(video, chunk_bytes=1_000_000), line.url)
    assert (line.num_cuts, upload.sha256) == (10, hashlib.sha256(video).hexdigest())
    assert content(uploads, upload.id, owner="") == video


def test_what_an_earlier_process_has_sent_is_not_sent_again(through: Through, service: str, uploads: Uploads) -> None:
    upload_id = begun(uploads, 60_000, owner="")
    told = list[int]()
    options = {"resume": upload_id, "on_progress": lambda num_sent, _total: told.append(num_sent)}
    upload = through(create(VIDEO, chunk_bytes=30_000, **options), service)
    assert (told, upload.id, upload.sha256) == ([90_000, 100_000], upload_id, SHA256)
    assert through(create(VIDEO, resume=upload), service) == upload  # there is nothing to do any more


def test_its_id_is_told_before_its_bytes_are_sent_so_that_it_can_be_resumed(through: Through, service: str) -> None:
    told = list[Upload]()

    def give_up(num_sent: int, _total: int | None) -> None:
        raise KeyError(num_sent)

    with pytest.raises(KeyError):
        through(create(VIDEO, chunk_bytes=10_000, on_created=told.append, on_progress=give_up), service)
    assert through(create(VIDEO, resume=told[0]), service).sha256 == SHA256


def test_another_file_does_not_go_on_with_it(through: Through, service: str, uploads: Uploads) -> None:
    upload_id = begun(uploads, 60_000, owner="")
    with pytest.raises(OptionError, match="100,000 bytes and the file 99,999: it is another"):
        through(create(VIDEO[1:], resume=upload_id), service)
    with pytest.raises(RequestRejected, match="SHA-256") as caught:
        through(create(bytes(len(VIDEO)), resume=upload_id), service)
    assert caught.value.type == "upload/digest"


def test_it_waits_for_a_connection_that_is_half_dead(through: Through, service: str, uploads: Uploads) -> None:
    upload_id = begun(uploads, 10, owner="")
    with uploads.append("", upload_id, offset=10) as dying:
        threading.Timer(1.0, dying.close).start()
        assert through(create(VIDEO, resume=upload_id), service).sha256 == SHA256


def test_bytes_that_somebody_else_has_sent_meanwhile_are_not_sent_again(
    through: Through, service: str, uploads: Uploads
) -> None:
    upload_id = begun(uploads, 10, owner="")

    def meanwhile(num_sent: int, _total: int | None) -> None:
        if num_sent == 20_010:
            with contextlib.suppress(Exception):
                send(uploads, upload_id, uploads.get("", upload_id).offset, 50_000, owner="")

    upload = through(create(VIDEO, resume=upload_id, chunk_bytes=20_000, on_progress=meanwhile), service)
    assert upload.sha256 == SHA256


def test_a_service_that_is_killed_and_started_again_is_waited_for(
    database_url: str, through: Through, tmp_path: Path
) -> None:
    port, going = free_port(), threading.Event()

    def started() -> Any:
        server = SPAWN.Process(target=serve_at, args=(port, database_url, tmp_path / "uploads"))
        server.start()
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx2.TransportError):
                if httpx2.get(f"http://127.0.0.1:{port}/livez").status_code == 200:
                    return server
            assert time.monotonic() < deadline and server.is_alive()
            time.sleep(0.1)

    def slowly(num_sent: int, _total: int | None) -> None:
        time.sleep(0.01)
        if num_sent >= 2_000_000:
            going.set()

    video = random.Random(3).randbytes(20_000_000)
    servers = [started()]

    def kill_and_start() -> None:
        assert going.wait(60)
        os.kill(servers[0].pid, signal.SIGKILL)
        servers[0].join()
        servers.append(started())

    killer = threading.Thread(target=kill_and_start)
    killer.start()
    try:
        upload = through(create(video, on_progress=slowly), f"http://127.0.0.1:{port}")
        killer.join(60)
    finally:
        for server in servers:
            server.kill()
            server.join()
    assert (len(servers), upload.sha256) == (2, hashlib.sha256(video).hexdigest())


def test_with_retries_switched_off_a_cut_is_the_end(through: Through, service: str) -> None:
    with Line(service, [500_000]) as line, pytest.raises(ConnectionFailed):
        through(create(random.Random(0).randbytes(10**6)), line.url, max_retries=0)


def test_a_slow_line_goes_on_for_as_long_as_something_comes(through: Through) -> None:
    slow, last = problem(408, "request/body-timeout"), (204, {"Upload-Offset": "3"}, b"")
    with Script(standing(0), slow, standing(1), slow, standing(2), last, standing(3)) as script:
        through(create(b"abc", resume="a" * 32, max_reconnects=1), script.url)
    assert [body for body in script.bodies if body][:3] == [b"abc", b"bc", b"c"]


def test_without_progress_it_gives_up(through: Through) -> None:
    full = problem(503, "service/leaving")
    answers = [standing(0), full, standing(0), full, standing(0), full]
    with Script(*answers) as script, pytest.raises(Overloaded, match="503"):
        through(create(b"abc", resume="a" * 32, max_reconnects=2), script.url)
    assert len(script.answers) == 0


# Refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "error"),
    [(b"", OptionError), ("no/such/file", SourceNotFound), (Stub(b"x"), OptionError), (io.StringIO("x"), OptionError)],
)
def test_what_cannot_be_sent_is_refused_before_anything_is(
    through: Through, source: Any, error: type[InputError]
) -> None:
    with Script() as script, pytest.raises(error):
        through(create(source), script.url)
    assert script.paths == []


@pytest.mark.parametrize("upload_id", ["", "..", "../models", "a/b", "a?b", "a%2fb", "é"])
def test_what_is_no_id_is_asked_of_nobody(through: Through, upload_id: str) -> None:
    with Script() as script:
        for ask in ("get", "delete"):
            with pytest.raises(OptionError, match="not the id"):
                through(lambda client, ask=ask: getattr(client.uploads, ask)(upload_id), script.url)
        with pytest.raises(OptionError, match="not the id"):
            through(create(b"x", resume=upload_id), script.url)
    assert script.paths == []


def test_a_chunk_has_a_byte_at_least(through: Through) -> None:
    with Script() as script, pytest.raises(OptionError, match="chunk_bytes is 0"):
        through(create(b"x", chunk_bytes=0), script.url)


def test_a_file_that_is_too_large_is_told_with_the_services_words(through: Through, service: str) -> None:
    with pytest.raises(BodyTooLarge, match="33,554,433 bytes; at most 33,554,432"):
        through(create(bytes(2**25 + 1)), service)


def test_a_full_disk_is_not_asked_again(through: Through, sqlite_url: str, tmp_path: Path) -> None:
    uploads = uploads_in(Database(sqlite_url), tmp_path / "uploads", min_free_bytes=2**60)
    with running(toy_app(uploads=uploads)) as url, pytest.raises(ServerFault, match="no room"):
        through(create(b"x"), url)


def test_a_file_that_shrinks_while_it_is_sent_is_told(through: Through, service: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(VIDEO)
    with pytest.raises(InputError, match="changed while it was sent"):
        through(create(path, on_created=lambda upload: os.truncate(path, 10)), service)


def test_a_service_that_does_not_say_where_it_stands_is_none(through: Through) -> None:
    with Script(standing(0), (204, {}, b"")) as script, pytest.raises(UnexpectedAnswer, match="Upload-Offset"):
        through(create(b"abc"), script.url)


def test_to_delete_what_a_lost_answer_was_about_is_no_error(through: Through) -> None:
    gone = (502, {"Content-Type": "text/plain"}, b"gone")
    with Script(gone, problem(404, "upload/not-found")) as script:
        assert through(lambda client: client.uploads.delete("a" * 32), script.url) is None


# Parts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ways", [[(0, 10), (10, 30)], [(10, 30)], [(0, 10), (5, 20)], [(0, 10), (20, 30)], [], [(0, 30)]]
)
def test_whatever_was_read_in_which_order_the_digest_is_that_of_the_file(ways: list[tuple[int, int]]) -> None:
    video = os.urandom(30)
    file = Hashed(open_upload(video, on_progress=None))
    for first, end in ways:
        assert b"".join(file.chunks(first, end)) == video[first:end]
    assert file.sha256() == hashlib.sha256(video).hexdigest()


def test_what_goes_on_where_it_was_cut_is_tried_again_more_often() -> None:
    Failures(Retries(1), repeatable=True, resumes=True).pause_seconds(RequestTimeout("x"))
    with pytest.raises(RequestTimeout):
        Failures(Retries(1), repeatable=True).pause_seconds(RequestTimeout("x"))


def test_the_two_clients_have_the_same_uploads(service: str) -> None:
    async def both() -> list[Upload]:
        async with AsyncClient(service) as client:
            return list(await asyncio.gather(*(client.uploads.create(VIDEO) for _ in range(3))))

    with Client(service) as client:
        found: list[Upload] = [client.uploads.create(VIDEO), *asyncio.run(both())]
    assert {upload.sha256 for upload in found} == {SHA256}
    assert len({upload.id for upload in found}) == 4
