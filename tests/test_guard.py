"""API keys at the door of a real server: who has none is refused before a byte of the body; no key is ever logged."""

import contextlib
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from starlette.routing import WebSocketRoute
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as connect_socket
from websockets.typing import Subprotocol

from serving.finished import Finished
from serving.guard import NEEDS, part_of
from serving.keyring import KeyRing
from serving.keys import create_key, revoke_key
from serving.web import whole_api
from tests.stream_server import refusal, stream_app, talking
from tests.test_web import RAW, answer_on, connect, head, problem_of
from tests.toy_streams import chunked, toy_frames, toy_live
from tests.web_server import Held, running, toy_app, wait_until
from vidseq.live import Live
from vidseq.messages import FRAMES_TYPE, SUBPROTOCOL, Applied, Failed, pack_frames

PUSH = pack_frames(next(iter(chunked(toy_frames(7), [7]))))
ROUTES = [
    ("POST", "/v1/classify"),
    ("GET", "/v1/models"),
    ("POST", "/v1/sessions"),
    ("PUT", "/v1/sessions/a/pushes/0"),
    ("GET", "/v1/sessions/a"),
    ("POST", "/v1/sessions/a/end"),
    ("DELETE", "/v1/sessions/a"),
    ("GET", "/v1/nothing"),
]
MISTAKES = {
    "missing": "key/missing",
    "empty": "key/malformed",
    "malformed": "key/malformed",
    "basic": "key/malformed",
    "twice": "key/malformed",
    "unknown": "key/unknown",
    "wrong": "key/unknown",
    "expired": "key/expired",
    "revoked": "key/revoked",
}
Headers = list[tuple[str, str]]


class Service(NamedTuple):
    url: str
    file: Path
    keys: dict[str, str]  # by what they are good for, or why they are not
    log: list[str]

    def mistake(self, name: str) -> Headers:
        """The headers of somebody who makes it."""
        good = self.keys["classify"]
        shown = {
            "missing": [],
            "empty": ["Bearer"],
            "malformed": [f"Bearer {good}x"],
            "basic": [f"Basic {good}"],
            "twice": [f"Bearer {good}", f"Bearer {good}"],
            "wrong": [f"Bearer {good[:17]}{self.keys['stream'][17:]}"],
        }
        return [("Authorization", word) for word in shown.get(name, [f"Bearer {self.keys.get(name)}"])]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def made(file: Path, name: str, scopes: list[str], seconds: float | None = None) -> str:
    return create_key(file, name=name, scopes=scopes, lifetime_seconds=seconds)


def made_all(folder: Path) -> tuple[Path, dict[str, str]]:
    file, other = folder / "keys.db", folder / "other.db"
    keys = {name: made(file, name, [name]) for name in ("classify", "stream", "admin")}
    keys |= {"both": made(file, "both", ["classify", "stream"]), "neighbour": made(file, "neighbour", ["stream"])}
    keys |= {"expired": made(file, "expired", ["classify", "stream"], 0.001), "revoked": made(file, "gone", ["stream"])}
    keys["unknown"] = made(other, "other", ["classify"])
    revoke_key(file, keys["revoked"][4:16])
    return file, keys


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with toy_live(tmp_path_factory.mktemp("live")) as live:
        yield live


class Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.INFO)
        self.lines = lines
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        of_client = record.name.startswith(("httpx2", "httpcore2", "websockets.client"))
        if not of_client:
            self.lines.append(self.format(record))


@pytest.fixture(scope="module")
def service(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With its log, of the server itself and its access log too, as it would be with everything from INFO on."""
    folder = tmp_path_factory.mktemp("service")
    file, keys = made_all(folder)
    log = list[str]()
    root, handler = logging.getLogger(), Lines(log)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        with running(stream_app(live, folder, keys=KeyRing(file))) as url:
            yield Service(url, file, keys, log)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


# Over HTTP


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_whoever_has_no_good_key_is_refused(service: Service, method: str, path: str, mistake: str) -> None:
    answer = httpx2.request(method, service.url + path, headers=service.mistake(mistake))
    problem = problem_of(answer)
    assert (problem.status, problem.type) == (401, MISTAKES[mistake])
    error = "" if mistake == "missing" else ' error="invalid_token"'
    assert answer.headers["WWW-Authenticate"] == "Bearer" + error


@pytest.mark.parametrize(
    ("key", "method", "path", "needed"),
    [
        ("stream", "POST", "/v1/classify", "classify"),
        ("admin", "POST", "/v1/classify", "classify"),
        ("classify", "POST", "/v1/sessions", "stream"),
        ("classify", "DELETE", "/v1/sessions/a", "stream"),
        ("admin", "PUT", "/v1/sessions/a/pushes/0", "stream"),
    ],
)
def test_a_key_for_something_else_is_refused(service: Service, key: str, method: str, path: str, needed: str) -> None:
    answer = httpx2.request(method, service.url + path, headers=bearer(service.keys[key]))
    problem = problem_of(answer)
    assert (problem.status, problem.type) == (403, "key/scope")
    assert f"the scope '{needed}'" in problem.detail
    assert answer.headers["WWW-Authenticate"] == f'Bearer error="insufficient_scope", scope="{needed}"'


@pytest.mark.parametrize("key", [*MISTAKES, "stream"])
def test_the_refusal_comes_while_the_body_never_does(service: Service, key: str) -> None:
    shown = service.mistake(key)
    headers = "\r\n".join(f"{name}: {value}" for name, value in [("Content-Length", "1000000"), *shown])
    with contextlib.closing(connect(service.url)) as connection:
        connection.sendall(head(f"Content-Type: video/mp4\r\n{headers}"))
        status, problem = answer_on(connection)
    assert (status, problem["type"]) == ((403, "key/scope") if key == "stream" else (401, MISTAKES[key]))


def test_a_client_that_goes_on_sending_still_hears_that_it_is_refused(service: Service) -> None:
    answer = httpx2.post(service.url + "/v1/classify", content=b"x" * 30_000_000, headers=RAW, timeout=20)
    assert problem_of(answer).type == "key/missing"


def test_nothing_of_a_refused_request_reaches_what_labels(tmp_path: Path) -> None:
    file, keys = made_all(tmp_path)
    held = Held()
    with running(toy_app(held, keys=KeyRing(file))) as url:
        httpx2.post(url + "/v1/classify", content=b"video", headers=RAW | bearer(keys["stream"]))
    assert not held.entered.is_set()


def test_a_good_key_is_answered(service: Service) -> None:
    for scheme in ("Bearer", "bearer"):
        headers = RAW | {"Authorization": f"{scheme} {service.keys['classify']}"}
        assert httpx2.post(service.url + "/v1/classify", content=b"video", headers=headers).status_code == 200
    for key in ("classify", "stream", "admin"):
        assert httpx2.get(service.url + "/v1/models", headers=bearer(service.keys[key])).status_code == 200
    assert problem_of(httpx2.get(service.url + "/v1/nothing", headers=bearer(service.keys["admin"]))).status == 404


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/docs", "/openapi.json"])
def test_what_tells_of_no_caller_needs_no_key(service: Service, path: str) -> None:
    assert httpx2.get(service.url + path).status_code == 200


@pytest.mark.parametrize(
    "place", ["/v1/models?key={}", "/v1/models?{}", "/v1/models?key={}&x=1", "/v1/{}", "/v1/sessions/{}"]
)
def test_a_key_in_the_address_is_refused_even_beside_a_good_one(service: Service, place: str) -> None:
    for key in (service.keys["both"], service.keys["both"].replace("_", "%5F")):
        problem = problem_of(httpx2.get(service.url + place.format(key), headers=bearer(service.keys["both"])))
        assert (problem.status, problem.type) == (401, "key/misplaced")
        assert "revoke it" in problem.detail


def test_a_refusal_is_counted_under_no_name_that_a_client_chose(service: Service, tmp_path: Path) -> None:
    seen: list[Finished] = []
    with running(toy_app(keys=KeyRing(service.file), observe=seen.append)) as url:
        httpx2.get(f"{url}/v1/{service.keys['both']}", headers=bearer(service.keys["unknown"]))
        httpx2.get(f"{url}/v1/models", headers=bearer(service.keys["both"]))
    assert [(finished.route, finished.status) for finished in seen] == [("", 401), ("/v1/models", 200)]
    assert "vsk_" not in str(seen)


def test_keys_that_are_made_and_revoked_count_without_a_restart(service: Service) -> None:
    key = made(service.file, "brief", ["classify"])
    wait_until(lambda: asked(service, key) == 200)
    revoke_key(service.file, key[4:16])
    wait_until(lambda: asked(service, key) == 401)


def asked(service: Service, key: str) -> int:
    return httpx2.get(service.url + "/v1/models", headers=bearer(key)).status_code


def test_without_its_file_a_service_lets_nobody_in_and_says_that_it_is_its_own_fault(tmp_path: Path) -> None:
    file, keys = made_all(tmp_path)
    with running(toy_app(keys=KeyRing(file))) as url:
        assert httpx2.get(url + "/v1/models", headers=bearer(keys["both"])).status_code == 200
        file.unlink()
        wait_until(lambda: httpx2.get(url + "/v1/models", headers=bearer(keys["both"])).status_code == 503)
        answer = httpx2.get(url + "/v1/models", headers=bearer(keys["both"]))
    problem = problem_of(answer)
    assert (problem.type, problem.retryable, answer.headers["Retry-After"]) == ("key/unreadable", True, "1")
    assert str(file) not in problem.detail


def test_a_service_without_keys_asks_for_none() -> None:
    with running(toy_app(keys=None)) as url:
        assert httpx2.get(url + "/v1/models").status_code == 200


# Sessions


def test_a_session_over_http_is_its_keys_alone(service: Service) -> None:
    with httpx2.Client(base_url=service.url, headers=bearer(service.keys["stream"])) as mine:
        path = mine.post("/v1/sessions", json={}).headers["Location"]
        for name in ("neighbour", "both"):
            theirs = bearer(service.keys[name])
            for method, where in (("GET", path), ("POST", f"{path}/end"), ("DELETE", path)):
                assert problem_of(httpx2.request(method, service.url + where, headers=theirs)).status == 404
            push = httpx2.put(
                f"{service.url}{path}/pushes/0", content=PUSH, headers=theirs | {"Content-Type": FRAMES_TYPE}
            )
            assert problem_of(push).type == "session/not-found"
        assert mine.put(f"{path}/pushes/0", content=PUSH, headers={"Content-Type": FRAMES_TYPE}).status_code == 200


@pytest.mark.parametrize(("keep", "type"), [("service", "session/not-found"), ("client", "session/token")])
def test_a_stream_is_resumed_by_its_key_alone(service: Service, keep: str, type: str) -> None:
    with talking(service.url, additional_headers=bearer(service.keys["stream"])) as client:
        ready = client.open(keep=keep)
    resume = {"session": ready.session} if keep == "service" else {"token": ready.resume_token}
    asked = json.dumps({"type": "open", "keep": keep, "resume": resume})
    with talking(service.url, additional_headers=bearer(service.keys["neighbour"])) as client:
        client.say(asked)
        failed, _ = refusal(client)
    assert failed.problem.type == type
    with talking(service.url, additional_headers=bearer(service.keys["stream"])) as client:
        client.say(asked)
        assert client.hear().type == "ready"


# WebSockets


def offering(key: str, *others: str) -> dict[str, Any]:
    return {"subprotocols": [Subprotocol(word) for word in (*others, f"vidseq.bearer.{key}")]}


def test_a_browser_shows_its_key_as_a_subprotocol_and_gets_the_other_one_back(service: Service) -> None:
    with talking(service.url, **offering(service.keys["stream"], SUBPROTOCOL)) as client:
        assert client.connection.subprotocol == SUBPROTOCOL
        assert client.open(input="frames").session
    with talking(service.url, **offering(service.keys["stream"])) as client:
        assert client.connection.subprotocol is None
        assert client.open(input="frames").session


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_handshake_of_a_stream_without_a_good_key_is_refused(service: Service, mistake: str) -> None:
    status, told, header = handshake(service.url, additional_headers=service.mistake(mistake))
    assert (status, told["type"]) == (401, MISTAKES[mistake])
    assert header.startswith("Bearer")


def test_the_handshake_of_a_stream_with_a_key_for_something_else_is_refused(service: Service) -> None:
    status, told, header = handshake(service.url, additional_headers=bearer(service.keys["classify"]))
    assert (status, told["type"]) == (403, "key/scope")
    assert header == 'Bearer error="insufficient_scope", scope="stream"'
    assert handshake(service.url, **offering(service.keys["classify"]))[0] == 403
    both = {**offering(service.keys["stream"]), "additional_headers": bearer(service.keys["stream"])}
    assert handshake(service.url, **both)[1]["type"] == "key/malformed"


def handshake(url: str, **options: Any) -> tuple[int, dict[str, Any], str]:
    """Status, problem and WWW-Authenticate of the HTTP answer in place of a WebSocket."""
    with pytest.raises(InvalidStatus) as refused, talking(url, **options):
        pass
    response = refused.value.response
    problem = json.loads(response.body)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["X-Request-ID"] == problem["request_id"]
    return response.status_code, problem, response.headers["WWW-Authenticate"]


@pytest.mark.parametrize(("key", "code"), [("unknown", 4401), ("revoked", 4401), ("classify", 4403)])
def test_a_page_in_a_browser_which_cannot_see_a_handshake_is_told_in_the_protocol(
    service: Service, key: str, code: int
) -> None:
    with talking(service.url, **offering(service.keys[key], SUBPROTOCOL)) as client:
        failed, closed = refusal(client)
    assert (closed, failed.problem.status) == (code, code - 4000)
    assert failed.problem.request_id == client.connection.response.headers["X-Request-ID"]  # type: ignore[union-attr]


def test_a_key_in_the_address_of_a_stream_is_refused(service: Service) -> None:
    url = service.url.replace("http", "ws") + f"/v1/streams?key={service.keys['stream']}"
    with pytest.raises(InvalidStatus) as refused, connect_socket(url):
        pass
    assert json.loads(refused.value.response.body)["type"] == "key/misplaced"


def test_an_open_stream_ends_within_a_second_when_its_key_is_revoked_and_its_session_stays(service: Service) -> None:
    """A busy machine may be late, but not three times in a row."""
    assert any(seconds_to_end(service, f"streaming {number}") < 1.5 for number in range(3))


def seconds_to_end(service: Service, name: str) -> float:
    """From the revocation of its key to the end of an open stream, which says why."""
    key = made(service.file, name, ["stream"])
    wait_until(lambda: asked(service, key) == 200)
    with talking(service.url, additional_headers=bearer(key)) as client:
        client.open(input="frames")
        client.say(PUSH)
        assert isinstance(client.hear(), Applied)
        revoke_key(service.file, key[4:16])
        begun = time.monotonic()
        failed = client.hear()
        seconds = time.monotonic() - begun
        assert isinstance(failed, Failed)
        assert client.hear_all() == []
    assert (failed.problem.type, client.code) == ("key/revoked", 4401)
    return seconds


# What stays secret, and what is complete


def test_no_key_is_in_what_the_service_logs(service: Service) -> None:
    """Each kind of mistake, and what goes well, over HTTP and WebSocket; also with the key where no key belongs."""
    url, keys = service.url, service.keys
    log_begins = len(service.log)
    for mistake in [*MISTAKES, "classify", "stream"]:
        shown = service.mistake(mistake)
        for method, path in ROUTES:
            httpx2.request(method, url + path, headers=shown)
        with contextlib.suppress(InvalidStatus), talking(url, additional_headers=shown) as client:
            client.open(input="frames")
    for key in (keys["stream"], keys["unknown"]):
        httpx2.get(f"{url}/v1/models?api_key={key}")
        httpx2.get(f"{url}/v1/{key}")
        httpx2.get(f"{url}/v1/models", headers={"X-Request-ID": key, "X-API-Key": key, "Cookie": f"key={key}"})
        with contextlib.suppress(InvalidStatus), connect_socket(f"{url.replace('http', 'ws')}/v1/streams?key={key}"):
            pass
        with talking(url, **offering(key, SUBPROTOCOL)) as client:
            with contextlib.suppress(ConnectionClosed):
                client.say("{}")
            client.hear_all()
    said = "\n".join(service.log[log_begins:])
    assert all(type in said for type in {*MISTAKES.values(), "key/scope", "key/misplaced"})
    assert [key for key in keys.values() if key in said or key[17:] in said] == []


def test_no_answer_repeats_a_key(service: Service) -> None:
    for mistake in MISTAKES:
        answer = httpx2.get(service.url + "/v1/models", headers=service.mistake(mistake))
        told = answer.text + str(answer.headers)
        assert [key for key in service.keys.values() if key[17:] in told] == []


def test_the_guard_knows_what_each_part_of_the_service_needs() -> None:
    app = toy_app()
    sockets = [route.path for route in app.routes if isinstance(route, WebSocketRoute)]
    assert {part_of(path, prefix="/v1") for path in [*whole_api()["paths"], "/v1/streams", *sockets]} == {*NEEDS, None}


@pytest.mark.parametrize(
    ("path", "prefix", "part"),
    [
        ("/v1/classify", "/v1", "classify"),
        ("/v1/sessions/a/end", "/v1", "sessions"),
        ("/v1", "/v1", ""),
        ("/v1/", "/v1", ""),
        ("/v12/classify", "/v1", None),
        ("/livez", "/v1", None),
        ("/classify", "", "classify"),
        ("/", "", ""),
    ],
)
def test_a_path_is_of_a_part(path: str, prefix: str, part: str | None) -> None:
    assert part_of(path, prefix=prefix) == part


def test_behind_a_server_that_takes_the_prefix_off_all_is_guarded(tmp_path: Path) -> None:
    file, keys = made_all(tmp_path)
    app = toy_app(keys=KeyRing(file))

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": "/prefix", "path": "/prefix" + scope["path"]}, receive, send)

    with running(mounted, lifespan="off") as url:
        assert problem_of(httpx2.get(url + "/v1/models")).status == 401
        assert httpx2.get(url + "/v1/models", headers=bearer(keys["both"])).status_code == 200
        assert problem_of(httpx2.post(url + "/v1/classify", headers=bearer(keys["stream"]))).status == 403


def test_the_page_says_which_key_each_route_needs_and_what_is_answered_without() -> None:
    document = whole_api()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    for path, verbs in document["paths"].items():
        for route in verbs.values():
            told = {"401", "503"} <= set(route["responses"])
            assert (told, "security" in route) == (path.startswith("/v1"),) * 2 or path == "/readyz"
    assert document["paths"]["/v1/classify"]["post"]["security"] == [{"key": ["classify"]}]
    assert "403" in document["paths"]["/v1/sessions"]["post"]["responses"]
    assert "403" not in document["paths"]["/v1/models"]["get"]["responses"]
