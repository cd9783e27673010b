"""An answer that is written line by line while a video is labelled (NDJSON). Knows no routes and no models.

    body, whole  ->  (thread) decode  ->  Decoding  ->  Live.push_clip  ->  {"type": "applied", ...}
                                                                            {"type": "final", ...}

What is wrong before the first line is an ordinary problem; after it, it is the last line, {"type": "failed", ...}.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving import problems
from serving.accept import LINES_TYPE
from serving.finished import Facts
from serving.handover import Decoding, labelled
from serving.parts import Live, PushObserver
from serving.problems import AnswerTimeout
from serving.together import beside
from serving.usage.used import Used
from vidseq.messages import Applied, Failed, Final, StreamOptions
from vidseq.schemas import VideoReport

if TYPE_CHECKING:  # with it comes OpenCV
    from vidseq.sampling import Clip

Line = Applied | Final | Failed


class Passing:
    """A stream that nobody keeps: it lives as long as the request. The Labels of serving.handover."""

    def __init__(self, live: Live, options: StreamOptions, *, charge: Callable[[Used], None]) -> None:
        self._live = live
        self._charge = charge
        self._num_decoded = 0
        self._options = options
        self._session = live.start()

    async def push_clip(self, clip: "Clip", *, video: VideoReport) -> Applied:
        before = self._session
        applied, self._session = await self._live.push_clip(before, clip, video=video, options=self._options)
        self._charge(
            Used(
                frames_decoded=video.frames_decoded - self._num_decoded,
                frames_labelled=len(applied.labels),
                compute_seconds=self._session.spent.compute_seconds - before.spent.compute_seconds,
            )
        )
        self._num_decoded = video.frames_decoded
        return applied

    async def end(self, *, video: VideoReport, seen_until: float | None) -> Final:
        final = self._live.end(self._session, options=self._options, video=video, seen_until=seen_until)
        self._charge(Used(frames_labelled=len(final.labels)))
        return final


class Lines(Response):
    """The labels of a video that is being decoded, a line for each clip.

    Args:
        decoding: it runs, and is stopped when the answer has ended or nobody reads it any more.
        labels: what makes labels of it.
        asked_for: a line without what was not asked for.
        timeout_seconds: for each line to be made and taken.
        observe_push: told of each clip.
    """

    media_type = LINES_TYPE

    def __init__(
        self,
        decoding: Decoding,
        labels: Passing,
        *,
        asked_for: Callable[[Line], Line],
        timeout_seconds: float,
        observe_push: PushObserver,
    ) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._decoding = decoding
        self._lines = labelled(decoding, labels, observe=observe_push)
        self._asked_for = asked_for
        self._timeout_seconds = timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await beside(self._write(send, scope["state"]["request_id"], scope["state"]["facts"]), _gone(receive))
        finally:
            self._decoding.stop()

    async def _write(self, send: Send, request_id: str, facts: Facts) -> None:
        first = await self._next_line()  # raises: nothing has been said yet
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        line: Line | None = first
        while line is not None:
            body = self._asked_for(line).model_dump_json().encode() + b"\n"
            await self._taken(send({"type": "http.response.body", "body": body, "more_body": True}))
            if isinstance(line, Failed):
                facts.problem = line.problem.type
            line = None if isinstance(line, Final | Failed) else await self._next_or_failed(request_id)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _taken(self, sending: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await sending
        except TimeoutError:  # who reads nothing for so long is as good as gone
            raise ClientDisconnect from None

    async def _next_line(self) -> Line:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await anext(self._lines)
        except TimeoutError:
            raise AnswerTimeout(f"no label within {self._timeout_seconds:g} seconds") from None

    async def _next_or_failed(self, request_id: str) -> Line:
        try:
            return await self._next_line()
        except Exception as error:
            return problems.failed(error, request_id)


async def disconnected(receive: Receive) -> None:
    """Returns when the client goes. Only to be awaited after the body, for it would swallow pieces of it."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _gone(receive: Receive) -> None:
    await disconnected(receive)
    raise ClientDisconnect
