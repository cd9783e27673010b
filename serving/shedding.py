"""A full service says no at the door: who comes in the next moment hears it from the proxy. Knows no models.

Front -> Shedding -> Serve's proxy -> a replica

A refusal by a replica costs Serve what any small request costs it, some 10 ms of CPU; at several times the load that
it can take, a machine would do little else. So what a replica has refused because it is full, the proxy refuses for a
moment in its words (load is shed where that is cheap: Site Reliability Engineering, O'Reilly 2016, chapter 21). The
moment is short against what waits inside: nobody there runs out of work.
"""

import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import problems
from serving.answer_headers import HEADERS
from serving.envelope import Envelope
from serving.finished import Observer
from vidseq.schemas import Problem

MOMENT_SECONDS = 0.25
PATH = "/v1/classify"


class Shedding:
    """An ASGI layer. `observe` is told of what is refused here; of all else a replica tells."""

    def __init__(
        self, app: ASGIApp, *, observe: Observer | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._clock = clock
        self._until = float("-inf")
        self._said: tuple[Problem, str] | None = None
        self._refusing = Envelope(self._refuse, observe=observe)
        self._route = Route(PATH, self._refuse)  # by which it is counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] != PATH:
            await self._app(scope, receive, send)
        elif self._clock() < self._until:
            scope["route"] = self._route
            await self._refusing(scope, receive, send)
        else:
            await self._app(scope, receive, self._listening(send))

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._said is not None
        problem, retry_after = self._said
        problem = problem.model_copy(update={"request_id": scope["state"]["request_id"]})
        await problems.response(problem, HEADERS | {"Retry-After": retry_after})(scope, receive, send)

    def _listening(self, send: Send) -> Send:
        """To whether it is the service that is full: a key that has all it may have is no affair of others."""
        retry_after: str | None = None

        async def relay(message: Message) -> None:
            nonlocal retry_after
            if message["type"] == "http.response.start" and message["status"] == problems.TABLE[problems.Busy][0]:
                headers = Headers(raw=message["headers"])
                if headers.get("content-type") == problems.MEDIA_TYPE:
                    retry_after = headers.get("retry-after")
            elif retry_after is not None and message.get("body"):
                problem = Problem.model_validate_json(message["body"])
                if problem.type == problems.Busy.code:
                    self._said, self._until = (problem, retry_after), self._clock() + MOMENT_SECONDS
                retry_after = None
            await send(message)

        return relay
