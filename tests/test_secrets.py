"""Every secret at the doors of a real service on Ray: who shows a wrong one is refused, his body unread.

tests/test_guard.py tries each mistake at each route, on the application alone. Here Serve's proxy stands before it.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest
from websockets.typing import Subprotocol

from serving.keys import revoke_key
from tests.running import running_service
from tests.stream_server import Client, refusal, talking
from tests.test_guard import MISTAKES, Service, bearer, made, made_all
from tests.test_web import RAW, answer_on, connect, head
from tests.toy_models import toy_checkpoint
from tests.toy_streams import chunked, toy_frames
from tests.toy_videos import write_clip
from tests.web_server import wait_until
from vidseq.messages import FRAMES_TYPE, SUBPROTOCOL, Applied, Failed, Open, Resume, pack_frames

pytestmark = pytest.mark.cluster

PUSH = pack_frames(next(iter(chunked(toy_frames(7), [7]))))
OURS = [Subprotocol(SUBPROTOCOL)]  # who offers it hears in it why not
UPLOADS = [("POST", "/v1/classify"), ("POST", "/v1/sessions"), ("PUT", "/v1/sessions/a/pushes/0")]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("secrets")
    file, keys = made_all(folder)
    with running_service(toy_checkpoint(folder / "model"), "--keys", str(file)) as running:
        yield Service(running.url, file, keys, [])


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize(("method", "path"), UPLOADS)
def test_a_wrong_key_is_refused_while_the_body_never_comes(
    service: Service, method: str, path: str, mistake: str
) -> None:
    assert refused_unread(service, method, path, service.mistake(mistake)) == (401, MISTAKES[mistake])


@pytest.mark.parametrize(
    ("key", "method", "path"),
    [("stream", "POST", "/v1/classify"), ("classify", *UPLOADS[1]), ("classify", *UPLOADS[2]), ("admin", *UPLOADS[0])],
)
def test_a_key_for_something_else_is_refused_while_the_body_never_comes(
    service: Service, key: str, method: str, path: str
) -> None:
    shown = [("Authorization", f"Bearer {service.keys[key]}")]
    assert refused_unread(service, method, path, shown) == (403, "key/scope")


def refused_unread(service: Service, method: str, path: str, shown: list[tuple[str, str]]) -> tuple[int, str]:
    """What is answered to the headers of a body of a megabyte, of which not a byte is sent."""
    headers = [("Content-Type", "video/mp4"), ("Content-Length", "1000000"), *shown]
    lines = "\r\n".join(f"{name}: {value}" for name, value in headers)
    with contextlib.closing(connect(service.url)) as connection:
        connection.sendall(head(lines, path).replace(b"POST", method.encode(), 1))
        status, problem = answer_on(connection)
    return status, problem["type"]


def test_a_good_key_is_answered(service: Service, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", num_frames=20).read_bytes()
    headers = RAW | bearer(service.keys["both"])
    assert httpx2.post(service.url + "/v1/classify", content=clip, headers=headers, timeout=60).status_code == 200


@pytest.mark.parametrize("mistake", MISTAKES)
def test_no_stream_is_opened_with_a_wrong_key(service: Service, mistake: str) -> None:
    with talking(service.url, subprotocols=OURS, additional_headers=service.mistake(mistake)) as client:
        failed, code = refusal(client)
    assert (failed.problem.status, failed.problem.type, code) == (401, MISTAKES[mistake], 4401)


def test_no_stream_is_opened_with_a_key_for_something_else(service: Service) -> None:
    with talking(service.url, subprotocols=OURS, additional_headers=bearer(service.keys["classify"])) as client:
        failed, code = refusal(client)
    assert (failed.problem.status, failed.problem.type, code) == (403, "key/scope", 4403)


def test_a_key_that_is_revoked_is_refused_from_then_on(service: Service) -> None:
    key = made(service.file, "for a while", ["classify"])
    wait_until(lambda: asked_models(service, key) == 200)
    revoke_key(service.file, key[4:16])
    wait_until(lambda: asked_models(service, key) == 401)


def asked_models(service: Service, key: str) -> int:
    return httpx2.get(service.url + "/v1/models", headers=bearer(key)).status_code


class Kept(NamedTuple):
    """What a client holds of its stream."""

    session: str
    token: str


@pytest.fixture
def kept(service: Service) -> Kept:
    headers = bearer(service.keys["stream"])
    session = httpx2.post(service.url + "/v1/sessions", json={"input": "frames"}, headers=headers).json()["session"]
    with talking(service.url, additional_headers=headers) as client:
        client.open(input="frames", keep="client")
        client.say(PUSH)
        applied = client.hear()
    assert isinstance(applied, Applied) and applied.resume_token is not None
    return Kept(session, applied.resume_token)


def test_a_resume_token_opens_for_its_key_alone(service: Service, kept: Kept) -> None:
    assert resumed_by(service, "stream", kept.token) is None
    assert resumed_by(service, "neighbour", kept.token) == (403, "session/token")


@pytest.mark.parametrize("end", ["AAA", "", "=", "."])
def test_a_resume_token_that_was_changed_is_refused(service: Service, kept: Kept, end: str) -> None:
    assert resumed_by(service, "stream", kept.token[:-3] + end) == (403, "session/token")


def resumed_by(service: Service, key: str, token: str) -> tuple[int, str] | None:
    """Why a stream does not go on from there; None where it does."""
    with talking(service.url, additional_headers=bearer(service.keys[key])) as client:
        client.say(Open(input="frames", keep="client", resume=Resume(token=token)).model_dump_json())
        return why(client)


def why(client: Client) -> tuple[int, str] | None:
    heard = client.hear()
    return (heard.problem.status, heard.problem.type) if isinstance(heard, Failed) else None


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "/end"), ("PUT", "/pushes/0")])
def test_a_session_is_not_there_for_another_key(service: Service, kept: Kept, method: str, path: str) -> None:
    """A name that one cannot use is not told apart from one that never was."""
    headers = bearer(service.keys["neighbour"]) | {"Content-Type": FRAMES_TYPE}
    url = f"{service.url}/v1/sessions/{kept.session}{path}"
    answer = httpx2.request(method, url, headers=headers, content=PUSH if method == "PUT" else None)
    assert (answer.status_code, answer.json()["type"]) == (404, "session/not-found")
