"""The SDK sends a key with each call and keeps it through its retries, so that what is sent twice is answered once."""

import uuid

import pytest

from tests.test_client import PLAIN, Script, Through, awaiting, blocking, classify, good_answer, models
from tests.test_once import Counted
from tests.web_server import running, toy_app
from vidseq.client.retries import Failures, Retries
from vidseq.errors import ConnectionFailed, OptionError, RequestRejected, StatusError

RUNNING = (
    409,
    {"Content-Type": "application/problem+json", "Retry-After": "0"},
    b'{"type": "idempotency/running", "title": "", "status": 409, "detail": "", "request_id": "", "retryable": true}',
)


@pytest.fixture(params=[blocking, awaiting])
def through(request: pytest.FixtureRequest) -> Through:
    """`through(ask, base_url, ...)`: what `ask(client)` gives, with each of the two clients."""
    through: Through = request.param
    return through


def test_each_call_has_a_key_of_its_own(through: Through) -> None:
    with Script(good_answer(), good_answer()) as script:
        through(classify(b"video"), script.url)
        through(classify(b"video"), script.url)
    first, second = (uuid.UUID(headers["Idempotency-Key"]) for headers in script.headers)
    assert first != second and first.version == second.version == 4


def test_a_retry_keeps_it(through: Through) -> None:
    with Script((503, PLAIN, b"full"), (502, PLAIN, b"gone"), good_answer()) as script:
        through(classify(b"video"), script.url)
    assert len({headers["Idempotency-Key"] for headers in script.headers}) == 1
    assert len(script.headers) == 3


def test_a_caller_may_give_his_own(through: Through) -> None:
    with Script(good_answer()) as script:
        through(classify(b"video", idempotency_key="order 7/3"), script.url)
    assert script.headers[0]["Idempotency-Key"] == "order 7/3"


@pytest.mark.parametrize("key", ["", " a", "a\n", "é", "x" * 256])
def test_what_is_no_key_is_refused_before_anything_is_sent(through: Through, key: str) -> None:
    with Script() as script, pytest.raises(OptionError, match="1 to 255"):
        through(classify(b"video", idempotency_key=key), script.url)
    assert script.headers == []


def test_other_questions_have_none(through: Through) -> None:
    with Script((200, {"Content-Type": "application/json"}, b'{"models": []}')) as script:
        through(models, script.url)
    assert "Idempotency-Key" not in script.headers[0]


def test_what_still_runs_is_waited_for_however_often(through: Through) -> None:
    with Script(*[RUNNING] * 3, good_answer()) as script:
        through(classify(b"video"), script.url, max_retries=1)
    assert len({headers["Idempotency-Key"] for headers in script.headers}) == 1
    assert len(script.headers) == 4


def test_nothing_is_waited_for_where_retries_are_off(through: Through) -> None:
    with Script(RUNNING) as script, pytest.raises(RequestRejected) as caught:
        through(classify(b"video"), script.url, max_retries=0)
    assert caught.value.type == "idempotency/running"


def test_waiting_counts_as_no_failure_but_makes_pauses_longer() -> None:
    running = StatusError(status=409, type="idempotency/running", title="t", detail="d")
    failures = Failures(Retries(max_retries=1, max_retry_after_seconds=0.0), repeatable=True)
    pauses = [failures.pause_seconds(running) for _ in range(6)]
    assert pauses[0] <= 0.5 and 4.0 <= pauses[5] <= 8.0
    assert failures.pause_seconds(ConnectionFailed("cut")) >= 4.0
    with pytest.raises(ConnectionFailed):
        failures.pause_seconds(ConnectionFailed("cut"))


def test_the_same_key_is_answered_once_by_a_real_service(through: Through) -> None:
    counted, key = Counted(), str(uuid.uuid4())
    with running(toy_app(counted)) as url:
        first = through(classify(b"video", idempotency_key=key), url)
        assert through(classify(b"video", idempotency_key=key), url) == first
        with pytest.raises(RequestRejected) as caught:
            through(classify(b"another video", idempotency_key=key), url)
    assert (caught.value.status, caught.value.type) == (422, "idempotency/mismatch")
    assert counted.num_executed == 1
