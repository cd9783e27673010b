"""What a browser is told: headers that every answer has, and which pages of other hosts may ask and read."""

import logging
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from pydantic import ValidationError
from web_server import raising, running, toy_app

from serving import problems
from serving.answer_headers import HEADERS
from serving.keyring import KeyRing
from serving.keys import create_key
from serving.origins import ASKED, METHODS
from serving.web_settings import WebSettings
from vidseq.schemas import Problem

PAGE = "https://app.example"
RAW = {"Content-Type": "video/mp4"}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.db"


@pytest.fixture(scope="module")
def key(keys: Path) -> str:
    return create_key(keys, name="page", scopes=["classify"], lifetime_seconds=None)


@pytest.fixture(scope="module")
def url(keys: Path, key: str) -> Iterator[str]:
    """A service that asks for keys and knows one page."""
    with running(toy_app(keys=KeyRing(keys), allowed_origins=[PAGE])) as url:
        yield url


def preflight(url: str, *, origin: str = PAGE, method: str = "POST", headers: str = "authorization") -> httpx2.Response:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return httpx2.options(url + "/v1/classify", headers={"Origin": origin} | asked)


# Headers


@pytest.mark.parametrize("path", ["/livez", "/metrics", "/v1/models", "/nothing", "/openapi.json"])
def test_every_answer_says_that_it_is_data_and_nobodys_to_keep(url: str, path: str) -> None:
    headers = httpx2.get(url + path).headers
    assert {name: headers[name] for name in HEADERS} == HEADERS
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_a_crash_says_so_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    with running(toy_app(raising(RuntimeError("broken")))) as broken:
        answer = httpx2.post(broken + "/v1/classify", content=b"video", headers=RAW)
    assert (answer.status_code, {name: answer.headers[name] for name in HEADERS}) == (500, HEADERS)


def test_the_page_of_the_api_alone_may_load_what_it_shows_and_no_page_may_frame_it(url: str) -> None:
    policy = httpx2.get(url + "/docs").headers["Content-Security-Policy"]
    assert "script-src" in policy and "frame-ancestors 'none'" in policy
    assert "script-src" not in httpx2.get(url + "/v1/docs").headers["Content-Security-Policy"]


# Pages of other hosts


def test_without_a_list_no_page_is_answered_as_one(keys: Path) -> None:
    with running(toy_app()) as closed:
        asked = preflight(closed)
        answer = httpx2.get(closed + "/v1/models", headers={"Origin": PAGE})
    assert asked.status_code == 405
    assert [name for told in (asked, answer) for name in told.headers if name.startswith("access-control")] == []


def test_a_page_of_the_list_may_ask_beforehand_without_a_key(url: str) -> None:
    for method in METHODS:
        for header in ASKED:
            answer = preflight(url, method=method, headers=header.lower())
            assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, PAGE)


@pytest.mark.parametrize(
    "asked", [{"origin": "https://evil.example"}, {"origin": "null"}, {"method": "TRACE"}, {"headers": "x-session-id"}]
)
def test_what_a_page_may_not_do_is_a_problem(url: str, asked: dict[str, str]) -> None:
    answer = preflight(url, **asked)
    problem = Problem.model_validate(answer.json())
    assert answer.headers["Content-Type"] == problems.MEDIA_TYPE
    assert (answer.status_code, problem.type) == (403, "request/foreign-origin")
    assert answer.headers["X-Request-ID"] == problem.request_id


def test_a_page_of_the_list_reads_answers_and_refusals_alike(url: str, key: str) -> None:
    for headers, status in (({"Authorization": f"Bearer {key}"}, 200), ({}, 401)):
        answer = httpx2.get(url + "/v1/models", headers={"Origin": PAGE} | headers)
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (status, PAGE)
        assert {"X-Request-ID", "Retry-After"} <= set(answer.headers["Access-Control-Expose-Headers"].split(", "))
        assert "Access-Control-Allow-Credentials" not in answer.headers


def test_a_page_that_is_not_in_the_list_reads_nothing(url: str) -> None:
    answer = httpx2.get(url + "/v1/models", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize("origin", ["*", "app.example", PAGE + "/", "https://App.example", "ftp://a", "http://u@a", ""])
def test_what_no_browser_sends_as_an_origin_is_refused_where_it_is_set(origin: str) -> None:
    with pytest.raises(ValidationError, match="is no origin"):
        WebSettings.model_validate({"allowed_origins": [origin]})
