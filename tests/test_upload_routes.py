"""Uploads over HTTP: cut, slow, doubled, too large, damaged, other people's; what came before a cut is kept."""

import contextlib
import hashlib
import http.client
import random
import socket
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from databases import *  # noqa: F403  fixtures
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.database.core import Database
from serving.keyring import KeyRing
from serving.quotas import COUNTED_BYTES
from serving.rates import RateSettings
from serving.uploads.uploads import Uploads
from tests.test_guard import bearer, made
from tests.test_uploads import SHA256, VIDEO, pass_time, uploads_in
from tests.test_web import answer_on, connect, problem_of
from tests.web_server import running, toy_app, wait_until
from vidseq.schemas import Upload

UPLOADS = "/v1/uploads"
OFFSET_TYPE = "application/offset+octet-stream"


@pytest.fixture
def uploads(database_url: str, tmp_path: Path) -> Iterator[Uploads]:
    with closing(Database(database_url)) as database:
        yield uploads_in(database, tmp_path / "uploads")


@contextlib.contextmanager
def asking(uploads: Uploads | None, **options: Any) -> Iterator[httpx2.Client]:
    with running(toy_app(uploads=uploads, **options)) as url, httpx2.Client(base_url=url, timeout=30) as client:
        yield client


@contextlib.contextmanager
def asking_here(folder: Path, *, grace_seconds: float) -> Iterator[httpx2.Client]:
    """A service on a SQLite, for all tests that do not look behind it."""
    with closing(Database(f"sqlite://{folder}/a.db")) as database:
        uploads = uploads_in(database, folder / "uploads", max_upload_bytes=50 * 2**20)
        with asking(uploads, max_body_bytes=50_000, body_grace_seconds=grace_seconds) as client:
            yield client


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    with asking_here(tmp_path_factory.mktemp("uploads"), grace_seconds=20.0) as client:
        yield client


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    with asking_here(tmp_path_factory.mktemp("uploads"), grace_seconds=3.0) as client:
        yield client


def begun(client: httpx2.Client, num_bytes: int = len(VIDEO), **more: Any) -> str:
    answer = client.post(UPLOADS, json={"num_bytes": num_bytes} | more)
    assert answer.status_code == 201, answer.text
    path: str = answer.headers["Location"]
    return path


def send(client: httpx2.Client, path: str, offset: int, content: Any, **headers: str) -> httpx2.Response:
    said = {"Content-Type": OFFSET_TYPE, "Upload-Offset": str(offset)} | headers
    return client.patch(path, content=content, headers=said)


def offset_of(client: httpx2.Client, path: str) -> int:
    return int(client.head(path).headers["Upload-Offset"])


def complete(client: httpx2.Client, path: str, sha256: str | None = SHA256) -> httpx2.Response:
    return client.post(f"{path}/complete", json={"sha256": sha256})


def head(path: str, offset: int, num_bytes: int) -> bytes:
    lines = [f"PATCH {path} HTTP/1.1", "Host: x", f"Content-Type: {OFFSET_TYPE}", f"Upload-Offset: {offset}"]
    return ("\r\n".join([*lines, f"Content-Length: {num_bytes}"]) + "\r\n\r\n").encode()


def begin_to_send(client: httpx2.Client, path: str, offset: int, end: int, video: bytes = VIDEO) -> socket.socket:
    """A connection on which all the rest was promised, and only the bytes up to `end` came."""
    connection = connect(client.base_url)
    connection.sendall(head(path, offset, len(video) - offset) + video[offset:end])
    return connection


# Good ones ----------------------------------------------------------------------------------------


def test_a_file_in_pieces_becomes_one_upload(uploads: Uploads) -> None:
    with asking(uploads) as client:
        path = begun(client)
        for first in range(0, len(VIDEO), 30_000):
            answer = send(client, path, first, VIDEO[first : first + 30_000])
            assert (answer.status_code, answer.content) == (204, b"")
            assert int(answer.headers["Upload-Offset"]) == min(first + 30_000, len(VIDEO))
        done = Upload.model_validate_json(complete(client, path).content)
        assert done == Upload.model_validate_json(client.get(path).content)
    assert (done.complete, done.sha256, path) == (True, SHA256, f"{UPLOADS}/{done.id}")
    with uploads.opened("", done.id) as file:
        assert file.read() == VIDEO


def test_where_it_stands_is_told_in_headers_and_as_json(client: httpx2.Client) -> None:
    path = begun(client, sha256=SHA256)
    send(client, path, 0, VIDEO[:10])
    told, answer = client.head(path), client.get(path).json()
    assert (told.headers["Upload-Offset"], told.headers["Upload-Length"]) == ("10", "100000")
    assert (told.status_code, told.headers["Cache-Control"], told.content) == (200, "no-store", b"")
    assert answer.pop("expires_at").endswith("Z")
    named = {"id": path.rpartition("/")[2], "sha256": SHA256}
    assert answer == named | {"num_bytes": 100_000, "offset": 10, "complete": False}


def test_a_piece_may_be_larger_than_a_video_of_one_request_and_come_without_a_length(client: httpx2.Client) -> None:
    path = begun(client)
    answer = send(client, path, 0, iter([VIDEO[:70_000], VIDEO[70_000:]]))
    assert answer.request.headers["Transfer-Encoding"] == "chunked"
    assert complete(client, path).json()["complete"]


def test_what_is_deleted_is_gone(client: httpx2.Client) -> None:
    path = begun(client)
    assert client.delete(path).status_code == 204
    for answer in (client.delete(path), client.get(path), send(client, path, 0, b"x"), complete(client, path)):
        assert problem_of(answer).type == "upload/not-found"
    assert client.head(path).status_code == 404


def test_memory_stays_flat_while_much_comes(client: httpx2.Client) -> None:
    piece, num_pieces = bytes(2**20), 40
    path = begun(client, num_pieces * len(piece))
    tracemalloc.start()
    try:
        answer = send(client, path, 0, (piece for _ in range(num_pieces)))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (answer.status_code, peak_bytes < 8 * 2**20) == (204, True)
    client.delete(path)


# Cuts ----------------------------------------------------------------------------------------


@settings(max_examples=8)
@given(ends=st.lists(st.integers(1, len(VIDEO) - 1), max_size=4).map(sorted))
def test_wherever_a_connection_is_cut_the_file_is_the_same(client: httpx2.Client, ends: list[int]) -> None:
    path = begun(client)
    for end in ends:
        offset = offset_of(client, path)
        with begin_to_send(client, path, offset, max(end, offset)):
            pass
        wait_until(lambda: send(client, path, 2**40, b"").json()["type"] != "upload/busy")
    assert offset_of(client, path) <= max(ends, default=0)

    def sent() -> bool:
        """What was cut may be at work still: then it is busy, or the offset is another by then."""
        offset = offset_of(client, path)
        return send(client, path, offset, VIDEO[offset:]).status_code == 204

    wait_until(sent)
    assert complete(client, path).json()["complete"]
    client.delete(path)


def test_what_was_received_before_a_cut_is_kept(client: httpx2.Client) -> None:
    path = begun(client)
    with begin_to_send(client, path, 0, 90_000):
        time.sleep(2.0)  # the service has it
    wait_until(lambda: offset_of(client, path) == 90_000)
    wait_until(lambda: send(client, path, 90_000, VIDEO[90_000:]).status_code == 204)  # not while it is being closed
    assert complete(client, path).status_code == 200


def test_a_connection_that_is_half_dead_keeps_the_next_out_until_it_is_cut(impatient: httpx2.Client) -> None:
    video = VIDEO * 6
    path = begun(impatient, len(video))
    with begin_to_send(impatient, path, 0, 400_000, video) as dying:
        wait_until(lambda: offset_of(impatient, path) > 0)  # from here on the file is locked
        busy = send(impatient, path, 400_000, video[400_000:])
        problem = problem_of(busy)
        assert (problem.type, problem.status, problem.retryable) == ("upload/busy", 409, True)
        assert busy.headers["Retry-After"] == "1"
        status, told = answer_on(dying)
    assert (status, told["type"]) == (408, "request/body-timeout")
    assert send(impatient, path, 400_000, video[400_000:]).status_code == 204
    assert complete(impatient, path, hashlib.sha256(video).hexdigest()).status_code == 200


def test_bytes_that_come_too_slowly_are_given_up_and_kept(impatient: httpx2.Client) -> None:
    path = begun(impatient)
    with connect(impatient.base_url) as connection:
        connection.sendall(head(path, 0, len(VIDEO)))
        with contextlib.suppress(ConnectionError):
            for number in range(40):
                connection.sendall(VIDEO[number : number + 1])
                time.sleep(0.1)
        status, told = answer_on(connection)
    assert (status, told["type"]) == (408, "request/body-timeout")
    assert 0 < offset_of(impatient, path) <= 40


def test_where_others_are_the_next_bytes_it_is_told_which(client: httpx2.Client) -> None:
    path = begun(client)
    send(client, path, 0, VIDEO[:10])
    for offset in (0, 11):
        answer = send(client, path, offset, VIDEO[offset:])
        assert (problem_of(answer).type, answer.headers["Upload-Offset"]) == ("upload/offset", "10")
    assert offset_of(client, path) == 10


# Refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [True, False])
def test_more_than_was_declared_is_refused(client: httpx2.Client, chunked: bool) -> None:
    path = begun(client)
    answer = send(client, path, 0, iter([VIDEO, b"x"]) if chunked else VIDEO + b"x")
    problem = problem_of(answer)
    assert (problem.status, problem.type) == (413, "upload/too-large")
    assert offset_of(client, path) == 0


def test_more_than_one_may_have_is_refused_beforehand(client: httpx2.Client) -> None:
    problem = problem_of(client.post(UPLOADS, json={"num_bytes": 50 * 2**20 + 1}))
    assert (problem.status, problem.type) == (413, "upload/too-large")


def test_what_is_no_upload_is_refused_with_a_sentence(client: httpx2.Client) -> None:
    for body in ({}, {"num_bytes": 0}, {"num_bytes": -1}, {"num_bytes": 1, "name": "../x"}, {"num_bytes": 2**60}):
        assert problem_of(client.post(UPLOADS, json=body)).type == "option/invalid"
    for sha256 in ("", "z" * 64, "0" * 65):
        assert problem_of(client.post(UPLOADS, json={"num_bytes": 1, "sha256": sha256})).status == 422
    assert problem_of(client.post(UPLOADS, content=b"x")).status == 415


def test_a_piece_without_its_offset_or_of_another_type_is_refused(client: httpx2.Client) -> None:
    path = begun(client)
    assert problem_of(client.patch(path, content=b"x", headers={"Content-Type": OFFSET_TYPE})).status == 422
    assert problem_of(send(client, path, -1, b"x")).status == 422
    assert problem_of(send(client, path, 0, b"x", **{"Content-Type": "video/mp4"})).status == 415


def test_a_piece_that_was_damaged_on_its_way_is_not_kept(client: httpx2.Client) -> None:
    path = begun(client)
    send(client, path, 0, VIDEO[:5])
    good = "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:"  # of "hello"
    refused = send(client, path, 5, b"hallo", **{"Content-Digest": good})
    assert problem_of(refused).type == "body/digest_mismatch"
    assert offset_of(client, path) == 5
    assert send(client, path, 5, b"hello", **{"Content-Digest": good}).headers["Upload-Offset"] == "10"


def test_what_is_too_short_or_another_is_not_complete(client: httpx2.Client) -> None:
    path = begun(client)
    send(client, path, 0, VIDEO[:-1])
    assert problem_of(complete(client, path)).type == "upload/incomplete"
    send(client, path, len(VIDEO) - 1, VIDEO[-1:])
    wrong = problem_of(complete(client, path, "0" * 64))
    assert (wrong.status, wrong.type) == (422, "upload/digest")
    assert SHA256 in wrong.detail
    assert problem_of(complete(client, path, None)).type == "option/invalid"
    assert complete(client, path).content == complete(client, path).content == complete(client, path, None).content


@pytest.mark.parametrize("name", ["..%2f..%2fvidseq.db", "%2e%2e", "%00", "a" * 65, "0" * 32, "%C3%A9" * 32, "..%5c"])
def test_what_is_no_id_is_not_found(client: httpx2.Client, name: str) -> None:
    for method in ("GET", "HEAD", "DELETE", "PATCH"):
        with closing(http.client.HTTPConnection(client.base_url.host, client.base_url.port or 80)) as connection:
            connection.request(method, f"{UPLOADS}/{name}", headers={"Content-Type": OFFSET_TYPE, "Upload-Offset": "0"})
            assert connection.getresponse().status in (404, 422)


def test_without_a_folder_no_uploads_are_taken() -> None:
    with asking(None) as client:
        problem = problem_of(client.post(UPLOADS, json={"num_bytes": 1}))
    assert (problem.status, "takes no uploads" in problem.detail) == (422, True)


def test_a_full_disk_is_a_problem_and_no_crash(tmp_path: Path, sqlite_url: str) -> None:
    with closing(Database(sqlite_url)) as database:
        with asking(uploads_in(database, tmp_path / "uploads")) as client:
            path = begun(client)
        with asking(uploads_in(database, tmp_path / "uploads", min_free_bytes=2**60)) as client:
            for answer in (client.post(UPLOADS, json={"num_bytes": 1}), send(client, path, 0, VIDEO)):
                problem = problem_of(answer)
                assert (problem.status, problem.type) == (507, "upload/storage-full")
            assert offset_of(client, path) == 0


def test_what_has_expired_is_not_found(uploads: Uploads, database_url: str) -> None:
    with asking(uploads) as client:
        path = begun(client)
        with closing(Database(database_url)) as database:
            pass_time(database, 24 * 3600 + 1)
        assert problem_of(client.get(path)).type == "upload/not-found"
        assert problem_of(send(client, path, 0, b"x")).type == "upload/not-found"


# Keys ----------------------------------------------------------------------------------------


def test_an_upload_is_its_keys_alone(uploads: Uploads, tmp_path: Path) -> None:
    scopes = {"ann": "classify", "ben": "classify", "eve": "stream"}
    ann, ben, eve = (made(tmp_path / "keys.db", name, [scope]) for name, scope in scopes.items())
    with asking(uploads, keys=KeyRing(tmp_path / "keys.db")) as client:
        client.headers = httpx2.Headers(bearer(ann))
        path = begun(client)
        send(client, path, 0, VIDEO)
        for key, status in ((ben, 404), (eve, 403)):
            client.headers = httpx2.Headers(bearer(key))
            answers = [client.get(path), client.delete(path), complete(client, path), send(client, path, 0, b"x")]
            assert {answer.status_code for answer in [*answers, client.head(path)]} == {status}
        client.headers = httpx2.Headers(bearer(ann))
        assert complete(client, path).json()["complete"]


def test_a_key_can_have_its_uploads_forgotten(uploads: Uploads, tmp_path: Path) -> None:
    ann = made(tmp_path / "keys.db", "ann", ["classify"])
    with asking(uploads, keys=KeyRing(tmp_path / "keys.db")) as client:
        client.headers = httpx2.Headers(bearer(ann))
        path = begun(client)
        assert client.delete("/v1/data").json()["uploads"] == 1
        assert client.get(path).status_code == 404
    assert list((tmp_path / "uploads").iterdir()) == []


def test_a_piece_larger_than_a_keys_rate_is_kept_as_far_as_it_went(uploads: Uploads, tmp_path: Path) -> None:
    ann = made(tmp_path / "keys.db", "ann", ["classify"])
    rates = RateSettings(bytes_per_minute=2**25)
    with asking(uploads, keys=KeyRing(tmp_path / "keys.db"), rates=rates, max_body_bytes=1_000) as client:
        client.headers = httpx2.Headers(bearer(ann))
        path = begun(client, 2**26)
        began = time.monotonic()
        refused = send(client, path, 0, bytes(2**26))
        minutes = (time.monotonic() - began) / 60
        assert (problem_of(refused).type, refused.status_code) == ("key/rate", 429)
        assert int(refused.headers["Retry-After"]) > 0
        assert 2**24 < offset_of(client, path) <= 2**25 * (1 + minutes) + COUNTED_BYTES


def test_a_random_order_of_everything_gives_the_file_that_was_sent(client: httpx2.Client) -> None:
    """Pieces, cuts, doubled and early pieces, as they come."""
    chance, path = random.Random(1), begun(client)
    while (offset := offset_of(client, path)) < len(VIDEO):
        first = max(0, offset + chance.choice([0, 0, 0, -5, 5]))
        end = min(first + chance.randrange(1, 40_000), len(VIDEO))
        if chance.random() < 0.5:
            assert send(client, path, first, VIDEO[first:end]).status_code in (204, 409)
        else:
            begin_to_send(client, path, first, end).close()
    assert hashlib.sha256(VIDEO).hexdigest() == complete(client, path).json()["sha256"]
