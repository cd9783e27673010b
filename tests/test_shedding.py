"""The layer that repeats a full service's no: to whom, for how long, and that it is heard and counted."""

from dataclasses import dataclass, field

import pytest
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from serving import problems
from serving.finished import Finished
from serving.problems import Busy, KeyBusy
from serving.shedding import MOMENT_SECONDS, PATH, Shedding
from tests.test_web import answer_on, connect, head
from tests.web_server import running
from vidseq.errors import VidseqError
from vidseq.schemas import Problem


@dataclass
class House:
    """What is behind the layer: it answers with `error`, or well."""

    error: VidseqError | None = None
    now: float = 0.0
    num_asked: int = 0
    finished: list[Finished] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.app = Shedding(self.answer, observe=self.finished.append, clock=lambda: self.now)
        self.client = TestClient(self.app)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.num_asked += scope["type"] == "http"
        response = JSONResponse({})
        if self.error is not None:
            problem = problems.of_error(self.error, "first")
            assert problem is not None
            response = problems.response(problem, problems.headers_of(self.error, problem))  # type: ignore[assignment]
        await response(scope, receive, send)


@pytest.fixture
def full() -> House:
    house = House(Busy("8 requests are being answered", retry_after_seconds=2.5))
    assert house.client.post(PATH).status_code == 429
    return house


def test_after_a_no_the_next_ones_hear_it_without_asking(full: House) -> None:
    answer = full.client.post(PATH, headers={"X-Request-ID": "mine"})
    problem = Problem.model_validate(answer.json())
    assert full.num_asked == 1
    assert (answer.status_code, answer.headers["Retry-After"], answer.headers["X-Request-ID"]) == (429, "3", "mine")
    assert (problem.type, problem.request_id, problem.retryable) == ("service/busy", "mine", True)
    assert problem.detail == "8 requests are being answered"
    assert answer.headers["Cache-Control"] == "no-store"


def test_it_is_counted_as_if_a_replica_had_said_it(full: House) -> None:
    full.client.post(PATH)
    (finished,) = full.finished
    assert (finished.route, finished.status, finished.problem) == (PATH, 429, "service/busy")


def test_after_a_moment_the_service_is_asked_again(full: House) -> None:
    full.now += MOMENT_SECONDS
    full.error = None
    assert [full.client.post(PATH).status_code for _ in range(3)] == [200] * 3


@pytest.mark.parametrize(("method", "path"), [("GET", PATH), ("POST", "/v1/sessions/a"), ("GET", "/readyz")])
def test_what_asks_for_no_place_is_let_through(full: House, method: str, path: str) -> None:
    full.error = None
    assert full.client.request(method, path).status_code == 200


def test_a_key_that_has_all_it_may_have_keeps_nobody_else_out() -> None:
    house = House(KeyBusy("6 requests of this key are being answered", retry_after_seconds=1.0))
    assert [house.client.post(PATH).status_code for _ in range(2)] == [429, 429]
    assert (house.num_asked, house.finished) == (2, [])


def test_a_no_in_other_words_than_ours_passes_as_it_is() -> None:
    app = Shedding(PlainTextResponse("slow down", 429, headers={"Retry-After": "1"}))
    assert [TestClient(app).post(PATH).text for _ in range(2)] == ["slow down"] * 2


def test_who_is_still_sending_hears_it_too(full: House) -> None:
    with running(full.app) as url, connect(url) as connection:
        connection.sendall(head("Content-Type: video/mp4\r\nContent-Length: 3000000") + bytes(2_000_000))
        connection.sendall(bytes(1_000_000))
        status, problem = answer_on(connection)
    assert (status, problem["type"], full.num_asked) == (429, "service/busy", 1)  # once: before
