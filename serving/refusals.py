"""A refusal at the door, before anything is routed, parsed or read: of a request or a WebSocket. Knows no routes."""

import asyncio
import logging
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from serving import problems
from serving.keyring import KeysDown
from vidseq.errors import VidseqError
from vidseq.messages import SUBPROTOCOL, Failed
from vidseq.schemas import Problem

logger = logging.getLogger(__name__)

PARTING_SECONDS = 5.0  # for the last words to a client who may not listen


async def refuse(error: VidseqError, scope: Scope, receive: Receive, send: Send) -> None:
    """`error` is in the table of serving.problems."""
    problem = problem_of(error, scope)
    response = problems.response(problem, problems.headers_of(error, problem))
    if scope["type"] == "http":
        await response(scope, receive, send)
    else:
        with suppress(OSError, WebSocketDisconnect):  # the client has gone, or takes nothing: a timeout is an OSError
            await asyncio.wait_for(_refuse_socket(WebSocket(scope, receive, send), problem, response), PARTING_SECONDS)


async def _refuse_socket(websocket: WebSocket, problem: Problem, response: Response) -> None:
    """In answer to the handshake. A page in a browser cannot see that: who offers our protocol is told in it."""
    offered = SUBPROTOCOL in websocket.scope.get("subprotocols", ())
    if not offered and "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(response)
        return
    await websocket.accept(SUBPROTOCOL if offered else None)
    await websocket.send_text(Failed(problem=problem).model_dump_json())
    await websocket.close(problems.CLOSE_CODES + problem.status, problem.type)


def problem_of(error: VidseqError, scope: Scope) -> Problem:
    """The problem, which is logged here."""
    problem = problems.of_error(error, scope["state"]["request_id"])
    assert problem is not None, f"{type(error).__name__} is not in the table"
    if isinstance(error, KeysDown):
        logger.error("request %s: %s: %s", problem.request_id, problem.type, error.__cause__)
    else:
        logger.info("request %s: %s: %s", problem.request_id, problem.type, problem.detail)
    return problem
