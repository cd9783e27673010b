"""The layer around Ray Serve's proxy: whoever asks gets problems and one request id, whatever Serve itself says."""

from typing import Any

import pytest
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from serving import problems
from serving.front import Front, layers
from vidseq.schemas import Problem


def asked(app: ASGIApp, path: str = "/v1/models", **headers: str) -> Any:
    return TestClient(Front(app)).get(path, headers=headers)


def test_it_is_the_one_layer_that_serve_is_given() -> None:
    assert [layer.cls for layer in layers()] == [Front]


@pytest.mark.parametrize(("serves", "ours"), [(404, 404), (408, 504), (500, 503), (503, 503)])
def test_an_error_in_serves_plain_words_becomes_a_problem(serves: int, ours: int) -> None:
    answer = asked(PlainTextResponse("Internal Server Error", serves))
    problem = Problem.model_validate(answer.json())
    assert answer.headers["content-type"] == problems.MEDIA_TYPE
    assert (answer.status_code, problem.status, problem.retryable) == (ours, ours, ours >= 500)


def test_a_proxy_that_fails_is_a_problem_that_may_be_retried() -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("the replica has died")

    answer = asked(failing)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_a_proxy_that_says_nothing_is_a_problem_that_may_be_retried() -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        pass  # as Serve's does where a replica has died

    assert asked(silent).json()["retryable"]


def test_an_answer_that_breaks_off_is_not_completed() -> None:
    async def breaking(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("the replica has died")

    with pytest.raises(RuntimeError, match="the replica has died"):
        asked(breaking)


def test_a_problem_of_ours_passes_as_it_is() -> None:
    problem = problems.of_crash("mine")
    answer = asked(problems.response(problem), **{"X-Request-ID": "mine"})
    assert (answer.status_code, answer.json()) == (500, problem.model_dump())


def test_the_request_id_is_answered_once_though_serve_adds_another() -> None:
    async def twice(scope: Scope, receive: Receive, send: Send) -> None:
        response = Response("{}", media_type="application/json")
        response.headers.append("X-Request-ID", "mine")
        response.headers.append("X-Request-ID", "other")
        await response(scope, receive, send)

    assert asked(twice, **{"X-Request-ID": "mine"}).headers.get_list("x-request-id") == ["mine"]


def test_a_request_id_that_could_harm_a_log_is_replaced_before_serve_sees_it() -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        ids = [value for name, value in scope["headers"] if name == b"x-request-id"]
        await PlainTextResponse(b",".join(ids))(scope, receive, send)

    answer = asked(echo, **{"X-Request-ID": "a b; forged"})
    assert answer.text == answer.headers["x-request-id"] != "a b; forged"


def test_what_load_balancers_ask_of_serve_passes_untouched() -> None:
    assert asked(PlainTextResponse("draining", 503), "/-/healthz").text == "draining"
