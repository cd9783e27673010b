"""What is kept of somebody's videos: each kind has its time, is forgotten on request, and no upload touches a disk."""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest
from databases import *  # noqa: F403  fixtures
from typer.testing import CliRunner

from serving.database.core import Database
from serving.database.errors import DatabaseDown
from serving.keyring import KeyRing
from serving.once.kept import Answer, Claim, Kept, OnceSettings
from serving.once.once import Once
from serving.once.question import Question
from serving.sealing import Vault, load_keys, new_key
from serving.store import Lifetimes, open_store
from tests import toy_jobs
from tests.redis_server import running_redis
from tests.stores import new
from tests.stream_server import stream_app, talking
from tests.test_guard import bearer, made
from tests.test_uploads import uploads_in
from tests.test_web import RAW, problem_of
from tests.toy_streams import toy_frames, toy_live
from tests.web_server import Held, running, toy_app
from vidseq.cli import app
from vidseq.client import Client
from vidseq.errors import SessionNotFound
from vidseq.live import Live
from vidseq.messages import Applied, Failed, pack_frames

ANN, BEN = "0123456789ab", "ba9876543210"


def kept_in(database: Database, **settings: float) -> Kept:
    return Kept(database, Vault(load_keys(new_key())), OnceSettings.model_validate(settings))


NAME = bytes(range(100, 132))  # a hash of what an owner calls a request


def keep(kept: Kept, owner: str, *, body: bytes = b"labels") -> None:
    claim = kept.claim(Question(owner, NAME, b"a" * 32, "0" * 64))
    assert isinstance(claim, Claim)
    assert kept.keep(claim, Answer(200, body))


# Kept answers -----------------------------------------------------------------------------------------


def test_a_kept_answer_is_gone_after_its_time(database_url: str) -> None:
    with closing(Database(database_url)) as database:
        kept = kept_in(database, kept_seconds=0.2)
        keep(kept, ANN)
        time.sleep(0.3)
        assert kept.sweep() == 1
        assert kept.held(ANN).num_requests == 0


def test_nothing_of_a_forgotten_answer_is_left_in_any_file(tmp_path: Path) -> None:
    """It is sealed: the hash of what its owner called it is not."""
    with closing(Database(f"sqlite://{tmp_path}/vidseq.db")) as database:
        kept = kept_in(database)
        keep(kept, ANN, body=bytes(50_000))
        assert bytes_found(tmp_path, NAME)
        assert kept.forget(ANN) == 1
        assert not bytes_found(tmp_path, NAME)


def bytes_found(folder: Path, word: bytes) -> bool:
    return any(word in path.read_bytes() for path in folder.iterdir())


def test_whoever_reads_old_pages_is_told_of(tmp_path: Path) -> None:
    with closing(Database(f"sqlite://{tmp_path}/vidseq.db")) as database:
        kept = kept_in(database)
        keep(kept, ANN)
        with closing(sqlite3.connect(tmp_path / "vidseq.db", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM idempotent_answers").fetchone()
            with pytest.raises(DatabaseDown):
                kept.forget(ANN)
        assert kept.forget(ANN) == 0


# On request ------------------------------------------------------------------------------------------


class Service(NamedTuple):
    url: str
    keys: dict[str, str]
    kept: Kept


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with toy_live(tmp_path_factory.mktemp("live")) as live:
        yield live


@pytest.fixture
def service(live: Live, tmp_path: Path) -> Iterator[Service]:
    file = tmp_path / "keys.db"
    keys = {name: made(file, name, ["classify", "stream"]) for name in ("ann", "ben")}
    keys["admin"] = made(file, "admin", ["admin"])
    with closing(Database(f"sqlite://{tmp_path}/vidseq.db")) as database:
        kept = kept_in(database)
        with running(stream_app(live, tmp_path, keys=KeyRing(file), once=Once(kept))) as url:
            yield Service(url, keys, kept)


def used_by(service: Service, name: str) -> str:
    """Two sessions and a kept answer; the name of one of the sessions."""
    headers = bearer(service.keys[name])
    with httpx2.Client(base_url=service.url, headers=headers) as client:
        sessions = [client.post("/v1/sessions", json={}).json()["session"] for _ in range(2)]
        assert client.post("/v1/classify", content=b"v", headers=RAW | {"Idempotency-Key": "1"}).status_code == 200
    return str(sessions[0])


def status_of(service: Service, name: str, session: str) -> int:
    return httpx2.get(f"{service.url}/v1/sessions/{session}", headers=bearer(service.keys[name])).status_code


def forgotten(service: Service, name: str, query: str = "") -> httpx2.Response:
    return httpx2.delete(f"{service.url}/v1/data{query}", headers=bearer(service.keys[name]))


def test_a_key_has_all_that_is_its_own_forgotten_and_hears_how_much(service: Service) -> None:
    session, other = used_by(service, "ann"), used_by(service, "ben")
    answer = forgotten(service, "ann")
    assert (answer.status_code, answer.json()) == (200, {"sessions": 2, "answers": 1, "uploads": 0, "jobs": 0})
    assert (status_of(service, "ann", session), status_of(service, "ben", other)) == (404, 200)
    assert service.kept.held(service.keys["ann"][4:16]).num_requests == 0
    assert service.kept.held(service.keys["ben"][4:16]).num_requests == 1
    assert forgotten(service, "ann").json() == {"sessions": 0, "answers": 0, "uploads": 0, "jobs": 0}


def test_an_admin_names_another_and_nobody_else_may(service: Service) -> None:
    session = used_by(service, "ann")
    ann = service.keys["ann"][4:16]
    problem = problem_of(forgotten(service, "ben", f"?owner={ann}"))
    assert (problem.status, problem.type, status_of(service, "ann", session)) == (403, "key/scope", 200)
    assert forgotten(service, "admin", f"?owner={ann}").json() == {"sessions": 2, "answers": 1, "uploads": 0, "jobs": 0}
    assert status_of(service, "ann", session) == 404


def test_a_client_forgets_through_the_sdk(service: Service) -> None:
    used_by(service, "ann")
    with Client(service.url, service.keys["ann"]) as client:
        done = client.forget()
    assert (done.sessions, done.answers) == (2, 1)


def test_an_open_stream_hears_that_it_was_forgotten_at_its_next_push(service: Service) -> None:
    push = pack_frames(toy_frames(3))
    with talking(service.url, additional_headers=bearer(service.keys["ann"])) as client:
        client.open(input="frames")
        client.say(push)
        assert isinstance(client.hear(), Applied)
        assert forgotten(service, "ann").json()["sessions"] == 1
        client.say(push)
        failed = client.hear()
    assert isinstance(failed, Failed) and failed.problem.type == "session/not-found"


def test_what_is_labelled_meanwhile_is_answered_and_not_kept(tmp_path: Path) -> None:
    held = Held()
    key = made(tmp_path / "keys.db", "ann", ["classify"])
    headers = RAW | bearer(key) | {"Idempotency-Key": "1"}
    answers = list[int]()
    with closing(Database(f"sqlite://{tmp_path}/vidseq.db")) as database:
        kept = kept_in(database)
        with running(toy_app(held, keys=KeyRing(tmp_path / "keys.db"), once=Once(kept))) as url:

            def ask() -> None:
                answers.append(httpx2.post(url + "/v1/classify", content=b"v", headers=headers).status_code)

            asking = threading.Thread(target=ask)
            asking.start()
            held.entered.wait(20)
            httpx2.delete(url + "/v1/data", headers=bearer(key))
            held.release.set()
            asking.join(20)
        assert (answers, kept.held(key[4:16]).num_requests) == ([409], 0)


def test_an_open_service_does_not_forget_what_belongs_to_everybody(live: Live, tmp_path: Path) -> None:
    with running(stream_app(live, tmp_path)) as url:
        session = httpx2.post(f"{url}/v1/sessions", json={}).json()["session"]
        assert problem_of(httpx2.delete(f"{url}/v1/data")).status == 422
        assert problem_of(httpx2.delete(f"{url}/v1/data?owner={ANN}")).status == 422
        assert httpx2.get(f"{url}/v1/sessions/{session}").status_code == 200


# By the operator ---------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "redis"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite://{tmp_path}/sessions.db"
        return
    with running_redis() as url:
        yield url


def cli(*words: str) -> tuple[int, str]:
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["forget", *words])
    return done.exit_code, done.output + str(done.exception or "")


def test_the_command_forgets_in_all_places_without_the_keys_that_seal(
    store_url: str, database_url: str, tmp_path: Path
) -> None:
    with (
        closing(open_store(store_url, lifetimes=Lifetimes(), keys=load_keys(new_key()))) as store,
        closing(Database(database_url)) as database,
    ):
        store.create(new("1", owner=ANN))
        store.create(new("2", owner=BEN))
        keep(kept_in(database), ANN)
        uploads = uploads_in(database, tmp_path / "uploads")
        bens = [uploads.add(owner, [b"film"]).id for owner in (ANN, BEN)][1]
        jobs = toy_jobs.Kept(database, tmp_path / "uploads").jobs
        for owner in (ANN, BEN):
            jobs.create(owner, toy_jobs.asked_for([{"upload": uploads.add(owner, [b"film"]).id}]))
        code, said = cli(ANN, "--database", database_url, "--store", store_url, "--uploads", f"{tmp_path}/uploads")
        assert (code, said.strip()) == (0, f"forgot 1 sessions, 1 answers, 2 uploads and 1 jobs of key {ANN}")
        assert {path.stem for path in (tmp_path / "uploads").iterdir()} > {bens}
        assert len(list((tmp_path / "uploads").iterdir())) == 2
        assert (jobs.page(ANN, after=None, limit=9).jobs, len(jobs.page(BEN, after=None, limit=9).jobs)) == ((), 1)
        with pytest.raises(SessionNotFound):
            store.read("1")
        assert store.read("2").owner == BEN
        assert kept_in(database).held(ANN).num_requests == 0


def test_uploads_of_which_nobody_says_where_they_are_are_not_forgotten_by_half(
    postgres_url: str, tmp_path: Path
) -> None:
    with closing(Database(postgres_url)) as database:
        uploads = uploads_in(database, tmp_path / "uploads")
        upload = uploads.add(ANN, [b"film"])
        assert "name it with --uploads" in cli(ANN, "--database", postgres_url)[1]
        assert uploads.get(ANN, upload.id) == upload
        assert cli(BEN, "--database", postgres_url)[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["vsk_0123456789ab_secret", "--store", "sqlite:///nowhere/x.db"], "a key is named by its id"),
        ([ANN, "--store", "sqlite:///nowhere/x.db"], "there is no file at /nowhere/x.db"),
        ([ANN], "nothing to look into"),
    ],
)
def test_what_cannot_be_forgotten_is_told(words: list[str], said: str) -> None:
    code, told = cli(*words)
    assert (code != 0, said in told, "secret" in told) == (True, True, False), told


# Uploads -----------------------------------------------------------------------------------------------


SCRATCH = [Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")]


def entries() -> set[Path]:
    return {path for folder in SCRATCH for path in folder.iterdir()}


def written_with(word: bytes, *, before: set[Path]) -> list[str]:
    """Files that hold it: those that came since, and those that this process has open and nobody can see any more."""
    new = entries() - before
    came = [*new, *(Path(folder, name) for entry in new for folder, _, names in os.walk(entry) for name in names)]
    opened = [path for path in Path("/proc/self/fd").iterdir() if "memfd:" not in target(path)]
    return [target(path) or str(path) for path in (*came, *opened) if holds(path, word)]


def target(path: Path) -> str:
    with suppress(OSError):
        return str(path.readlink())
    return ""


def holds(path: Path, word: bytes) -> bool:
    with suppress(OSError):  # it has ended since, or is none of ours
        return path.is_file() and word in path.read_bytes()
    return False


def in_memory_with(word: bytes) -> int:
    return sum(holds(path, word) for path in Path("/proc/self/fd").iterdir() if "memfd:" in target(path))


def test_no_byte_of_an_upload_is_in_any_file_while_it_is_labelled_or_after(tmp_path: Path) -> None:
    mark = b"pixels of somebody " + tmp_path.name.encode()
    held, before = Held(), entries()
    with running(toy_app(held)) as url:
        upload = {"file": ("a.mp4", mark * 50_000)}
        asking = threading.Thread(target=lambda: httpx2.post(url + "/v1/classify", files=upload, timeout=60))
        asking.start()
        assert held.entered.wait(20)
        assert (in_memory_with(mark), written_with(mark, before=before)) == (1, [])
        held.release.set()
        asking.join(60)
    assert (in_memory_with(mark), written_with(mark, before=before)) == (0, [])
