"""A service of a few lines that speaks vidseq.messages, and breaks at the moment it is told."""

import asyncio
import contextlib
import io
import ssl
import threading
from collections import deque
from typing import Any

import httpx2
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.web_server import MODEL, count_bytes
from vidseq.client.blocking import LoopThread
from vidseq.client.conversation import Terms
from vidseq.client.retries import Retries
from vidseq.client.sockets import Address
from vidseq.messages import (
    Applied,
    End,
    Failed,
    Final,
    Open,
    Ready,
    Received,
    SegmentChange,
    read_client_message,
    unpack_frames,
)
from vidseq.schemas import Moment, Problem, Scored, Segment

PREDICTION = count_bytes(
    io.BytesIO(b""), start_seconds=0.0, end_seconds=None, top_k=1, model=None, stop=threading.Event()
).model_copy(update={"frames": (), "segments": ()})

Fault = tuple[str, int]
"""Where a connection breaks: at which moment, and at which push or byte."""


class Service:
    """Applies pushes as the real service does; each connection breaks at the next of `faults`, later ones nowhere.

    The label of a frame is its time; each push opens and closes a segment.
    """

    def __init__(self, *faults: Fault, window_pushes: int = 4, window_bytes: int = 2**24, hold: bool = False) -> None:
        self.faults = deque(faults)
        self.window_pushes = window_pushes
        self.window_bytes = window_bytes
        self.go_on = threading.Event()
        if not hold:
            self.go_on.set()
        self.opens: list[Open] = []
        self.requests: list[Request] = []
        self.answers: list[Applied] = []
        self.final: Final | None = None
        self.most_unanswered = 0
        self.videos: list[bytes] = []
        self.enough_bytes = 2**40
        self.refusal: Response | None = None

    def __enter__(self) -> "Service":
        self._thread = LoopThread()
        self._server = self._thread.run(self._start())
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.go_on.set()
        self._thread.run(self._stop())
        self._thread.close()

    async def _start(self) -> Any:
        return await serve(self._talk, "127.0.0.1", 0, process_request=self._refuse, close_timeout=0.2, max_size=2**24)

    def _refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        return self.refusal

    async def _stop(self) -> None:
        self._server.close(close_connections=True)
        await self._server.wait_closed()

    async def _talk(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.requests.append(connection.request)
        self.fault = self.faults.popleft() if self.faults else ("never", 0)
        with contextlib.suppress(ConnectionClosed):
            self.num_arrived = len(self.answers)
            opening = read_client_message(await connection.recv())
            assert isinstance(opening, Open)
            self.opens.append(opening)
            await self._break(connection, "before-ready", 0)
            await connection.send(self._ready(opening).model_dump_json())
            await self._break(connection, "after-ready", 0)
            if opening.resume and opening.resume.session:
                for answer in self.answers[opening.resume.received :]:
                    await connection.send(answer.model_dump_json())
                    await self._break(connection, "after-missed", answer.sequence)
            await (self._frames if opening.input == "frames" else self._video)(connection, opening)

    def _ready(self, opening: Open) -> Ready:
        if opening.keep == "client":  # nothing is remembered here
            self.answers = self.answers[: int(opening.resume.token or 0) if opening.resume else 0]
        return Ready(
            session="session-1" if opening.keep == "service" else None,
            model=MODEL,
            next_sequence=len(self.answers),
            last_seconds=None,
            frames_per_second=8.0,
            lookahead_seconds=0.0,
            window_pushes=self.window_pushes,
            window_bytes=self.window_bytes,
            max_push_bytes=100_000,
            resume_token=str(len(self.answers)) if opening.keep == "client" else None,
        )

    async def _frames(self, connection: ServerConnection, opening: Open) -> None:
        arrived: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        reading = asyncio.create_task(self._read(connection, arrived))
        try:
            while isinstance(push := await arrived.get(), bytes):
                await asyncio.to_thread(self.go_on.wait)
                self.most_unanswered = max(self.most_unanswered, self.num_arrived - len(self.answers))
                await self._break(connection, "before-apply", len(self.answers))
                self.answers.append(self._apply(push, opening))
                await self._break(connection, "after-apply", len(self.answers) - 1)
                await connection.send(self.answers[-1].model_dump_json())
                await self._break(connection, "after-answer", len(self.answers) - 1)
            if push is None:
                return
            assert isinstance(read_client_message(push), End)
            await self._break(connection, "before-final", 0)
            await connection.send(Final(prediction=PREDICTION).model_dump_json())
        finally:
            reading.cancel()

    async def _video(self, connection: ServerConnection, opening: Open) -> None:
        """A label for each 1,000 bytes; those that were told before are not told again."""
        num_bytes, num_told, num_credited = 0, 0, 0
        self.videos.append(b"")
        while isinstance(piece := await connection.recv(), bytes):
            self.videos[-1] += piece
            num_bytes += len(piece)
            assert num_bytes - num_credited <= self.window_bytes, "beyond the window"
            await self._break(connection, "before-label", num_bytes // 1000)
            while (num_told + 1) * 1000 <= num_bytes:
                if num_told == len(self.answers):
                    self.answers.append(Applied(sequence=num_told, labels=(moment_at(num_told),)))
                    await self._break(connection, "after-apply", num_told)
                    await connection.send(self.answers[-1].model_dump_json())
                num_told += 1
            if num_bytes - num_credited >= self.window_bytes // 4:
                num_credited = num_bytes
                await connection.send(Received(num_bytes=num_credited).model_dump_json())
            if num_bytes >= self.enough_bytes:
                break
        await self._break(connection, "before-final", 0)
        await connection.send(Final(prediction=PREDICTION).model_dump_json())

    async def _read(self, connection: ServerConnection, arrived: "asyncio.Queue[str | bytes | None]") -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                arrived.put_nowait(message := await connection.recv())
                self.num_arrived += isinstance(message, bytes)
        arrived.put_nowait(None)

    def _apply(self, push: bytes, opening: Open) -> Applied:
        sequence, frames = len(self.answers), unpack_frames(push)
        labels = tuple(moment_at(frame.seconds) for frame in frames)
        segment = Segment(start_seconds=frames[0].seconds, end_seconds=frames[-1].seconds, label="step", score=0.5)
        changes = tuple(SegmentChange.model_validate({"change": change, "segment": segment}) for change in CHANGES)
        token = str(sequence + 1) if opening.keep == "client" else None
        return Applied(sequence=sequence, labels=labels, segments=changes, resume_token=token)

    async def _break(self, connection: ServerConnection, moment: str, number: int) -> None:
        """What a fault does, where it is the one of this moment."""
        if self.fault[0] == f"{moment}:cut" and self.fault[1] == number:
            connection.transport.abort()
        if self.fault[0] == f"{moment}:half" and self.fault[1] == number:
            connection.transport.write(b'\x81\x7e\x01\x00{"type": "appl')  # 256 bytes are announced
            connection.transport.close()
        if self.fault[0] == f"{moment}:again" and self.fault[1] == number:
            await connection.send(self.answers[number].model_dump_json())
        if self.fault[0] == f"{moment}:skip" and self.fault[1] == number:
            self.answers.append(self.answers[-1].model_copy(update={"sequence": len(self.answers)}))
        if self.fault[0].startswith(f"{moment}:say ") and self.fault[1] == number:
            await connection.send(self.fault[0].partition("say ")[2])
        if self.fault[0].startswith(f"{moment}:fail ") and self.fault[1] == number:
            status, _, type = self.fault[0].partition("fail ")[2].partition(" ")
            await connection.send(Failed(problem=problem(int(status), type)).model_dump_json())
            await connection.close(4000 + int(status))


CHANGES = ("opened", "closed")


def moment_at(seconds: float) -> Moment:
    return Moment(seconds=seconds, frame=Scored(label=f"{seconds:g}", score=0.5), action=None)


def problem(status: int, type: str) -> Problem:
    return Problem(type=type, title="No", status=status, detail="it is so", request_id="r-1", retryable=status == 429)


def terms(url: str, *, reconnects: int = 50, timeout_seconds: float = 20.0, **opening: Any) -> Terms:
    """As a client makes them, with pauses of milliseconds."""
    streams = httpx2.URL(url.replace("http", "ws", 1) + "/v1/streams")
    address = Address(streams, {}, tls=ssl.create_default_context(), connect_seconds=5.0)
    return Terms(
        address=address,
        opening=Open.model_validate(opening),
        timeout_seconds=timeout_seconds,
        retries=Retries(50, first_seconds=0.01, max_seconds=0.05),
        reconnects=Retries(reconnects, first_seconds=0.01, max_seconds=0.05),
        collect=True,
    )
