"""The bytes of a video as they arrive, on their way to a decoder. Knows nothing of HTTP, codecs or OpenCV.

    feed --> held in memory until the head is known --+--> pipe ---------------> Reader     while more bytes arrive
                                                      +--> all of it in memory -> Reader    index at the end: after all

Matroska, MPEG-TS, AVI, fragmented MP4 and MP4 with its index in front go through the pipe.
"""

import asyncio
import os
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from vidseq.container import SNIFF_BYTES, Container, new_memory, seal, sniff
from vidseq.errors import EmptyVideo, TooManyBytes, UndecodableVideo, UnsupportedContainer, VideoError
from vidseq.matroska import Tracks, TracksSearch, read_tracks
from vidseq.mp4 import Index, IndexSearch, read_index

_POUR_BYTES = 1 << 20


@dataclass(frozen=True)
class Opened:
    """What a decoder gets: a descriptor, and what the head says. `arriving`: it is a pipe, and cannot be rewound."""

    fd: int
    container: Container
    index: Index | None
    tracks: Tracks | None
    arriving: bool = False

    @property
    def encrypted(self) -> bool:
        return any(head is not None and head.encrypted for head in (self.index, self.tracks))

    @property
    def whole_head(self) -> bool:
        """Whether all was read of what would say that it is encrypted."""
        return all(head is None or head.whole for head in (self.index, self.tracks))


def look_at(fd: int) -> Opened:
    """A whole file, opened. Raises UnsupportedContainer."""
    return _opened(fd, sniff(fd), head=fd)


def _opened(fd: int, container: Container, *, head: int, arriving: bool = False) -> Opened:
    """`head` is a file of at least the beginning, `fd` what the decoder gets."""
    index = read_index(head) if container == "mp4" else None
    tracks = read_tracks(head) if container == "matroska" else None
    return Opened(fd, container, index, tracks, arriving=arriving)


class Incoming:
    """One video that is being received: fed on an event loop and read, at the same time, by a Reader in a thread.

        with Incoming(max_bytes=limits.max_bytes) as incoming:
            answer = asyncio.create_task(asyncio.to_thread(classify, incoming))     # Reader(incoming, ...)
            async for chunk in body:
                if not await incoming.feed(chunk):
                    break
            incoming.finish()
            await answer

    Whatever is wrong with the video is raised by the Reader, never by `feed`. All methods but `open` and `check`
    belong to one event loop. Memory: 64 KiB in the pipe; before that, the head (for an MP4, up to the end of its
    index; for a Matroska, up to its first cluster); all of an MP4 whose index is at the end. At most `max_bytes`, and
    no thread, file or child process.

    `index_at_end` says whether nothing can be decoded before the last byte is here; None until it is known.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self.index_at_end: bool | None = None
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._held_fd = new_memory("vidseq-incoming")
        self._container: Container | None = None
        self._search: IndexSearch | TracksSearch | None = None
        self._pipe_fd = -1
        self._room: asyncio.Future[None] | None = None  # awaited by `feed` while the pipe is full
        self._ended = False
        self._failure: VideoError | None = None
        self._known = threading.Event()  # what the Reader waits for
        self._handing = threading.Lock()
        self._opened: Opened | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A Reader that is still at work is told that nobody is left to answer to."""
        self.abort()
        with self._handing:
            if self._opened is not None:
                os.close(self._opened.fd)
                self._opened = None
        self._drop_held()

    async def feed(self, chunk: bytes) -> bool:
        """The next bytes, of any number; waits while the pipe is full, so that nobody reads faster than is decoded.

        False: no more are wanted, for the Reader has all it needs, or has refused the video. After a cancellation
        it is not known how much of the chunk went through: then `abort`.
        """
        if self._ended:
            return False
        self._num_bytes += len(chunk)
        if self._num_bytes > self._max_bytes:
            self._end(TooManyBytes(self._num_bytes, self._max_bytes))
        elif self._pipe_fd >= 0:
            await self._pour(chunk)
        else:
            self._hold(chunk)
            self._look()
            if self._pipe_fd >= 0:
                await self._pour_held()
        return not self._ended

    def finish(self) -> None:
        """There are no more bytes."""
        if self._ended:
            return
        if self._pipe_fd < 0:
            try:
                if self._num_bytes == 0:
                    raise EmptyVideo("the video has zero bytes")
                seal(self._held_fd)
                self._opened, self._held_fd = look_at(self._held_fd), -1
            except VideoError as error:
                self._failure = error
        self._end(None)

    def abort(self) -> None:
        """The sender is gone: a Reader raises UndecodableVideo at its next frame, a `feed` that waits returns."""
        self._end(UndecodableVideo(f"the video was cut off: its sender left after {self._num_bytes:,} bytes"))

    def open(self) -> Opened:
        """For the Reader, once: waits until the head is known. The caller closes the descriptor.

        Raises EmptyVideo, TooManyBytes, UnsupportedContainer, UndecodableVideo (aborted).
        """
        self._known.wait()
        self.check()
        with self._handing:
            opened, self._opened = self._opened, None
        assert opened is not None, "an Incoming is read once, while it is open"
        return opened

    def check(self) -> None:
        """For the Reader, at each frame and at the end of the pipe: raises what ended the video early."""
        if self._failure is not None:
            raise self._failure

    def _look(self) -> None:
        """Opens the pipe if the bytes that are held show that the decoder can begin."""
        if self.index_at_end or self._num_bytes < SNIFF_BYTES:
            return
        if self._container is None:
            try:
                self._container = sniff(self._held_fd)
            except UnsupportedContainer as error:
                self._end(error)
                return
            self._search = _search(self._container, self._held_fd)
        self.index_at_end = self._search.at_end() if self._search is not None else False
        if self.index_at_end is False:
            read_fd, self._pipe_fd = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._pipe_fd, False)
            self._opened = _opened(read_fd, self._container, head=self._held_fd, arriving=True)
            self._known.set()

    def _hold(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(self._held_fd, rest) :]

    async def _pour_held(self) -> None:
        offset = 0
        while not self._ended and (chunk := os.pread(self._held_fd, _POUR_BYTES, offset)):
            await self._pour(chunk)
            offset += len(chunk)
        self._drop_held()

    async def _pour(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest and not self._ended:
            try:
                rest = rest[os.write(self._pipe_fd, rest) :]
            except BlockingIOError:
                await self._wait_for_room()
            except BrokenPipeError:  # the Reader is gone
                self._end(None)

    async def _wait_for_room(self) -> None:
        assert self._room is None, "an Incoming is fed by one task"
        loop = asyncio.get_running_loop()
        self._room = loop.create_future()
        loop.add_writer(self._pipe_fd, self._stop_waiting)
        try:
            await self._room
        finally:
            self._stop_waiting()

    def _stop_waiting(self) -> None:
        """The loop forgets the descriptor before it is closed: its number may belong to another file a moment later."""
        if self._room is not None:
            self._room.get_loop().remove_writer(self._pipe_fd)
            if not self._room.done():
                self._room.set_result(None)
            self._room = None

    def _end(self, failure: VideoError | None) -> None:
        """Nothing more goes in. The failure is in place before the decoder can see the end of the pipe."""
        self._failure = self._failure or failure
        self._ended = True
        if self._pipe_fd >= 0:
            self._stop_waiting()
            os.close(self._pipe_fd)
            self._pipe_fd = -1
        self._known.set()

    def _drop_held(self) -> None:
        if self._held_fd >= 0:
            os.close(self._held_fd)
            self._held_fd = -1


def _search(container: Container, fd: int) -> IndexSearch | TracksSearch | None:
    """For where the head of what arrives in the file `fd` ends."""
    if container == "mp4":
        return IndexSearch(fd)
    return TracksSearch(fd) if container == "matroska" else None
