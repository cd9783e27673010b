"""Idempotency keys over HTTP: one answer to a request that is sent again, whatever happened to it the first time."""

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import httpx2
import pytest
from databases import *  # noqa: F403  fixtures
from running import free_port
from sqlalchemy import select
from web_server import TOY_MODELS, Held, count_bytes, running, toy_app, undecoded, wait_until

from serving.database.core import Database
from serving.database.tables import idempotent_answers
from serving.keyring import KeyRing
from serving.keys import create_key
from serving.once.kept import Kept, OnceSettings
from serving.once.once import Once
from serving.sealing import Vault
from serving.service_routes import Parts
from serving.web import create_service_app, whole_api
from serving.web_settings import WebSettings
from tests.test_once_kept import KEYS, pass_time
from tests.test_web import CLASSIFY, FORM, RAW, form, part, problem_of
from vidseq.errors import SandboxError, TooSlow, TruncatedVideo
from vidseq.schemas import Prediction

KEYED = RAW | {"Idempotency-Key": "7f1c0f7e"}


class Counted:
    """Labels by number of execution, so that each would answer differently; the first ones raise `errors`."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.num_executed = 0

    def __call__(self, video: BinaryIO, **options: Any) -> Prediction:
        self.num_executed += 1
        if self.errors:
            raise self.errors.pop(0)
        prediction = count_bytes(video, **options)
        timings = prediction.timings.model_copy(update={"total_ms": float(self.num_executed)})
        return prediction.model_copy(update={"timings": timings})


def once_in(url: str, **settings: Any) -> Once:
    return once_of(Database(url), **settings)


def once_of(database: Database, **settings: Any) -> Once:
    return Once(Kept(database, Vault(KEYS), OnceSettings.model_validate(settings)))


@contextlib.contextmanager
def asking(classify: Any, once: Once | None = None, **options: Any) -> Iterator[httpx2.Client]:
    with running(toy_app(classify, once=once, **options)) as url, httpx2.Client(base_url=url, timeout=30) as client:
        yield client


def ask(client: httpx2.Client, key: str, content: bytes = b"video", **options: Any) -> httpx2.Response:
    return client.post(CLASSIFY, content=content, headers=RAW | {"Idempotency-Key": key}, **options)


@pytest.fixture
def once(sqlite_url: str) -> Once:
    return once_in(sqlite_url)


# The same again ----------------------------------------------------------------------------------------


def test_the_same_again_is_given_the_same_answer_marked_as_replayed(database_url: str) -> None:
    counted = Counted()
    with closing(Database(database_url)) as database, asking(counted, once_of(database)) as client:
        first, *others = [ask(client, "a") for _ in range(3)]
    assert counted.num_executed == 1
    assert "Idempotency-Replayed" not in first.headers
    assert [(other.status_code, other.content) for other in others] == [(200, first.content)] * 2
    assert {(other.headers["Idempotency-Replayed"], other.headers["Content-Type"]) for other in others} == {
        ("true", "application/json")
    }


def test_without_a_key_each_request_is_executed_and_no_database_is_touched() -> None:
    counted = Counted()
    nowhere = once_in(f"postgresql://u:p@127.0.0.1:{free_port()}/d")
    with asking(counted, nowhere) as client:
        statuses = [client.post(CLASSIFY, content=b"video", headers=RAW).status_code for _ in range(2)]
    assert (statuses, counted.num_executed) == ([200, 200], 2)


def test_with_a_key_and_no_database_nothing_is_executed() -> None:
    counted = Counted()
    with asking(counted, once_in(f"postgresql://u:hidden@127.0.0.1:{free_port()}/d")) as client:
        answer = ask(client, "a")
    problem = problem_of(answer)
    assert (problem.status, problem.type, problem.retryable) == (503, "database/down", True)
    assert "hidden" not in answer.text and "127.0.0.1" not in answer.text
    assert counted.num_executed == 0


def test_the_error_of_a_video_is_final(once: Once) -> None:
    counted = Counted(TruncatedVideo(seen_seconds=1.0, declared_seconds=4.0, min_share=0.5))
    with asking(counted, once) as client:
        first, second = ask(client, "a"), ask(client, "a")
    assert problem_of(first).type == "video/truncated"
    assert (second.status_code, second.content) == (422, first.content)
    assert second.headers["Content-Type"] == "application/problem+json"
    assert (second.headers["Idempotency-Replayed"], counted.num_executed) == ("true", 1)


@pytest.mark.parametrize("error", [TooSlow("slow"), SandboxError("no process"), RuntimeError("a mistake of ours")])
def test_what_is_not_final_is_executed_again(once: Once, error: Exception) -> None:
    counted = Counted(error)
    with asking(counted, once) as client:
        first, second = ask(client, "a"), ask(client, "a")
    assert first.status_code >= 400
    assert (second.status_code, "Idempotency-Replayed" in second.headers) == (200, False)


def test_the_same_video_in_a_form_with_other_edges_is_the_same(once: Once) -> None:
    counted = Counted()
    with asking(counted, once) as client:
        raw = ask(client, "a")
        headers = FORM | {"Idempotency-Key": "a"}
        as_form = client.post(CLASSIFY, content=form(part("file")), headers=headers)
        again = client.post(CLASSIFY, files={"file": b"video"}, headers={"Idempotency-Key": "a"})
    assert raw.content == as_form.content == again.content
    assert counted.num_executed == 1


def test_a_default_that_is_said_is_the_same_as_one_that_is_not(once: Once) -> None:
    counted = Counted()
    with asking(counted, once) as client:
        ask(client, "a")
        ask(client, "a", params={"top_k": "5", "model": "toy", "frames": "true"})
    assert counted.num_executed == 1


# Another, or still running ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("content", "query"), [(b"other", {}), (b"video", {"top_k": "3"}), (b"video", {"start": "1"})])
def test_another_request_under_the_same_key_is_refused(once: Once, content: bytes, query: dict[str, str]) -> None:
    with asking(Counted(), once) as client:
        ask(client, "a")
        problem = problem_of(ask(client, "a", content, params=query))
        assert ask(client, "b", content, params=query).status_code == 200
    assert (problem.status, problem.type, problem.retryable) == (422, "idempotency/mismatch", False)


def test_while_the_first_is_executed_another_hears_when_to_ask_again(once: Once) -> None:
    held = Held()
    with asking(held, once) as client:
        answers: list[httpx2.Response] = []
        first = threading.Thread(target=lambda: answers.append(ask(client, "a")))
        first.start()
        assert held.entered.wait(20)
        second = ask(client, "a")
        held.release.set()
        first.join(20)
        third = ask(client, "a")
    assert (problem_of(second).type, second.headers["Retry-After"]) == ("idempotency/running", "1")
    assert (third.content, third.headers["Idempotency-Replayed"]) == (answers[0].content, "true")


def test_an_execution_that_takes_longer_than_a_lease_keeps_it(sqlite_url: str) -> None:
    held = Held()
    with asking(held, once_in(sqlite_url, lease_seconds=1.0)) as client:
        first = threading.Thread(target=lambda: ask(client, "a"))
        first.start()
        assert held.entered.wait(20)
        time.sleep(2.5)
        second = ask(client, "a")
        held.release.set()
        first.join(20)
    assert problem_of(second).type == "idempotency/running"


def test_a_late_execution_gives_the_answer_that_was_kept_meanwhile(sqlite_url: str) -> None:
    """As one that was stopped for longer than its lease, and then goes on."""
    held, answers = Held(), list[httpx2.Response]()
    with (
        asking(held, once_in(sqlite_url)) as late,
        asking(Counted(), once_in(sqlite_url)) as quick,
        closing(Database(sqlite_url)) as database,
    ):
        first = threading.Thread(target=lambda: answers.append(ask(late, "a")))
        first.start()
        assert held.entered.wait(20)
        pass_time(database, 11)
        taken = ask(quick, "a")
        held.release.set()
        first.join(20)
    assert (taken.status_code, "Idempotency-Replayed" in taken.headers) == (200, False)
    assert (answers[0].content, answers[0].headers["Idempotency-Replayed"]) == (taken.content, "true")


def test_a_client_that_goes_away_leaves_its_key_to_its_next_try(once: Once) -> None:
    held = Held()
    with asking(held, once) as client:
        with pytest.raises(httpx2.ReadTimeout):
            ask(client, "a", timeout=httpx2.Timeout(30, read=0.5))
        assert held.stopped.wait(20)
        held.release.set()
        wait_until(lambda: ask(client, "a").status_code == 200)


# Keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "é", "a\tb", "x" * 256])
def test_what_is_no_key_is_refused(once: Once, key: str) -> None:
    headers = [(b"Content-Type", b"video/mp4"), (b"Idempotency-Key", key.encode())]
    with asking(Counted(), once) as client:
        problem = problem_of(client.post(CLASSIFY, content=b"video", headers=headers))
    assert (problem.status, problem.type) == (400, "idempotency/malformed")


@pytest.mark.parametrize("key", ["x" * 255, '"quoted"', "a b~!"])
def test_any_other_key_is_taken_as_it_stands(once: Once, key: str) -> None:
    with asking(Counted(), once) as client:
        assert [ask(client, key).headers.get("Idempotency-Replayed") for _ in range(2)] == [None, "true"]


def test_two_keys_are_one_too_many(once: Once) -> None:
    headers = [(b"Content-Type", b"video/mp4"), (b"Idempotency-Key", b"a"), (b"Idempotency-Key", b"b")]
    with asking(Counted(), once) as client:
        assert problem_of(client.post(CLASSIFY, content=b"video", headers=headers)).status == 400


def test_labels_line_by_line_are_not_for_keys_and_say_so(once: Once) -> None:
    with asking(Counted(), once) as client:
        answer = client.post(CLASSIFY, content=b"video", headers=KEYED | {"Accept": "application/x-ndjson"})
    assert problem_of(answer).status == 422
    assert "Idempotency-Key is not for labels line by line" in answer.text


def test_a_service_that_keeps_no_answers_says_so() -> None:
    parts = Parts(classify=Counted(), models=lambda: TOY_MODELS, decode=undecoded)
    with running(create_service_app(parts, keys=None, settings=WebSettings())) as url:
        answer = httpx2.post(url + CLASSIFY, content=b"video", headers=KEYED)
    assert (problem_of(answer).status, "keeps no answers" in answer.text) == (422, True)


def test_a_key_is_that_of_one_holder_of_an_api_key(once: Once, tmp_path: Path) -> None:
    counted, file = Counted(), tmp_path / "keys.db"
    ann, ben = (create_key(file, name=name, scopes=["classify"], lifetime_seconds=None) for name in ("ann", "ben"))
    with asking(counted, once, keys=KeyRing(file)) as client:
        answers = [
            client.post(CLASSIFY, content=b"video", headers=KEYED | {"Authorization": f"Bearer {who}"})
            for who in (ann, ben, ann)
        ]
    assert counted.num_executed == 2
    assert [answer.headers.get("Idempotency-Replayed") for answer in answers] == [None, None, "true"]


# What is kept ----------------------------------------------------------------------------------------


def test_an_answer_that_is_too_large_is_given_and_says_that_it_is_not_kept(sqlite_url: str) -> None:
    with asking(Counted(), once_in(sqlite_url, max_answer_bytes=100)) as client:
        first, second = ask(client, "a"), ask(client, "a")
    assert [answer.status_code for answer in (first, second)] == [200, 200]
    assert [answer.headers["Idempotency-Kept"] for answer in (first, second)] == ["false", "false"]
    assert first.content != second.content


def test_answers_go_by_themselves_when_their_time_is_over(sqlite_url: str) -> None:
    with (
        asking(Counted(), once_in(sqlite_url, kept_seconds=3.0, sweep_seconds=0.2)) as client,
        closing(Database(sqlite_url)) as database,
    ):

        def num_kept() -> int:
            with database.reading() as connection:
                return len(connection.execute(select(idempotent_answers.c.owner)).all())

        ask(client, "a")
        assert num_kept() == 1
        wait_until(lambda: num_kept() == 0)


def test_the_page_tells_of_the_header_and_of_what_it_changes() -> None:
    route = whole_api()["paths"]["/v1/classify"]["post"]
    assert "Idempotency-Key" in [parameter["name"] for parameter in route["parameters"]]
    assert set(route["responses"]["200"]["headers"]) == {"Idempotency-Replayed", "Idempotency-Kept"}
    assert {"400", "409", "422", "503"} <= route["responses"].keys()
