"""The SDK at a door with keys, on a real server: each way to ask shows the key, and each refusal is one typed error."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.keyring import KeyRing
from serving.keys import create_key, revoke_key
from tests.stream_server import stream_app
from tests.toy_streams import encoded, picture, toy_live
from tests.toy_videos import write_clip
from tests.web_server import running, wait_until
from vidseq.client import AsyncClient, AsyncStream, Client
from vidseq.errors import NotAuthorized

File = Path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> File:
    return tmp_path_factory.mktemp("keys") / "keys.db"


@pytest.fixture(scope="module")
def key(file: File) -> str:
    return create_key(file, name="all", scopes=["classify", "stream"], lifetime_seconds=None)


@pytest.fixture(scope="module")
def url(file: File, key: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("live")
    with toy_live(folder) as live, running(stream_app(live, folder, keys=KeyRing(file))) as url:
        yield url


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", num_frames=20)


def jpeg() -> bytes:
    return bytes(encoded(picture(0), 0.0, format="jpeg").data)


def blocking(ask: Callable[[Any], Any], *settings: Any) -> Any:
    with Client(*settings, max_retries=0) as client:
        return ask(client)


def asynchronous(ask: Callable[[Any], Any], *settings: Any) -> Any:
    async def main() -> Any:
        async with AsyncClient(*settings, max_retries=0) as client:
            answer = ask(client)
            return await answer if inspect.isawaitable(answer) else answer

    return asyncio.run(main())


@pytest.mark.parametrize("through", [blocking, asynchronous])
def test_a_key_opens_every_door_of_the_sdk(through: Any, url: str, key: str, clip: Path) -> None:
    assert through(lambda client: client.models(), url, key)
    assert through(lambda client: client.classify(b"video"), url, key)
    assert through(pushed, url, key).sampled.num_frames == 1
    assert through(sent(clip), url, key)


def pushed(client: Any) -> Any:
    """The Prediction for one picture."""
    if isinstance(client, AsyncClient):
        return _pushed(client.stream())
    with client.stream() as stream:
        stream.push(jpeg(), seconds=0.0)
        return stream.end()


async def _pushed(opening: AsyncStream) -> Any:
    async with opening as stream:
        await stream.push(jpeg(), seconds=0.0)
        return await stream.end()


def sent(clip: Path) -> Callable[[Any], Any]:
    async def collect(client: AsyncClient) -> list[Any]:
        async with client.classify_stream(clip) as labels:
            return [moment async for moment in labels]

    return lambda client: collect(client) if isinstance(client, AsyncClient) else list(client.classify_stream(clip))


@pytest.mark.parametrize("through", [blocking, asynchronous])
@pytest.mark.parametrize("ask", [lambda client: client.models(), lambda client: client.classify(b"video"), pushed])
def test_without_a_key_each_of_them_says_what_to_do(
    through: Any, ask: Any, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VIDSEQ_API_KEY", raising=False)
    with pytest.raises(NotAuthorized, match="VIDSEQ_API_KEY") as caught:
        through(ask, url)
    assert (caught.value.status, caught.value.type) == (401, "key/missing")
    assert caught.value.request_id


@pytest.mark.parametrize("through", [blocking, asynchronous])
@pytest.mark.parametrize("ask", [lambda client: client.classify(b"video"), pushed])
def test_a_key_that_is_not_for_this_is_told_apart(through: Any, ask: Any, url: str, file: File) -> None:
    key = create_key(file, name=f"admin {len(file.read_bytes())}", scopes=["admin"], lifetime_seconds=None)
    wait_until(lambda: _models(url, key), seconds=1.0)
    with pytest.raises(NotAuthorized, match="this needs a key with the scope") as caught:
        through(ask, url, key)
    assert (caught.value.status, caught.value.type) == (403, "key/scope")
    assert key not in repr(caught.value)
    revoke_key(file, key[4:16])


def _models(url: str, key: str) -> bool:
    try:
        return bool(blocking(lambda client: client.models(), url, key))
    except NotAuthorized:
        return False


def test_the_key_comes_from_the_environment(url: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSEQ_API_KEY", key)
    with Client(url) as client:
        assert client.models()
        assert key not in repr(client) and key[17:] not in repr(client.stream())


def test_a_stream_whose_key_is_revoked_fails_at_once_and_is_not_tried_again(url: str, file: File) -> None:
    key = create_key(file, name="brief", scopes=["stream"], lifetime_seconds=None)
    wait_until(lambda: _models(url, key), seconds=1.0)

    def push_and_wait(client: Client) -> None:
        with client.stream() as stream:
            stream.push(jpeg(), seconds=0.0)
            revoke_key(file, key[4:16])
            for _ in stream.events():
                pass

    with pytest.raises(NotAuthorized, match="revoked") as caught:
        blocking(push_and_wait, url, key)
    assert (caught.value.status, caught.value.type) == (401, "key/revoked")
