"""A window over a body, between two layers and a queue without a bound, as it is in Serve's proxy."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.flow import WINDOW_BYTES, Ahead, Taking


class Carried:
    """Reads all that it can get of a request, and hands it on when it is asked."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = Taking(app)
        self.most_held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        queue = asyncio.Queue[Message]()
        num_held = 0

        async def read() -> None:
            nonlocal num_held
            while True:
                message = await receive()
                num_held += len(message.get("body", b""))
                self.most_held = max(self.most_held, num_held)
                queue.put_nowait(message)
                if message["type"] == "http.disconnect":
                    return

        async def fetch() -> Message:
            nonlocal num_held
            message = await queue.get()
            num_held -= len(message.get("body", b""))
            return message

        reading = asyncio.create_task(read())
        try:
            await self._app(scope, fetch, send)
        finally:
            reading.cancel()


async def exchange(app: ASGIApp, pieces: Sequence[bytes]) -> list[Message]:
    """What a client of `app` hears whose body comes in these pieces, and who then leaves."""
    coming = [
        {"type": "http.request", "body": piece, "more_body": index < len(pieces) - 1}
        for index, piece in enumerate(pieces)
    ]
    heard: list[Message] = []

    async def receive() -> Message:
        await asyncio.sleep(0)
        return coming.pop(0) if coming else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        heard.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
    async with asyncio.timeout(10):
        await app(scope, receive, send)
    return heard


async def slowly_read(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the sizes of what came."""
    sizes = []
    async for piece in Request(scope, receive).stream():
        sizes += [len(piece)] if piece else []
        for _ in range(20):
            await asyncio.sleep(0)
    await PlainTextResponse(str(sizes))(scope, receive, send)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 700_000), min_size=1, max_size=30))
def test_the_whole_body_comes_and_no_more_than_a_window_is_on_its_way(sizes: list[int]) -> None:
    carried = Carried(slowly_read)
    heard = asyncio.run(exchange(Ahead(carried), [bytes(size) for size in sizes]))
    assert [message["type"] for message in heard] == ["http.response.start", "http.response.body"]
    assert heard[1]["body"].decode() == str([size for size in sizes if size])
    assert carried.most_held < WINDOW_BYTES + max(sizes)


def test_without_the_window_all_of_it_would_be() -> None:
    carried = Carried(slowly_read)
    asyncio.run(exchange(carried, [bytes(500_000)] * 20))
    assert carried.most_held > 2 * WINDOW_BYTES


async def unread(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("no")(scope, receive, send)


async def waited_for(scope: Scope, receive: Receive, send: Send) -> None:
    """Works, and looks whether the client is still there."""
    await Request(scope, receive).body()
    message = await receive()
    await PlainTextResponse(message["type"])(scope, receive, send)


@pytest.mark.parametrize(("app", "said"), [(unread, b"no"), (waited_for, b"http.disconnect")])
def test_an_answer_before_the_body_and_a_client_that_leaves(app: ASGIApp, said: bytes) -> None:
    heard = asyncio.run(exchange(Ahead(Carried(app)), [bytes(400_000)] * 20))
    assert heard[-1]["body"] == said


def test_an_application_beside_no_proxy_says_nothing_unusual() -> None:
    answer = TestClient(Taking(slowly_read)).post("/", content=bytes(2 * WINDOW_BYTES), headers={"vidseq.taken": "1"})
    assert answer.status_code == 200
