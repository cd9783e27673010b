"""The layer around Ray Serve's proxy: whoever asks gets problems and one request id, whatever Serve itself says."""

import asyncio
import json
from typing import Any

import pytest
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import problems
from serving.flow import Ahead
from serving.front import Front, layers
from serving.shedding import Shedding
from vidseq.messages import Failed
from vidseq.schemas import Problem


def asked(app: ASGIApp, path: str = "/v1/models", **headers: str) -> Any:
    return TestClient(Front(app)).get(path, headers=headers)


def test_it_is_the_outer_one_of_the_layers_that_serve_is_given() -> None:
    assert [layer.cls for layer in layers()] == [Ahead, Shedding, Front]


@pytest.mark.parametrize(("serves", "ours"), [(404, 404), (408, 504), (499, 408), (500, 503), (503, 503)])
def test_an_error_in_serves_plain_words_becomes_a_problem(serves: int, ours: int) -> None:
    answer = asked(PlainTextResponse("Internal Server Error", serves))
    problem = Problem.model_validate(answer.json())
    assert answer.headers["content-type"] == problems.MEDIA_TYPE
    assert (answer.status_code, problem.status, problem.retryable) == (ours, ours, ours in (408, 503, 504))


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
    assert (answer.status_code, Problem.model_validate(answer.json())) == (500, problem)


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


# WebSockets


def conversed(app: ASGIApp, **headers: str) -> tuple[Problem, int]:
    """What a client hears that cannot have its stream, and the code with which it is closed."""
    with TestClient(Front(app)).websocket_connect("/v1/streams", headers=headers) as socket:
        failed = Failed.model_validate(socket.receive_json())
        closed = socket.receive()
    assert closed["type"] == "websocket.close" and closed["reason"] == failed.problem.type
    return failed.problem, closed["code"]


@pytest.mark.parametrize(("serves", "ours"), [(404, 4404), (408, 4504), (500, 4503), (503, 4503)])
def test_a_stream_that_serve_refuses_in_plain_words_is_closed_with_a_problem(serves: int, ours: int) -> None:
    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": serves, "headers": []})
        await send({"type": "http.response.body", "body": b"no replica"})

    problem, code = conversed(refusing, **{"X-Request-ID": "mine"})
    assert (code, problem.status, problem.request_id) == (ours, ours - 4000, "mine")


async def dying(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})


async def raising(scope: Scope, receive: Receive, send: Send) -> None:
    await dying(scope, receive, send)
    raise RuntimeError("the replica has died")


@pytest.mark.parametrize("app", [dying, raising])
def test_a_stream_whose_replica_has_died_is_closed_with_a_problem_that_may_be_retried(app: ASGIApp) -> None:
    problem, code = conversed(app)
    assert (code, problem.retryable) == (4503, True)


async def telling(scope: Scope, receive: Receive, send: Send) -> None:
    await dying(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    await send({"type": "websocket.send", "text": json.dumps(headers)})
    await send({"type": "websocket.close", "code": 1000})


STEERING = {
    "X-Request-Timeout-Seconds": "1",
    "X-Request-Disconnect-Disabled": "?1",
    "X-Session_ID": "sticky",
    "serve_multiplexed_model_id": "other",
}


def test_a_stream_that_ends_well_passes_as_it_is_and_no_time_limit_of_serve_cuts_it() -> None:
    with TestClient(Front(telling)).websocket_connect("/v1/streams", headers=dict(STEERING)) as socket:
        headers = socket.receive_json()
        assert socket.receive()["code"] == 1000
    assert headers["x-request-timeout-seconds"] == "0"
    assert not steering(headers)


def steering(headers: dict[str, str]) -> set[str]:
    return {name.lower() for name in STEERING} & headers.keys() - {"x-request-timeout-seconds"}


def test_a_client_that_does_not_take_its_answers_is_not_listened_to_until_it_does() -> None:
    """What a replica answers waits in Serve without bound: so no more may come in to be answered."""
    heard, told = list[str](), list[str]()

    async def story() -> None:
        takes = asyncio.Event()

        async def eager(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "websocket.accept"})
            answering = asyncio.ensure_future(send({"type": "websocket.send", "text": "an answer"}))
            await asyncio.sleep(0)
            await receive()
            heard.append("more")
            await answering
            await send({"type": "websocket.close", "code": 1000})

        async def receive() -> Message:
            return {"type": "websocket.receive", "text": "a push"}

        async def send(message: Message) -> None:
            told.append(message["type"])
            if message["type"] == "websocket.send":
                await takes.wait()

        scope = {"type": "websocket", "path": "/v1/streams", "headers": []}
        talking = asyncio.ensure_future(Front(eager)(scope, receive, send))
        await asyncio.sleep(0.05)
        assert (told, heard) == (["websocket.accept", "websocket.send"], [])
        takes.set()
        await asyncio.wait_for(talking, timeout=10)

    asyncio.run(story())
    assert (told[-1], heard) == ("websocket.close", ["more"])


def test_a_client_that_goes_while_it_is_told_something_is_no_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    """Raised into Serve's own generator, it is three tracebacks on the terminal for each client that leaves."""
    went_on = []

    async def telling(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "an answer"})
        went_on.append((await receive())["type"])

    async def receive() -> Message:
        return {"type": "websocket.disconnect", "code": 1006}

    async def send(message: Message) -> None:
        if message["type"] != "websocket.accept":
            raise OSError("nobody is there")

    scope = {"type": "websocket", "path": "/v1/streams", "headers": []}
    asyncio.run(Front(telling)(scope, receive, send))
    assert went_on == ["websocket.disconnect"]  # so the replica hears of it
    assert caplog.records == []


@pytest.mark.parametrize(("accept", "limit"), [("application/json", None), ("application/x-ndjson", "0")])
def test_no_client_steers_serve_but_an_answer_in_lines_has_no_end_to_end_limit(accept: str, limit: str | None) -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name.decode(), value.decode()) for name, value in scope["headers"]]
        await PlainTextResponse(json.dumps(headers))(scope, receive, send)

    headers = asked(echo, Accept=accept, **STEERING).json()
    assert [value for name, value in headers if name == "x-request-timeout-seconds"] == ([limit] if limit else [])
    assert not steering(dict(headers))
