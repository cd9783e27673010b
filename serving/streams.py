"""WS /v1/streams: pictures or a video come in while labels go out. Knows no models, and not how sessions are kept.

    frames   socket -> Backlog -> Stream.push ------------------------------------------------> socket
    video    socket -> Inflow -> Incoming -> (thread) decode -> Decoding -> Stream.push_clip -> socket

One task always reads the socket, whatever the others wait for: what a server or proxy in front holds for a slow reader
has no bound, what is held here has. A thread, a descriptor or a place outlives its connection by no more than the
moment in which it notices.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import ExitStack

from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocket, WebSocketDisconnect

from serving import problems
from serving.admission import Admission, Workers
from serving.backlog import Backlog, Inflow, Waiting
from serving.callers import key_of, owner_of, refuse_foreign_page, refuse_other_model, streaming
from serving.finished import Facts
from serving.handover import Decoding, labelled
from serving.parts import Decode, PushObserver, Sessions, Stream
from serving.problems import BodyTooLarge, StreamIdle
from serving.together import beside
from vidseq.config import Config, PositiveInt, PositiveSeconds
from vidseq.errors import OptionError, TooManyBytes
from vidseq.incoming import Incoming
from vidseq.messages import SUBPROTOCOL, End, Final, Notice, Noticed, Open, Received, read_client_message
from vidseq.schemas import Answer, Models

logger = logging.getLogger(__name__)

NORMAL_CLOSE = 1000
MAX_OPEN_BYTES = 512 * 1024  # a resume token has up to 256 KB
PIECE_BYTES = 64 * 1024  # that go to the decoder in one step
INDEX_AT_END = Noticed(
    notices=(
        Notice(
            kind="index-at-end",
            effect="waiting",
            seconds=None,
            num_frames=0,
            detail="the index of this MP4 stands at its end: labels follow when all of it is here",
        ),
    )
)


class StreamSettings(Config):
    """What open streams may cost. Each holds up to a window of bytes (`Ready.window_bytes`) that nobody looked at yet.

    `max_held_bytes` bounds the videos with an index at their end, which are held whole, all together. A client that
    sends nothing for `idle_timeout_seconds` while nothing is owed to it is cut off, and so is one that does not take
    an answer for `send_timeout_seconds`.
    """

    max_streams: PositiveInt = 256
    max_video_bytes: PositiveInt = 4 * 2**30
    max_index_at_end_bytes: PositiveInt = 512 * 2**20
    max_held_bytes: PositiveInt = 2 * 2**30
    open_timeout_seconds: PositiveSeconds = 10.0
    idle_timeout_seconds: PositiveSeconds = 300.0
    send_timeout_seconds: PositiveSeconds = 60.0


class Socket:
    """A WebSocket that says messages of vidseq.messages. Raises starlette's ClientDisconnect when nobody is there."""

    def __init__(self, websocket: WebSocket, *, send_timeout_seconds: float) -> None:
        self._websocket = websocket
        self._send_timeout_seconds = send_timeout_seconds

    async def accept(self) -> None:
        offered = SUBPROTOCOL in self._websocket.scope.get("subprotocols", ())
        await self._taken(self._websocket.accept(SUBPROTOCOL if offered else None))

    async def receive(self) -> str | bytes:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise ClientDisconnect
        data: str | bytes = message["text"] if message.get("bytes") is None else message["bytes"]
        return data

    async def tell(self, message: Answer) -> None:
        await self._taken(self._websocket.send_text(message.model_dump_json()))

    async def close(self, code: int, reason: str = "") -> None:
        await self._taken(self._websocket.close(code, reason))

    async def _taken(self, sending: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(self._send_timeout_seconds):
                await sending
        except (OSError, WebSocketDisconnect) as error:  # a timeout is an OSError, too
            raise ClientDisconnect from error


class Streams:
    """The door. `serve` takes one connection from its handshake to its end.

    Args:
        sessions: None where the model cannot stream.
        decode: how a video is decoded.
        models: what is loaded.
        admission, workers: places and threads in which videos are decoded, shared with those that come as bodies.
        settings: what all this may cost.
        allowed_origins: pages of other hosts that may open a stream.
        key_share: what one key may have of all places, and of all bytes.
        observe_push: told of each push that is answered.
    """

    def __init__(
        self,
        sessions: Sessions | None,
        *,
        decode: Decode,
        models: Callable[[], Models],
        admission: Admission,
        workers: Workers,
        settings: StreamSettings,
        allowed_origins: Collection[str],
        key_share: float,
        observe_push: PushObserver,
    ) -> None:
        self._sessions = sessions
        self._decode = decode
        self._models = models
        self._admission = admission
        self._workers = workers
        self._settings = settings
        self._allowed_origins = allowed_origins
        self._observe_push = observe_push
        self._places = Admission(
            max_requests=settings.max_streams,
            max_bytes=settings.max_held_bytes,
            max_body_bytes=settings.max_index_at_end_bytes,
            share=key_share,
            retry_after_seconds=1.0,
        )

    async def serve(self, websocket: WebSocket) -> None:
        socket = Socket(websocket, send_timeout_seconds=self._settings.send_timeout_seconds)
        request_id = websocket.state.request_id
        try:
            await socket.accept()
            try:
                await self._converse(socket, websocket)
                await socket.close(NORMAL_CLOSE)
            except ClientDisconnect:
                raise
            except Exception as error:
                failed = problems.failed(error, request_id)
                await socket.tell(failed)
                await socket.close(problems.CLOSE_CODES + failed.problem.status, failed.problem.type)
        except ClientDisconnect:
            logger.info("request %s: the client went away", request_id)

    async def _converse(self, socket: Socket, websocket: WebSocket) -> None:
        refuse_foreign_page(websocket.headers, self._allowed_origins)
        with self._places.place(key_of(websocket)) as hold:
            asked = await self._first_message(socket)
            facts: Facts = websocket.state.facts
            facts.model = refuse_other_model(websocket, asked.model, self._models()).name
            observe_push = facts.counting(self._observe_push)
            stream = await streaming(self._sessions).open(asked, owner=owner_of(websocket))
            for message in (stream.ready, *stream.missed):
                await socket.tell(message)
            if any(isinstance(message, Final) for message in stream.missed):
                return
            if asked.input == "video":
                await self._label_video(socket, stream, hold, observe_push, key=key_of(websocket))
            else:
                await self._label_frames(socket, stream, observe_push)

    async def _first_message(self, socket: Socket) -> Open:
        timeout_seconds = self._settings.open_timeout_seconds
        try:
            async with asyncio.timeout(timeout_seconds):
                message = await socket.receive()
        except TimeoutError:
            raise StreamIdle(f"no open message came within {timeout_seconds:g} seconds") from None
        if isinstance(message, bytes):
            raise OptionError("the first message is a text that opens the stream")
        asked = _read(message)
        if not isinstance(asked, Open):
            raise OptionError("the first message opens the stream")
        return asked

    async def _label_frames(self, socket: Socket, stream: Stream, observe_push: PushObserver) -> None:
        ready = stream.ready
        backlog = Backlog(
            when_full=stream.options.when_full,
            max_push_bytes=ready.max_push_bytes,
            max_pushes=ready.window_pushes,
            max_bytes=ready.window_bytes,
        )
        await beside(self._answer_pushes(socket, stream, backlog, observe_push), self._listen(socket, backlog))

    async def _answer_pushes(
        self, socket: Socket, stream: Stream, backlog: Backlog, observe_push: PushObserver
    ) -> None:
        while (taken := await backlog.take()) is not None:
            if isinstance(taken, Waiting):
                applied = await stream.push(taken.push, born_seconds=taken.born_seconds)
                observe_push(applied, seconds=time.perf_counter() - taken.born_seconds)
                await socket.tell(applied)
            else:
                for applied in await stream.skip(taken):
                    await socket.tell(applied)
        await socket.tell(await stream.end(video=None, seen_until=stream.seen_until))

    async def _label_video(
        self,
        socket: Socket,
        stream: Stream,
        hold: Callable[[int], None],
        observe_push: PushObserver,
        *,
        key: str | None,
    ) -> None:
        inflow = Inflow(max_bytes=stream.ready.window_bytes)
        with Incoming(max_bytes=self._settings.max_video_bytes) as incoming, ExitStack() as holding:
            holding.enter_context(self._admission.place(key))
            decoding = Decoding(self._decode(incoming, sampling=stream.sampling, clock=stream.clock))
            self._workers.begin(decoding.run, holding=holding.pop_all())  # a place is given up by the thread
            try:
                await beside(
                    self._answer_video(socket, stream, decoding, observe_push),
                    self._listen(socket, inflow),
                    self._pour(socket, inflow, incoming, hold),
                )
            finally:
                decoding.stop()

    async def _answer_video(
        self, socket: Socket, stream: Stream, decoding: Decoding, observe_push: PushObserver
    ) -> None:
        async for message in labelled(decoding, stream, observe=observe_push):
            await socket.tell(message)

    async def _pour(self, socket: Socket, inflow: Inflow, incoming: Incoming, hold: Callable[[int], None]) -> None:
        """From the inflow to the decoder, as fast as it takes it."""
        wanted, num_held, num_told = True, 0, 0
        while piece := await inflow.take(max_bytes=PIECE_BYTES):
            before = incoming.index_at_end
            if before is not False:
                hold(len(piece))
                num_held += len(piece)
                if num_held > self._settings.max_index_at_end_bytes:
                    raise TooManyBytes(num_held, self._settings.max_index_at_end_bytes)
            wanted = wanted and await incoming.feed(piece)
            if incoming.index_at_end and not before:
                await socket.tell(INDEX_AT_END)
            inflow.passed(len(piece))
            if inflow.num_passed - num_told >= inflow.max_bytes // 4:
                num_told = inflow.num_passed
                await socket.tell(Received(num_bytes=num_told))
        incoming.finish()

    async def _listen(self, socket: Socket, waiting: Backlog | Inflow) -> None:
        """From the socket to where it waits, until the connection ends."""
        while True:
            message = await self._next_message(socket, waiting)
            if isinstance(message, str):
                if not isinstance(_read(message), End):
                    raise OptionError("the stream is open already")
                waiting.end()
            else:
                waiting.put(message)

    async def _next_message(self, socket: Socket, waiting: Backlog | Inflow) -> str | bytes:
        timeout_seconds = self._settings.idle_timeout_seconds
        while True:
            try:
                async with asyncio.timeout(timeout_seconds):
                    return await socket.receive()
            except TimeoutError:
                if not waiting.owes:
                    raise StreamIdle(f"nothing came for {timeout_seconds:g} seconds") from None


def _read(message: str) -> Open | End:
    if len(message) > MAX_OPEN_BYTES:
        raise BodyTooLarge(f"a message of {len(message):,} letters; at most {MAX_OPEN_BYTES:,} are allowed")
    return read_client_message(message)
