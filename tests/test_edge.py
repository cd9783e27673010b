"""The edge as it is deployed: a real HAProxy with deploy/haproxy.cfg, TLS and all, before a real server."""

import contextlib
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import Receive, Scope, Send

from serving.front import OVERRULING
from serving.web_settings import WebSettings
from tests.edge import CONFIG, Edge, certificate, environment, running_edge
from tests.require import need
from tests.running import free_port
from tests.stream_server import stream_app
from tests.test_web import RAW, problem_of
from tests.toy_streams import picture, toy_live
from tests.web_server import Held, running, toy_app, wait_until
from vidseq.client import Client

CLASSIFY = "/v1/classify"


class Node:
    """An application as a node of Ray Serve has it: beside it Serve's own paths, and a mirror of what comes."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.drains = False
        self.num_asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path.startswith("/-/"):
            await PlainTextResponse("success", 503 if self.drains else 200)(scope, receive, send)
        elif path == "/v1/mirror":
            headers = [[name.decode(), value.decode()] for name, value in scope["headers"]]
            await JSONResponse(headers, headers={"Server": "of the node"})(scope, receive, send)
        else:
            self.num_asked += path == CLASSIFY
            await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """In front of an application that streams, counts bytes and takes 30 MB."""
    folder = tmp_path_factory.mktemp("edge")
    with toy_live(folder / "model") as live:
        node = Node(stream_app(live, folder, max_body_bytes=30_000_000))
        with running(node) as url, running_edge(url, max_body_bytes=40_000_000) as edge:
            yield edge


@pytest.fixture(scope="module")
def client(edge: Edge) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=edge.url, verify=edge.trust, timeout=30) as client:
        yield client


def raw(edge: Edge, *, source: str = "127.0.0.1") -> ssl.SSLSocket:
    connection = edge.trust.wrap_socket(socket.socket(), server_hostname="127.0.0.1")
    try:
        connection.settimeout(30)
        connection.bind((source, 0))
        connection.connect(("127.0.0.1", edge.port))
    except OSError:  # wrapped after it was connected, nobody could close one that was cut off as early as that
        connection.close()
        raise
    return connection


def heard(connection: ssl.SSLSocket) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and problem of the answer, when the connection has been closed."""
    received = b""
    with contextlib.suppress(ConnectionResetError, ssl.SSLEOFError):
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert headers["content-type"] == "application/problem+json"
    problem = json.loads(body)
    assert problem["request_id"] == headers["x-request-id"] != ""
    return int(first.split()[1]), headers, problem


# The file


def test_haproxy_finds_nothing_wrong_with_the_configuration(tmp_path: Path) -> None:
    told = environment(port=8443, certificate=certificate(tmp_path), nodes="127.0.0.1:8000")
    checked = subprocess.run(
        [need("haproxy"), "-c", "-f", CONFIG], env=told, capture_output=True, text=True, timeout=60
    )
    assert (checked.returncode, checked.stdout.strip(), checked.stderr) == (0, "Configuration file is valid", "")


def test_the_edge_takes_no_less_than_the_service_and_hears_it_say_itself_that_it_took_too_long() -> None:
    settings = WebSettings()
    said = dict(line.split()[1:3] for line in CONFIG.read_text().splitlines() if line.strip().startswith("presetenv"))
    timeouts = dict(line.split()[1:3] for line in CONFIG.read_text().splitlines() if line.strip().startswith("timeout"))
    assert int(said["VIDSEQ_EDGE_MAX_BODY_BYTES"]) == settings.max_body_bytes + 64 * 1024
    assert float(timeouts["server"].rstrip("s")) > settings.body_timeout_seconds + settings.request_timeout_seconds
    assert float(timeouts["client"].rstrip("s")) > settings.body_grace_seconds


# TLS and the SDK


def test_the_sdk_classifies_and_streams_through_the_edge(edge: Edge) -> None:
    with Client(edge.url, verify=edge.trust) as client:
        assert client.classify(bytes(100)).action.label == "100 bytes"  # type: ignore[union-attr]
        with client.stream() as stream:
            for number in range(8):
                stream.push(picture(number), seconds=number / 8)
            assert len(stream.end().frames) > 0


def test_whoever_is_told_to_trust_nobody_else_does_not_talk_to_the_edge(edge: Edge) -> None:
    with pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx2.get(edge.url + "/livez")


def test_old_versions_of_tls_are_refused(edge: Edge) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError), socket.create_connection(("127.0.0.1", edge.port), timeout=20) as connection:
        old.wrap_socket(connection)


def test_every_answer_keeps_browsers_on_tls_and_names_no_server(client: httpx2.Client) -> None:
    for path in ("/livez", "/v1/mirror", "/v1/nothing", "/metrics"):
        headers = client.get(path).headers
        assert headers["Strict-Transport-Security"] == "max-age=31536000"
        assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "Server" not in headers
    assert "script-src" in client.get("/docs").headers["Content-Security-Policy"]


# What is published


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/metrics/",
        "//metrics",
        "/%6Detrics",
        "/-/healthz",
        "/-/routes",
        "/",
        "/v12/models",
        "/v1/../metrics",
    ],
)
def test_what_is_not_of_the_api_is_not_published(edge: Edge, path: str) -> None:
    with raw(edge) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        status, _, problem = heard(connection)
    assert (status, problem["type"]) == (404, "http/not-found")


def test_what_is_of_the_api_is_published(client: httpx2.Client) -> None:
    paths = ("/livez", "/readyz", "/v1/models", "/docs", "/openapi.json")
    assert [client.get(path).status_code for path in paths] == [200] * 5
    problem = problem_of(client.get("/v1/nothing"))
    assert "GET /v1/nothing" in problem.detail  # the service's own words


def test_no_header_with_which_a_client_could_steer_serve_or_forge_where_it_comes_from_passes(
    client: httpx2.Client,
) -> None:
    names = {name.decode() for name in OVERRULING} | {"Forwarded", "X-Forwarded-Host", "X-Real-IP", "Proxy"}
    names |= {name.replace("-", "_") for name in names} | {name.upper() for name in names}
    told = dict(client.get("/v1/mirror", headers=dict.fromkeys(names, "7") | {"X-Forwarded-For": "7"}).json())
    assert "7" not in told.values()
    assert (told["x-forwarded-for"], told["x-forwarded-proto"]) == ("127.0.0.1", "https")


@pytest.mark.parametrize(("asked", "kept"), [("mine-1", True), ("a b", False), ("vsk_0123", False), ("x" * 65, False)])
def test_a_request_has_one_id_which_is_the_clients_if_it_is_harmless(
    client: httpx2.Client, asked: str, kept: bool
) -> None:
    answer = client.get("/v1/mirror", headers={"X-Request-ID": asked})
    (seen,) = [value for name, value in answer.json() if name == "x-request-id"]
    assert (seen == asked) is kept
    assert len(seen) >= 6
    assert client.get("/nothing", headers={"X-Request-ID": asked}).headers["X-Request-ID"] != asked or kept


def test_nothing_that_may_be_a_key_is_logged(edge: Edge, client: httpx2.Client) -> None:
    client.get("/v1/models?key=vsk_one", headers={"Authorization": "Bearer vsk_two", "X-Request-ID": "logged-1"})
    client.get("/v1/vsk_three", headers={"X-Request-ID": "logged-2"})
    wait_until(lambda: "logged-2" in edge.said())
    lines = [json.loads(line) for line in edge.said().splitlines() if line.startswith("{")]
    (first,) = [line for line in lines if line["request_id"] == "logged-1"]
    assert (first["method"], first["path"], first["status"], first["client"]) == ("GET", "/v1/models", 200, "127.0.0.1")
    assert "vsk_" not in edge.said()


# Bodies


def test_a_large_body_goes_through(client: httpx2.Client) -> None:
    answer = client.post(CLASSIFY, content=bytes(25_000_000), headers=RAW)
    assert answer.json()["action"]["label"] == "25000000 bytes"
    chunked = client.post(CLASSIFY, content=iter([bytes(1_000_000)] * 20), headers=RAW)
    assert chunked.json()["action"]["label"] == "20000000 bytes"


def test_a_body_that_is_declared_too_large_goes_no_further(edge: Edge) -> None:
    with raw(edge) as connection:
        connection.sendall(f"POST {CLASSIFY} HTTP/1.1\r\nHost: x\r\nContent-Length: 40000001\r\n\r\n".encode())
        status, _, problem = heard(connection)
    assert (status, problem["type"]) == (413, "request/body-too-large")
    assert problem["detail"] == "The body has 40000001 bytes; at most 40000000 are allowed."


# Slow and greedy


def test_headers_that_come_slowly_are_cut_off_however_they_trickle(edge: Edge) -> None:
    begun = time.monotonic()
    with raw(edge) as connection, contextlib.suppress(OSError):
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n")
        for number in range(60):
            connection.sendall(b"X-Slow-%d: 1\r\n" % number)
            time.sleep(0.5)
    assert 9 < time.monotonic() - begun < 25  # 10 seconds, and what a loaded machine adds


def test_a_connection_that_says_nothing_is_closed(edge: Edge) -> None:
    with raw(edge) as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_what_is_no_http_is_cut_off_with_haproxys_own_words(edge: Edge) -> None:
    """Refused before a request is there that the configuration could answer."""
    with raw(edge) as connection:
        connection.sendall(b"GARBAGE\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")
        while connection.recv(65536):
            pass  # until it is closed


def test_one_address_has_only_so_many_connections_and_another_is_answered() -> None:
    with running(Node(toy_app())) as url, running_edge(url, connections_of_address=10) as edge:
        with contextlib.ExitStack() as stack:
            for _ in range(10):
                stack.enter_context(raw(edge))
            with raw(edge) as connection:
                connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                status, headers, problem = heard(connection)
            assert (status, problem["type"], headers["retry-after"]) == (429, "edge/connections", "5")
            for _ in range(9):  # twice as many are open
                stack.enter_context(raw_in_time(edge))
            with pytest.raises(OSError, match=r"reset|EOF|timed out"), raw(edge) as connection:
                connection.recv(1)
            assert answered(edge, "/livez", source="127.0.0.2") == 200

        def is_let_in() -> bool:
            with contextlib.suppress(OSError):  # those that were closed just now count for a moment more
                return answered(edge, "/livez") == 200
            return False

        wait_until(is_let_in)


def raw_in_time(edge: Edge) -> ssl.SSLSocket:
    """One that is let in: those that were closed just now count for a moment more."""
    found: list[ssl.SSLSocket] = []

    def try_it() -> bool:
        with contextlib.suppress(OSError):
            found.append(raw(edge))
        return bool(found)

    wait_until(try_it)
    return found[0]


def answered(edge: Edge, path: str, *, source: str = "127.0.0.1") -> int:
    with raw(edge, source=source) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return int(connection.recv(100).split()[1])


def test_health_is_answered_while_uploads_have_every_place_of_the_node() -> None:
    few = CONFIG.read_text().replace("maxconn 1000", "maxconn 4")
    node = Node(toy_app())
    with running(node) as url, running_edge(url, config=few) as edge, contextlib.ExitStack() as stack:
        for _ in range(4):
            stuck = stack.enter_context(raw(edge))
            stuck.sendall(f"POST {CLASSIFY} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n".encode() + b"v")
        wait_until(lambda: node.num_asked == 4)
        with raw(edge) as connection:
            connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert [answered(edge, path) for path in ("/livez", "/readyz")] == [200, 200]
            status, headers, problem = heard(connection)  # no place came free within five seconds
    assert (status, problem["retryable"], headers["retry-after"]) == (503, True, "1")


# Nodes


def test_a_node_that_drains_or_is_not_ready_gets_nothing_more_and_health_says_so_itself() -> None:
    ready: list[str] = []
    node = Node(toy_app(ready=lambda: ready[0] if ready else None))
    with running(node) as url, running_edge(url) as edge:
        node.drains = True
        wait_until(lambda: answered(edge, "/v1/models") == 503, seconds=30)
        assert answered(edge, "/readyz") == 200
        node.drains = False
        wait_until(lambda: answered(edge, "/v1/models") == 200, seconds=30)
        ready.append("the canary clip was not answered")
        wait_until(lambda: answered(edge, "/v1/models") == 503, seconds=30)
        with httpx2.Client(base_url=edge.url, verify=edge.trust) as client:
            assert "canary" in problem_of(client.get("/readyz")).detail
            assert problem_of(client.get("/v1/models")).retryable


def test_what_a_node_has_when_it_begins_to_drain_it_finishes_and_others_go_to_the_next() -> None:
    held, answers = Held(), list[httpx2.Response]()
    first, second = Node(toy_app(held)), Node(toy_app())
    with running(first) as one, running(second) as two:
        nodes = [url.removeprefix("http://") for url in (one, two)]
        listed = [f"server node{n} {node}\n" for n, node in enumerate(nodes)]
        template = 'server-template node 1-"${VIDSEQ_EDGE_MAX_NODES}" "${VIDSEQ_EDGE_NODES}"\n'
        config = CONFIG.read_text().replace(template, "    ".join(listed))
        with (
            running_edge(one, config=config) as edge,
            httpx2.Client(base_url=edge.url, verify=edge.trust, timeout=60) as client,
        ):

            def post() -> None:
                answers.append(client.post(CLASSIFY, content=b"video", headers=RAW))

            posting = [threading.Thread(target=post) for _ in range(4)]  # to the node with the fewest, in turn
            for thread in posting:
                thread.start()
            assert held.entered.wait(20)
            first.drains = True
            wait_until(lambda: '"node":"node0"' not in last_lines(edge, client), seconds=30)
            held.release.set()
            for thread in posting:
                thread.join()
    assert [answer.status_code for answer in answers] == [200] * 4


def last_lines(edge: Edge, client: httpx2.Client) -> str:
    """What is logged of four questions that are asked now."""
    for number in range(4):
        client.get("/v1/models", headers={"X-Request-ID": f"last-{number}-{time.monotonic_ns()}"})
    return "\n".join(edge.said().splitlines()[-4:])


def test_without_a_service_the_edge_says_so_itself() -> None:
    with running_edge(f"http://127.0.0.1:{free_port()}", down=True) as edge, raw(edge) as connection:
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        status, headers, problem = heard(connection)
    assert (status, problem["retryable"], headers["retry-after"]) == (503, True, "1")
