"""Rates and shares of a key at the door of a real server: refused before a byte of the body, and nobody else's loss."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from limits import RateLimitItemPerMinute, RateLimitItemPerSecond
from websockets.typing import Subprotocol

from serving.admission import Admission
from serving.keyring import KeyRing
from serving.problems import Busy, KeyBusy
from serving.rates import Rates
from tests.stream_server import refusal, stream_app, talking
from tests.test_guard import PUSH, bearer, made
from tests.test_web import RAW, answer_on, connect, head, problem_of
from tests.toy_streams import toy_live
from tests.web_server import Held, running, toy_app
from vidseq.messages import FRAMES_TYPE, SUBPROTOCOL

CLASSIFY = "/v1/classify"


def counting(*, requests: int = 1000, num_bytes: int = 10**9) -> Rates:
    """Of a minute that has only begun: counts are by minutes of the clock, and where one ends there is more room."""
    left_seconds = 60 - time.time() % 60
    if left_seconds < 10:
        time.sleep(left_seconds)
    return Rates(
        requests=[RateLimitItemPerMinute(requests, 1, "requests")],
        bytes=[RateLimitItemPerMinute(num_bytes, 1, "bytes")],
        url=None,
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.db"


@pytest.fixture(scope="module")
def greedy(file: Path) -> dict[str, str]:
    return RAW | bearer(made(file, "greedy", ["classify", "stream"]))


@pytest.fixture(scope="module")
def modest(file: Path) -> dict[str, str]:
    return RAW | bearer(made(file, "modest", ["classify", "stream"]))


@contextlib.contextmanager
def served(file: Path, rates: Rates, classify: Any = None, **settings: Any) -> Iterator[str]:
    options = settings if classify is None else {"classify": classify, **settings}
    with running(toy_app(keys=KeyRing(file), counted=rates, **options)) as url:
        yield url


# Rates


def test_a_key_that_asks_too_often_hears_when_to_ask_again_and_another_is_answered(
    file: Path, greedy: dict[str, str], modest: dict[str, str]
) -> None:
    with served(file, counting(requests=3)) as url:
        answers = [httpx2.get(url + "/v1/models", headers=greedy) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert httpx2.get(url + "/v1/models", headers=modest).status_code == 200
    problem = problem_of(answers[3])
    assert (problem.type, problem.retryable) == ("key/rate", True)
    assert 0 < int(answers[3].headers["Retry-After"]) <= 120
    assert answers[3].headers["RateLimit-Policy"] == '"requests";q=3;w=60'
    assert answers[3].headers["RateLimit"] == f'"requests";r=0;t={answers[3].headers["Retry-After"]}'


def test_a_request_is_answered_after_the_time_that_it_was_told_to_wait(file: Path, greedy: dict[str, str]) -> None:
    from vidseq.client import Client

    rates = Rates(
        requests=[RateLimitItemPerSecond(2, 1, "requests")], bytes=[RateLimitItemPerSecond(10**9, 1, "bytes")], url=None
    )
    with served(file, rates) as url, Client(url, api_key=greedy["Authorization"].split()[1]) as client:
        assert [len(client.models()) for _ in range(6)] == [1] * 6  # the SDK waits and asks again


@pytest.mark.parametrize("limit", [{"requests": 1}, {"num_bytes": 1_000_003}], ids=["requests", "bytes"])
def test_the_refusal_comes_while_the_body_never_does(file: Path, greedy: dict[str, str], limit: dict[str, int]) -> None:
    shown = f"Authorization: {greedy['Authorization']}\r\nContent-Type: video/mp4"
    with served(file, counting(**limit)) as url:
        httpx2.post(url + CLASSIFY, content=b"video", headers=greedy)
        with contextlib.closing(connect(url)) as connection:
            connection.sendall(head(f"{shown}\r\nContent-Length: 1000000"))
            status, problem = answer_on(connection)
    assert (status, problem["type"]) == (429, "key/rate")


def test_a_body_that_does_not_say_how_long_it_is_is_counted_as_it_comes(file: Path, greedy: dict[str, str]) -> None:
    with served(file, counting(num_bytes=1_000_000)) as url:
        fits = httpx2.post(url + CLASSIFY, content=iter([bytes(100_000)] * 5), headers=greedy)
        too_much = httpx2.post(url + CLASSIFY, content=iter([bytes(100_000)] * 30), headers=greedy, timeout=20)
    assert fits.status_code == 200
    assert problem_of(too_much).type == "key/rate"
    assert too_much.headers["RateLimit-Policy"] == '"bytes";q=1000000;w=60;qu="content-bytes"'
    assert int(too_much.headers["Retry-After"]) > 0


def test_a_body_over_the_limit_is_told_so_and_not_that_it_came_too_often(file: Path, greedy: dict[str, str]) -> None:
    with served(file, counting(num_bytes=200_000), max_body_bytes=1000) as url:
        assert httpx2.post(url + CLASSIFY, content=bytes(300_000), headers=greedy).status_code == 413


def test_without_keys_nobody_is_counted() -> None:
    with running(toy_app(counted=counting(requests=1))) as url:
        assert {httpx2.get(url + "/v1/models").status_code for _ in range(3)} == {200}


def test_what_needs_no_key_is_not_counted(file: Path, greedy: dict[str, str]) -> None:
    with served(file, counting(requests=1)) as url:
        assert {httpx2.get(url + "/readyz", headers=greedy).status_code for _ in range(3)} == {200}


def test_a_stream_counts_as_it_is_opened_and_by_its_bytes(file: Path, greedy: dict[str, str], tmp_path: Path) -> None:
    headers = {"Authorization": greedy["Authorization"]}
    with toy_live(tmp_path / "model") as live:
        app = stream_app(live, tmp_path, keys=KeyRing(file), counted=counting(requests=3, num_bytes=1_000_000))
        with running(app) as url:
            heard = []
            for _ in range(2):  # what is no push is counted as well
                with talking(url, additional_headers=headers) as client:
                    client.open(input="frames")
                    client.say(bytes(600_000))
                    heard.append(refusal(client))
            with talking(url, additional_headers=headers) as client:
                client.open(input="frames")
            with talking(url, additional_headers=headers, subprotocols=[Subprotocol(SUBPROTOCOL)]) as client:
                heard.append(refusal(client))
    assert [failed.problem.type == "key/rate" for failed, _ in heard] == [False, True, True]
    assert [(failed.problem.retryable, code) for failed, code in heard[1:]] == [(True, 4429)] * 2


# Shares


def test_one_key_cannot_have_every_place(file: Path, greedy: dict[str, str], modest: dict[str, str]) -> None:
    held = Held()
    with served(file, counting(), held, max_concurrent=4, key_share=0.5) as url, httpx2.Client(base_url=url) as client:

        def post(headers: dict[str, str]) -> httpx2.Response:
            return client.post(CLASSIFY, content=b"video", headers=headers)

        waiting = [threading.Thread(target=post, args=[greedy]) for _ in range(2)]
        for thread in waiting:
            thread.start()
            assert held.entered.wait(10)
            held.entered.clear()
        refused = post(greedy)
        threading.Timer(0.3, held.release.set).start()
        assert post(modest).status_code == 200
        for thread in waiting:
            thread.join()
        assert post(greedy).status_code == 200
    assert (problem_of(refused).type, refused.headers["Retry-After"]) == ("key/busy", "1")
    assert "2 requests of this key" in problem_of(refused).detail


def places(**settings: Any) -> Admission:
    usual = {"max_requests": 4, "max_bytes": 1000, "max_body_bytes": 100, "share": 0.5, "retry_after_seconds": 1.0}
    return Admission(**usual | settings)


def test_of_the_bytes_one_key_has_its_share_and_all_together_the_whole() -> None:
    admission = places()
    with admission.place("a") as hold_a, admission.place("b") as hold_b, admission.place(None) as hold:
        hold_a(500)
        with pytest.raises(KeyBusy, match="500 bytes, the most of one key"):
            hold_a(1)
        hold_b(400)
        hold(100)
        with pytest.raises(Busy, match="1,000 bytes") as full:
            hold_b(1)
        assert type(full.value) is Busy


def test_who_has_no_key_is_bound_by_the_whole_alone() -> None:
    admission = places()
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(admission.place(None))
        with pytest.raises(Busy, match="4 requests"), admission.place(None):
            pass


def test_a_share_is_never_less_than_one_body_in_one_place() -> None:
    admission = places(share=0.001)
    with admission.place("a") as hold:
        hold(100)
        with pytest.raises(KeyBusy):
            hold(1)


def test_places_and_bytes_come_back_and_nobody_is_remembered() -> None:
    admission = places()
    for _ in range(10):
        with admission.place("a") as hold:
            hold(500)
            hold(0)
    with pytest.raises(KeyBusy), admission.place("a") as hold:
        hold(501)
    assert admission._of_owners == {}


def test_a_push_to_a_session_is_a_request(file: Path, greedy: dict[str, str], tmp_path: Path) -> None:
    with toy_live(tmp_path / "model") as live:
        app = stream_app(live, tmp_path, keys=KeyRing(file), counted=counting(requests=2))
        shown = {"Authorization": greedy["Authorization"]}
        with running(app) as url, httpx2.Client(base_url=url, headers=shown) as mine:
            path = mine.post("/v1/sessions", json={}).headers["Location"]
            pushes = [
                mine.put(f"{path}/pushes/{n}", content=PUSH, headers={"Content-Type": FRAMES_TYPE}) for n in range(2)
            ]
    assert [push.status_code for push in pushes] == [200, 429]
