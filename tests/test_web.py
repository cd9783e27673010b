"""The routes against a real server on a loopback port, with small callables where the model would be."""

import contextlib
import http.client
import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import httpx2
import pytest

from serving import openapi, problems
from serving.finished import Finished
from serving.problems import DigestMismatch, MalformedDigest
from serving.service_routes import Parts
from serving.web import create_control_app, create_service_app
from serving.web_settings import WebSettings
from tests.web_server import TOY_MODELS, Held, count_bytes, raising, running, toy_app, undecoded, wait_until
from vidseq.errors import (
    CheckpointError,
    LimitExceeded,
    OptionError,
    TooManyBytes,
    TooManyFrames,
    TruncatedVideo,
    VideoError,
)
from vidseq.schemas import Models, Prediction, Problem

CLASSIFY = "/v1/classify"
RAW = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def http_client() -> Iterator[httpx2.Client]:
    """A plain HTTP client of a server with the toy callable and a limit of 1 MB."""
    with running(toy_app(max_body_bytes=1_000_000)) as url, httpx2.Client(base_url=url, timeout=20) as client:
        yield client


def problem_of(response: httpx2.Response) -> Problem:
    """The problem, checked for what every problem has."""
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = Problem.model_validate_json(response.content)
    assert problem.status == response.status_code
    assert problem.request_id == response.headers["X-Request-ID"]
    assert problem.title and problem.detail
    return problem


def ask(app: Any, *, content: Any = b"video", headers: dict[str, str] = RAW, path: str = CLASSIFY) -> httpx2.Response:
    with running(app) as url:
        return httpx2.post(url + path, content=content, headers=headers, timeout=20)


def connect(url: str | httpx2.URL) -> socket.socket:
    address = urlsplit(str(url))
    assert address.hostname and address.port
    return socket.create_connection((address.hostname, address.port), timeout=20)


def head(headers: str, path: str = CLASSIFY) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n".encode()


def answer_on(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, json.loads(response.read())


def form(*parts: bytes, boundary: bytes = b"edge", end: bytes = b"--edge--\r\n") -> bytes:
    return b"".join(b"--%s\r\n%s\r\n" % (boundary, part) for part in parts) + end


def part(name: str, content: bytes = b"video", extra: str = "") -> bytes:
    return f'Content-Disposition: form-data; name="{name}"; filename="a.mp4"\r\n{extra}\r\n'.encode() + content


def num_open_bodies() -> int:
    num_found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            num_found += "vidseq-body" in os.readlink(f"/proc/self/fd/{name}")
    return num_found


FORM = {"Content-Type": "multipart/form-data; boundary=edge"}


# What a good request gets


def test_a_raw_body_reaches_the_callable_whole(http_client: httpx2.Client) -> None:
    body = os.urandom(999_983)
    prediction = Prediction.model_validate_json(http_client.post(CLASSIFY, content=body, headers=RAW).content)
    assert prediction.action is not None and prediction.action.label == "999983 bytes"


def test_a_body_sent_in_chunks_without_a_length_reaches_the_callable_whole(http_client: httpx2.Client) -> None:
    response = http_client.post(CLASSIFY, content=(b"x" * size for size in (1, 70_000, 3)), headers=RAW)
    assert response.request.headers["Transfer-Encoding"] == "chunked"
    assert response.json()["action"]["label"] == "70004 bytes"


def test_a_multipart_file_gets_the_answer_of_the_raw_body(http_client: httpx2.Client) -> None:
    body = os.urandom(300_000) + b"\r\n--"  # the end of the content looks like the beginning of a boundary
    as_form = http_client.post(CLASSIFY, files={"file": ("clip.mp4", body, "video/mp4")})
    assert as_form.json() == http_client.post(CLASSIFY, content=body, headers=RAW).json()


def test_the_whole_body_may_have_exactly_the_bytes_that_are_allowed(http_client: httpx2.Client) -> None:
    body = bytes(1_000_000)
    assert http_client.post(CLASSIFY, content=body, headers=RAW).status_code == 200
    assert http_client.post(CLASSIFY, files={"file": body}).status_code == 200


@pytest.mark.parametrize("content_type", ["video/mp4", "VIDEO/X-Matroska; codecs=avc1", "application/octet-stream"])
def test_video_content_types_are_accepted(http_client: httpx2.Client, content_type: str) -> None:
    response = http_client.post(CLASSIFY, content=b"video", headers={"Content-Type": content_type})
    assert response.status_code == 200


def test_options_reach_the_callable(http_client: httpx2.Client) -> None:
    query = {"start": "1.5", "end": "2.5", "top_k": "3", "model": "toy"}
    answer = http_client.post(CLASSIFY, params=query, content=b"video", headers=RAW).json()
    assert (answer["sampled"]["start_seconds"], answer["sampled"]["end_seconds"]) == (1.5, 2.5)
    assert len(answer["top"]) == 3
    assert answer["model"]["name"] == "toy"


def test_a_wish_to_exit_early_reaches_the_callable_with_its_time_to_hold(http_client: httpx2.Client) -> None:
    def told(**query: float) -> Any:
        return http_client.post(CLASSIFY, params=query, content=b"video", headers=RAW).json()["early_exit"]

    assert told() is None
    assert told(early_exit=0.9) == {"score": 0.9, "seconds": 1.0}
    assert told(early_exit=1, early_hold=0) == {"score": 1.0, "seconds": 0.0}


@pytest.mark.parametrize(("unasked", "kept"), [("frames", "segments"), ("segments", "frames")])
def test_a_list_that_is_not_asked_for_is_empty(http_client: httpx2.Client, unasked: str, kept: str) -> None:
    answer = http_client.post(CLASSIFY, params={unasked: "false"}, content=b"video", headers=RAW).json()
    assert answer[unasked] == []
    assert len(answer[kept]) == 1


def test_the_callable_gets_a_file_that_nobody_can_change() -> None:
    refused: list[type[OSError]] = []

    def try_to_write(video: BinaryIO, **options: Any) -> Prediction:
        assert num_open_bodies() == 1
        again = os.open(f"/proc/self/fd/{video.fileno()}", os.O_RDWR)
        try:
            os.write(again, b"changed")
        except PermissionError as error:
            refused.append(type(error))
        finally:
            os.close(again)
        return count_bytes(video, **options)

    assert ask(toy_app(try_to_write)).json()["action"]["label"] == "5 bytes"
    assert refused == [PermissionError]


def test_the_models_are_those_of_the_callable(http_client: httpx2.Client) -> None:
    assert Models.model_validate_json(http_client.get("/v1/models").content) == TOY_MODELS


# What a wrong request gets


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/json", "application/x-www-form-urlencoded", "video", "audio/mp4"]
)
def test_another_content_type_is_refused(http_client: httpx2.Client, content_type: str) -> None:
    response = http_client.post(CLASSIFY, content=b"video", headers={"Content-Type": content_type})
    assert (response.status_code, problem_of(response).type) == (415, "request/unsupported-media-type")


def test_a_body_without_a_content_type_is_refused(http_client: httpx2.Client) -> None:
    assert problem_of(http_client.post(CLASSIFY, content=b"video")).status == 415


def test_a_compressed_body_is_refused(http_client: httpx2.Client) -> None:
    response = http_client.post(CLASSIFY, content=b"video", headers=RAW | {"Content-Encoding": "gzip"})
    assert problem_of(response).status == 415
    assert "gzip" in problem_of(response).detail


@pytest.mark.parametrize(
    "query",
    [
        "top_k=0",
        "top_k=101",
        "top_k=many",
        "start=-1",
        "start=nan",
        "end=inf",
        "end=0",
        "start=2&end=1",
        "frames=perhaps",
        "topk=3",
        "model=" + "x" * 201,
        "early_exit=0.5",
        "early_exit=1.01",
        "early_exit=nan",
        "early_hold=-1&early_exit=0.9",
        "early_hold=inf&early_exit=0.9",
        "early_hold=2",
    ],
)
def test_a_wrong_option_is_named(http_client: httpx2.Client, query: str) -> None:
    response = http_client.post(f"{CLASSIFY}?{query}", content=b"video", headers=RAW)
    problem = problem_of(response)
    assert (problem.status, problem.type) == (422, OptionError.code)
    assert query.split("=")[0] in problem.detail


def test_labels_line_by_line_do_not_exit_early(http_client: httpx2.Client) -> None:
    headers = RAW | {"Accept": "application/x-ndjson"}
    problem = problem_of(http_client.post(f"{CLASSIFY}?early_exit=0.9", content=b"video", headers=headers))
    assert (problem.status, problem.type) == (422, OptionError.code)
    assert "early_exit is not for labels line by line" in problem.detail


def test_an_unknown_model_is_refused_with_the_names_that_exist(http_client: httpx2.Client) -> None:
    problem = problem_of(http_client.post(f"{CLASSIFY}?model=other", content=b"video", headers=RAW))
    assert (problem.status, problem.type) == (404, "model/not-found")
    assert "toy" in problem.detail


def test_an_empty_body_is_an_empty_video(http_client: httpx2.Client) -> None:
    problem = problem_of(http_client.post(CLASSIFY, content=b"", headers=RAW))
    assert (problem.status, problem.type) == (422, "video/empty")


def test_an_unknown_path_and_a_wrong_method_are_problems_too(http_client: httpx2.Client) -> None:
    assert problem_of(http_client.get("/v1/nothing")).type == "http/not-found"
    wrong_method = http_client.get(CLASSIFY)
    assert problem_of(wrong_method).type == "http/method-not-allowed"
    assert wrong_method.headers["Allow"] == "POST"


def test_a_path_with_a_slash_too_many_is_not_redirected_to_a_host_of_the_clients_choice(
    http_client: httpx2.Client,
) -> None:
    assert problem_of(http_client.post(CLASSIFY + "/", headers={"Host": "evil.example"})).status == 404


def test_a_path_of_another_encoding_is_a_problem_too(http_client: httpx2.Client) -> None:
    assert problem_of(http_client.get("/%ff%fe/\N{SNOWMAN}")).status == 404


# Multipart bodies that are not what they should be

HOSTILE_FORMS = {
    "no boundary": ({"Content-Type": "multipart/form-data"}, form(part("file")), "boundary"),
    "an empty boundary": ({"Content-Type": 'multipart/form-data; boundary=""'}, form(part("file")), "boundary"),
    "a boundary of 300 bytes": ({"Content-Type": f"multipart/form-data; boundary={'b' * 300}"}, b"x", "oundary"),
    "no boundary in the body": (FORM, b"not a form", "damaged"),
    "a header of 10 KB": (FORM, form(part("file", extra=f"X: {'y' * 10_000}\r\n")), "damaged"),
    "a hundred headers": (FORM, form(part("file", extra="X: y\r\n" * 100)), "damaged"),
    "a header with a null byte": (FORM, form(part("file", extra="X\0: y\r\n")), "damaged"),
    "two files": (FORM, form(part("file"), part("file")), "more than one"),
    "another field": (FORM, form(part("file"), part("top_k", b"3")), "top_k"),
    "a field without a name": (FORM, form(b"Content-Type: video/mp4\r\n\r\nvideo"), "field"),
    "no field at all": (FORM, form(), "no field"),
    "an end before the end": (FORM, form(part("file"), end=b""), "last boundary"),
}


@pytest.mark.parametrize("name", HOSTILE_FORMS)
def test_a_broken_form_is_a_malformed_body(http_client: httpx2.Client, name: str) -> None:
    headers, content, word = HOSTILE_FORMS[name]
    problem = problem_of(http_client.post(CLASSIFY, content=content, headers=headers))
    assert (problem.status, problem.type) == (400, "request/malformed-body")
    assert word in problem.detail


def test_an_empty_file_in_a_form_is_an_empty_video(http_client: httpx2.Client) -> None:
    problem = problem_of(http_client.post(CLASSIFY, content=form(part("file", b"")), headers=FORM))
    assert problem.type == "video/empty"


@pytest.mark.parametrize(
    "content",
    [form(part("file", bytes(1_000_001))), form(part("file")) + bytes(2_000_000), b"\r\n" * 1_000_000],
    ids=["the file", "after the form", "before the form"],
)
def test_a_form_is_bounded_wherever_its_bytes_are(http_client: httpx2.Client, content: bytes) -> None:
    in_chunks = (content[start : start + 10_000] for start in range(0, len(content), 10_000))
    problem = problem_of(http_client.post(CLASSIFY, content=in_chunks, headers=FORM))
    assert (problem.status, problem.type) == (413, TooManyBytes.code)


# Bodies that are too large, too slow, or never end


def test_a_declared_length_over_the_limit_is_refused_before_a_byte_is_read(http_client: httpx2.Client) -> None:
    with connect(http_client.base_url) as connection:
        connection.sendall(head("Content-Type: video/mp4\r\nContent-Length: 1000001"))
        status, problem = answer_on(connection)
    assert (status, problem["type"]) == (413, "video/too-many-bytes")
    assert "1,000,001" in problem["detail"] and "1,000,000" in problem["detail"]


def test_a_body_without_a_length_is_refused_while_it_is_read(http_client: httpx2.Client) -> None:
    with connect(http_client.base_url) as connection:
        connection.sendall(head("Content-Type: video/mp4\r\nTransfer-Encoding: chunked"))
        for _ in range(21):  # 1.05 MB; the last chunk never comes
            connection.sendall(b"c350\r\n" + bytes(50_000) + b"\r\n")
        status, problem = answer_on(connection)
    assert (status, problem["type"]) == (413, "video/too-many-bytes")


@pytest.mark.parametrize("server", ["httptools", "h11"])
def test_a_client_that_sends_everything_first_still_reads_the_refusal(server: str) -> None:
    app = toy_app(max_body_bytes=1000)
    with running(app, http=server, timeout_keep_alive=60) as url, connect(url) as connection:
        connection.sendall(head("Content-Type: video/mp4\r\nContent-Length: 30000000"))
        connection.sendall(bytes(30_000_000))
        assert answer_on(connection)[0] == 413
        connection.settimeout(20.0)  # sooner than a server gives up an idle connection
        assert connection.recv(1) == b""


def test_a_client_that_asks_first_is_not_told_to_continue(http_client: httpx2.Client) -> None:
    with connect(http_client.base_url) as connection:
        connection.sendall(head("Content-Type: text/plain\r\nContent-Length: 5\r\nExpect: 100-continue"))
        received = connection.recv(4096)
        connection.shutdown(socket.SHUT_WR)
        received += b"".join(iter(lambda: connection.recv(4096), b""))
    assert received.startswith(b"HTTP/1.1 415 ")
    assert b"100 Continue" not in received


def test_a_body_that_stops_coming_is_a_timeout() -> None:
    with running(toy_app(body_timeout_seconds=0.2)) as url, connect(url) as connection:
        connection.sendall(head("Content-Type: video/mp4\r\nContent-Length: 100") + b"a few bytes")
        status, problem = answer_on(connection)
    assert (status, problem["type"], problem["retryable"]) == (408, "request/body-timeout", True)
    assert "11 bytes" in problem["detail"]


def test_a_body_that_trickles_is_given_up_long_before_it_would_have_to_be_whole() -> None:
    slow = {"body_timeout_seconds": 60, "body_grace_seconds": 0.5, "min_body_bytes_per_second": 100}
    begun = time.monotonic()
    with running(toy_app(**slow)) as url, connect(url) as connection:
        connection.sendall(head("Content-Type: video/mp4\r\nContent-Length: 100"))
        for _ in range(30):  # ten bytes a second
            with contextlib.suppress(OSError):
                connection.sendall(b"x")
            time.sleep(0.1)
        status, problem = answer_on(connection)
    assert (status, problem["type"]) == (408, "request/body-timeout")
    assert time.monotonic() - begun < 30


def test_a_body_that_comes_fast_enough_may_take_longer_than_the_grace() -> None:
    def pieces() -> Iterator[bytes]:
        yield bytes(20_000)
        for _ in range(5):
            time.sleep(0.5)
            yield bytes(1000)

    settings = {"body_grace_seconds": 2.0, "min_body_bytes_per_second": 1000}
    assert ask(toy_app(**settings), content=pieces()).status_code == 200


def test_bodies_that_do_not_come_keep_nobody_from_working() -> None:
    with running(toy_app(max_concurrent=1, max_arriving=4)) as url, contextlib.ExitStack() as stack:
        for _ in range(3):
            stuck = stack.enter_context(connect(url))
            stuck.sendall(head("Content-Type: video/mp4\r\nContent-Length: 100") + b"a few bytes")
        assert httpx2.post(url + CLASSIFY, content=b"video", headers=RAW).status_code == 200


def test_all_bodies_together_are_bounded() -> None:
    held = Held()
    with running(toy_app(held, max_body_bytes=1000, max_held_bytes=1500)) as url, httpx2.Client(base_url=url) as client:
        first = threading.Thread(target=client.post, args=[CLASSIFY], kwargs={"content": bytes(1000), "headers": RAW})
        first.start()
        assert held.entered.wait(10)
        second = client.post(CLASSIFY, content=bytes(501), headers=RAW)
        held.release.set()
        first.join()
        assert problem_of(second).status == 429
        assert client.post(CLASSIFY, content=bytes(1000), headers=RAW).status_code == 200


# Too many, too long, gone


def test_a_full_service_refuses_at_once_and_says_when_to_come_back() -> None:
    held = Held()
    with running(toy_app(held, max_concurrent=1, retry_after_seconds=2.5)) as url, connect(url) as connection:
        connection.sendall(head("Content-Type: video/mp4\r\nContent-Length: 5") + b"video")
        assert held.entered.wait(10)
        refused = httpx2.post(url + CLASSIFY, content=b"video", headers=RAW)
        live = httpx2.get(url + "/livez")
        held.release.set()
        assert answer_on(connection)[0] == 200
    assert (problem_of(refused).type, problem_of(refused).retryable) == ("service/busy", True)
    assert refused.headers["Retry-After"] == "3"
    assert live.status_code == 200


def test_no_more_wait_than_are_labelled_in_the_time_a_request_may_wait() -> None:
    held = Held()
    with running(toy_app(held, min_waiting=2, max_wait_seconds=0.01)) as url, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(connect(url)) for _ in range(2)]
        for connection in waiting:
            connection.sendall(head("Content-Type: video/mp4\r\nContent-Length: 5") + b"video")
            assert held.entered.wait(10)
            held.entered.clear()
        time.sleep(0.1)  # in which nobody leaves
        refused = problem_of(httpx2.post(url + CLASSIFY, content=b"video", headers=RAW))
        held.release.set()
        assert [answer_on(connection)[0] for connection in waiting] == [200, 200]
        assert httpx2.post(url + CLASSIFY, content=b"video", headers=RAW).status_code == 200
    assert (refused.type, refused.retryable) == ("service/busy", True)
    assert refused.detail == "2 requests are being answered, which is the most that can be in a reasonable time"


def test_an_upload_in_progress_takes_a_place() -> None:
    with running(toy_app(max_arriving=1)) as url, connect(url) as connection:
        connection.sendall(head("Content-Type: video/mp4\r\nContent-Length: 100") + b"half")
        wait_until(lambda: httpx2.post(url + CLASSIFY, content=b"video", headers=RAW).status_code == 429)
        connection.close()  # a client that goes gives its place back
        wait_until(lambda: httpx2.post(url + CLASSIFY, content=b"video", headers=RAW).status_code == 200)


def test_an_answer_that_takes_too_long_is_a_timeout_and_the_work_is_told_to_stop() -> None:
    held = Held()
    with running(toy_app(held, max_concurrent=1, request_timeout_seconds=0.1)) as url:
        late = httpx2.post(url + CLASSIFY, content=b"video", headers=RAW)
        assert held.stopped.wait(10)
        while_it_runs_on = httpx2.post(url + CLASSIFY, content=b"video", headers=RAW)
        held.release.set()
        wait_until(lambda: httpx2.post(url + CLASSIFY, content=b"video", headers=RAW).status_code == 200)
    assert (problem_of(late).status, problem_of(late).type) == (504, "service/answer-timeout")
    assert problem_of(late).retryable
    assert while_it_runs_on.status_code == 429  # a thread cannot be killed: its place is still taken


def test_the_work_of_a_client_that_went_away_is_told_to_stop() -> None:
    held = Held()
    with running(toy_app(held)) as url:
        with connect(url) as connection:
            connection.sendall(head("Content-Type: video/mp4\r\nContent-Length: 5") + b"video")
            assert held.entered.wait(10)
        assert held.stopped.wait(10)
        held.release.set()


def test_no_descriptor_is_left_behind(http_client: httpx2.Client) -> None:
    for headers, content, _ in HOSTILE_FORMS.values():
        http_client.post(CLASSIFY, content=content, headers=headers)
    for content in (b"video", b"", bytes(1_000_001)):
        http_client.post(CLASSIFY, content=content, headers=RAW)
    wait_until(lambda: num_open_bodies() == 0)


# Errors of the callable


def subclasses(kind: type[VideoError]) -> list[type[VideoError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in subclasses(child))]


VIDEO_ERRORS = {
    kind.code: kind(value=3, limit=2) if issubclass(kind, LimitExceeded) else kind("it is like this")
    for kind in subclasses(VideoError)
    if kind is not TruncatedVideo
} | {TruncatedVideo.code: TruncatedVideo(seen_seconds=1.0, declared_seconds=9.0, min_share=0.5)}


@pytest.fixture(scope="module")
def failing() -> Iterator[httpx2.Client]:
    """A client of a service that raises the error whose code it is sent."""

    def classify(video: BinaryIO, **options: Any) -> Prediction:
        raise VIDEO_ERRORS[video.read().decode()]

    with running(toy_app(classify)) as url, httpx2.Client(base_url=url) as client:
        yield client


@pytest.mark.parametrize("code", VIDEO_ERRORS)
def test_every_error_of_the_video_is_told_with_its_code(failing: httpx2.Client, code: str) -> None:
    problem = problem_of(failing.post(CLASSIFY, content=code.encode(), headers=RAW))
    assert (problem.type, problem.detail, problem.retryable) == (code, str(VIDEO_ERRORS[code]), False)
    assert problem.status == {TooManyBytes.code: 413}.get(code, 422)


def test_an_option_that_only_the_model_can_judge_is_told_as_one() -> None:
    problem = problem_of(ask(toy_app(raising(OptionError("top_k is 3; the model knows 2 actions")))))
    assert (problem.status, problem.detail) == (422, "top_k is 3; the model knows 2 actions")


@pytest.mark.parametrize("error", [RuntimeError("secret path"), CheckpointError("secret path"), KeyError("secret")])
def test_our_own_mistake_is_logged_and_not_told(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger="serving"):
        response = ask(toy_app(raising(error)))
    problem = problem_of(response)
    assert (problem.status, problem.type, problem.retryable) == (500, "http/internal-server-error", False)
    assert "secret" not in response.text
    assert problem.request_id in caplog.text and "secret" in caplog.text


def test_a_timeout_inside_the_callable_is_not_taken_for_a_slow_body() -> None:
    assert problem_of(ask(toy_app(raising(TimeoutError("inside"))))).status == 500


# Request ids


def test_a_safe_request_id_is_kept(http_client: httpx2.Client) -> None:
    given = {"X-Request-ID": "job-7_a.b"}
    assert http_client.get("/livez", headers=given).headers["X-Request-ID"] == "job-7_a.b"
    assert problem_of(http_client.get("/nothing", headers=given)).request_id == "job-7_a.b"


@pytest.mark.parametrize("hostile", ["", "a b", "x" * 65, "<script>", "é", "a\tb", "${jndi:x}"])
def test_any_other_request_id_is_replaced(http_client: httpx2.Client, hostile: str) -> None:
    response = http_client.get("/nothing", headers=[(b"X-Request-ID", hostile.encode("latin-1"))])
    assert re.fullmatch("[0-9a-f]{32}", problem_of(response).request_id)


def test_every_answer_has_another_request_id(http_client: httpx2.Client) -> None:
    paths = ["/livez", "/readyz", "/metrics", "/v1/models", "/docs", "/openapi.json", "/nothing"]
    assert len({http_client.get(path).headers["X-Request-ID"] for path in paths}) == len(paths)


# Health, metrics, parts


def test_readiness_is_that_of_the_callable_with_its_reason() -> None:
    with running(toy_app(ready=lambda: "the canary clip has not been answered yet")) as url:
        waiting = httpx2.get(url + "/readyz")
        assert httpx2.get(url + "/livez").status_code == 200
    assert (problem_of(waiting).status, problem_of(waiting).retryable) == (503, True)
    assert "canary" in problem_of(waiting).detail


def test_a_ready_service_says_so(http_client: httpx2.Client) -> None:
    assert http_client.get("/readyz").json() == {"status": "ready"}


def test_metrics_are_prometheus_text(http_client: httpx2.Client) -> None:
    response = http_client.get("/metrics")
    assert response.text == "videos_total 1\n"
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")


def test_the_control_app_answers_health_and_nothing_else() -> None:
    app = create_control_app(ready=lambda: None, metrics=None, settings=WebSettings())
    with running(app) as url:
        assert httpx2.get(url + "/livez").status_code == 200
        assert problem_of(httpx2.get(url + "/metrics")).status == 404
        assert problem_of(httpx2.get(url + "/v2/models")).status == 404


def test_what_is_the_services_is_a_moments_problem_where_only_the_control_app_is() -> None:
    app = create_control_app(ready=lambda: None, metrics=None, settings=WebSettings())
    with running(app) as url:
        problem = problem_of(httpx2.post(url + "/v1/classify", content=b"clip"))
    assert (problem.status, problem.type, problem.retryable) == (503, "service/not-ready", True)


def test_the_service_app_can_stand_behind_a_server_that_takes_the_prefix_off() -> None:
    parts = Parts(classify=count_bytes, models=lambda: TOY_MODELS, decode=undecoded)
    app = create_service_app(parts, keys=None, settings=WebSettings(), prefix="")
    with running(app) as url:
        assert httpx2.post(url + "/classify", content=b"video", headers=RAW).status_code == 200
        assert problem_of(httpx2.get(url + "/livez")).status == 404


def test_each_request_is_observed_once_by_its_route_and_status() -> None:
    seen: list[tuple[str, str, int]] = []

    def observe(finished: Finished) -> None:
        assert 0 <= finished.seconds < 60
        seen.append((finished.route, finished.method, finished.status))

    app = toy_app(raising(TooManyFrames(3, 2)), observe=observe)
    with running(app, http="h11") as url:  # which lets any word pass as a method
        httpx2.post(url + CLASSIFY, content=b"video", headers=RAW)
        httpx2.get(url + "/livez?x=1")
        httpx2.request("BREW", url + "/nothing/at/all")
    assert seen == [("/v1/classify", "POST", 422), ("/livez", "GET", 200), ("", "", 404)]


# The OpenAPI page


def test_every_status_of_the_table_is_declared(http_client: httpx2.Client) -> None:
    paths = http_client.get("/openapi.json").json()["paths"]
    declared = {int(status) for path in paths.values() for verb in path.values() for status in verb["responses"]}
    told = {status for status, _ in problems.TABLE.values()}
    assert declared == told | {200, 201, 202, 204, 500}
    of_others_alone = {201, 202, 204, 410, 507}
    assert set(paths[CLASSIFY]["post"]["responses"]) == {str(status) for status in declared - of_others_alone}


def test_problems_and_bodies_are_declared_with_their_content_types(http_client: httpx2.Client) -> None:
    document = http_client.get("/openapi.json").json()
    post = document["paths"][CLASSIFY]["post"]
    assert list(post["responses"]["422"]["content"]) == ["application/problem+json"]
    assert set(post["requestBody"]["content"]) == {"application/octet-stream", "video/*", "multipart/form-data"}
    assert set(document["components"]["schemas"]["Problem"]["properties"]) == set(Problem.model_fields)


def test_the_digest_of_a_body_and_what_a_stump_gets_are_on_the_page(http_client: httpx2.Client) -> None:
    paths = http_client.get("/openapi.json").json()["paths"]
    with_digest = {
        path for path in paths for verb in paths[path].values() if openapi.CONTENT_DIGEST in verb.get("parameters", [])
    }
    pushes, upload = "/v1/sessions/{session}/pushes/{sequence}", "/v1/uploads/{upload}"
    assert with_digest == {CLASSIFY, "/v1/jobs", "/v1/sessions", pushes, upload}
    assert all("400" in paths[path][verb]["responses"] for path, verb in [(CLASSIFY, "post"), (upload, "patch")])
    for error in (DigestMismatch, MalformedDigest):
        assert f"`{error.code}`" in openapi.CONTENT_DIGEST["description"]
    assert f"`{TruncatedVideo.code}`" in paths[CLASSIFY]["post"]["description"]


def test_every_reference_of_the_page_leads_somewhere(http_client: httpx2.Client) -> None:
    text = http_client.get("/openapi.json").text
    names = set(re.findall(r'"\$ref":\s*"#/components/schemas/(\w+)"', text))
    assert {"Problem", "Prediction", "Models"} <= names <= set(json.loads(text)["components"]["schemas"])


def test_streams_sessions_and_lines_are_on_the_page(http_client: httpx2.Client) -> None:
    document = http_client.get("/openapi.json").json()
    assert "WS /v1/streams" in document["info"]["description"]
    paths = document["paths"]
    assert set(paths[CLASSIFY]["post"]["responses"]["200"]["content"]) == {"application/json", "application/x-ndjson"}
    verbs = {path.removeprefix("/v1/sessions"): set(paths[path]) for path in paths if "sessions" in path}
    assert verbs == {
        "": {"post"},
        "/{session}": {"get", "delete"},
        "/{session}/end": {"post"},
        "/{session}/pushes/{sequence}": {"put"},
    }


def test_both_parts_show_the_whole_page() -> None:
    app = create_control_app(ready=lambda: None, metrics=None, settings=WebSettings(docs=True))
    with running(app) as url:
        assert CLASSIFY in httpx2.get(url + "/openapi.json").json()["paths"]


def test_the_page_is_left_out_unless_it_is_asked_for() -> None:
    with running(toy_app(docs=WebSettings().docs)) as url:
        assert {httpx2.get(url + path).status_code for path in ("/docs", "/openapi.json", "/redoc")} == {404}


def test_settings_that_would_refuse_every_full_body_are_refused() -> None:
    with pytest.raises(ValueError, match="max_held_bytes"):
        WebSettings(max_body_bytes=10, max_held_bytes=9)
