"""From a path, bytes or a file to chunks that can be sent, and sent again. Knows nothing of HTTP."""

import asyncio
import contextlib
import hashlib
import io
import os
import stat
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO

from vidseq.errors import InputError, OptionError, SourceNotFound

Source = str | os.PathLike[str] | bytes | BinaryIO
Progress = Callable[[int, int | None], object]
"""Called with the bytes sent so far and their total (None where nobody knows it), after every chunk."""

CHUNK_BYTES = 256 * 1024


class Upload:
    """One video on its way out. Never more than one chunk of a file is in memory.

    `num_bytes` is None for a file that cannot be rewound (a pipe, a socket); it is not `repeatable` either.
    Each pass starts at the beginning, and so does what `on_progress` is told.
    """

    def __init__(
        self, rewound: Callable[[], AbstractContextManager[BinaryIO]], *, num_bytes: int | None, on_progress: Progress
    ) -> None:
        self._rewound = rewound
        self.num_bytes = num_bytes
        self.repeatable = num_bytes is not None
        self._on_progress = on_progress
        self._sha256: bytes | None = None

    def chunks(self, first: int = 0, end: int | None = None) -> Generator[bytes, None, None]:
        """The bytes from `first` up to `end`, or to the last; `on_progress` counts from the very first."""
        num_sent = first
        with contextlib.closing(self.pieces(first, end)) as pieces:
            for chunk in pieces:
                yield chunk
                num_sent += len(chunk)
                self._on_progress(num_sent, self.num_bytes)

    async def chunks_async(self, first: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """The same chunks; only the reading is done in a thread, so that a slow disk does not stop the event loop."""
        num_sent = first
        async with contextlib.aclosing(self._pieces_async(first, end)) as pieces:
            async for chunk in pieces:
                yield chunk
                num_sent += len(chunk)
                self._on_progress(num_sent, self.num_bytes)

    def sha256(self) -> bytes | None:
        """Of all that is sent, by one pass over it, the first time; None where the bytes can be read once only."""
        if self._sha256 is None and self.repeatable:
            found = hashlib.sha256()
            for chunk in self.pieces():
                found.update(chunk)
            self._sha256 = found.digest()
        return self._sha256

    async def sha256_async(self) -> bytes | None:
        """The same, read as `chunks_async` does."""
        if self._sha256 is None and self.repeatable:
            found = hashlib.sha256()
            async with contextlib.aclosing(self._pieces_async()) as pieces:
                async for chunk in pieces:
                    found.update(chunk)
            self._sha256 = found.digest()
        return self._sha256

    def pieces(self, first: int = 0, end: int | None = None) -> Generator[bytes, None, None]:
        """As `chunks`; nobody is told of any progress."""
        num_read, end = first, self.num_bytes if end is None else end
        with self._rewound() as file:
            _skip(file, first)
            while chunk := self._checked(file.read(_wanted_bytes(num_read, end)), num_read, end):
                yield chunk
                num_read += len(chunk)

    async def _pieces_async(self, first: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        num_read, end = first, self.num_bytes if end is None else end
        with self._rewound() as file:
            _skip(file, first)
            while chunk := self._checked(await self._read(file, _wanted_bytes(num_read, end)), num_read, end):
                yield chunk
                num_read += len(chunk)

    async def _read(self, file: BinaryIO, num_bytes: int) -> bytes:
        """Cancelled, it waits for its thread: the next pass rewinds the very same file."""
        reading = asyncio.ensure_future(asyncio.to_thread(file.read, num_bytes))
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            if self.repeatable:
                await asyncio.wait({reading})
            raise

    def _checked(self, chunk: bytes, num_read: int, end: int | None) -> bytes:
        if not chunk and end is not None and num_read < end:
            raise InputError(
                f"the file ended after {num_read:,} of {self.num_bytes:,} bytes: it changed while it was sent"
            )
        return chunk


def _wanted_bytes(num_read: int, end: int | None) -> int:
    return CHUNK_BYTES if end is None else min(CHUNK_BYTES, end - num_read)


def _skip(file: BinaryIO, num_bytes: int) -> None:
    if num_bytes:
        file.seek(num_bytes, os.SEEK_CUR)


def open_upload(source: Source, *, on_progress: Progress | None) -> Upload:
    """What `source` is, found out before anything is sent.

    Errors: SourceNotFound for a path that is not a readable file, OptionError for a source of another kind.
    """
    report = on_progress or (lambda num_sent, num_bytes: None)
    match source:
        case bytes():
            return Upload(lambda: io.BytesIO(source), num_bytes=len(source), on_progress=report)
        case str() | os.PathLike():
            return Upload(lambda: _opened(source), num_bytes=_file_bytes(source), on_progress=report)
        case io.TextIOBase():
            raise OptionError("the file was opened as text; open it with mode 'rb'")
        case _ if callable(getattr(source, "read", None)):
            return _upload_of_file(source, report)
    raise OptionError(f"a source is a path, bytes or a binary file, not {type(source).__name__}")


def _upload_of_file(file: BinaryIO, report: Progress) -> Upload:
    """From where the file stands now to its end. It stays open, for it is the caller's."""
    if not file.seekable():
        return Upload(lambda: contextlib.nullcontext(file), num_bytes=None, on_progress=report)
    start = file.tell()
    num_bytes = file.seek(0, os.SEEK_END) - start
    file.seek(start)

    def rewound() -> AbstractContextManager[BinaryIO]:
        file.seek(start)
        return contextlib.nullcontext(file)

    return Upload(rewound, num_bytes=num_bytes, on_progress=report)


def _opened(path: str | os.PathLike[str]) -> BinaryIO:
    with _typed_errors(path):
        return open(path, "rb")


def _file_bytes(path: str | os.PathLike[str]) -> int:
    with _typed_errors(path):
        status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise SourceNotFound(f"not a file: {os.fspath(path)}")
    return status.st_size


@contextlib.contextmanager
def _typed_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SourceNotFound(f"cannot read {os.fspath(path)}: {reason}") from error
