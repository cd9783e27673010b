"""A WebSocket that is ended from outside: its key is revoked, the service leaves. Knows not why, and no routes."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import problems
from serving.refusals import PARTING_SECONDS, problem_of
from serving.together import beside
from vidseq.errors import VidseqError
from vidseq.messages import Failed
from vidseq.schemas import Problem


async def converse(
    app: ASGIApp,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    until: Coroutine[Any, Any, None],
    ends: tuple[type[VidseqError], ...],
) -> None:
    """Let `app` talk until it is done, or `until` raises one of `ends`, which the client then hears as a problem."""
    said = ""

    async def relay(message: Message) -> None:
        nonlocal said
        said = message["type"]
        await send(message)

    async def answer() -> None:
        await app(scope, receive, relay)

    try:
        await beside(answer(), until)
    except ends as error:
        problem = problem_of(error, scope)
        with suppress(OSError):  # the client has gone, or takes nothing: a timeout is an OSError, too
            await asyncio.wait_for(_end_stream(said, problem, send), PARTING_SECONDS)


async def _end_stream(said: str, problem: Problem, send: Send) -> None:
    """The last words to a client to whom `said` was said last."""
    if said in ("websocket.accept", "websocket.send"):
        await send({"type": "websocket.send", "text": Failed(problem=problem).model_dump_json()})
    if said != "websocket.close":
        await send({"type": "websocket.close", "code": problems.CLOSE_CODES + problem.status, "reason": problem.type})
