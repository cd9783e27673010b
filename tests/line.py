"""A line between a client and a service that is cut after so many bytes, however they are meant."""

import asyncio
import contextlib

import httpx2

from vidseq.client.blocking import LoopThread


class Line:
    """Passes on what comes in either direction; connection i is cut after `budgets[i]` bytes, later ones never."""

    def __init__(self, url: str, budgets: list[int]) -> None:
        self._port = httpx2.URL(url).port
        self._budgets = list(budgets)
        self._open: set[asyncio.Task[None]] = set()
        self._ends: list[asyncio.StreamWriter] = []
        self.num_cuts = 0

    def __enter__(self) -> "Line":
        self._thread = LoopThread()
        self._server = self._thread.run(asyncio.start_server(self._connected, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._thread.run(self._stop())
        self._thread.close()

    async def _stop(self) -> None:
        self._server.close()
        for end in self._ends:
            end.transport.abort()
        await asyncio.gather(*self._open)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(asyncio.ensure_future(self._connect(reader, writer)))

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._ends += [writer, back]
        left = [self._budgets.pop(0) if self._budgets else 2**62]
        ways = [asyncio.ensure_future(self._pass(*way, left)) for way in ((reader, back), (there, writer))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        self.num_cuts += left[0] <= 0
        for end in (writer, back):
            end.transport.abort()
            with contextlib.suppress(ConnectionError):
                await end.wait_closed()
        await asyncio.wait(ways)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: list[int]) -> None:
        with contextlib.suppress(ConnectionError):
            while left[0] > 0 and (data := await reader.read(2**16)):
                writer.write(data[: left[0]])
                left[0] -= len(data)
                await writer.drain()
