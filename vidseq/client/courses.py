"""How a file is uploaded in pieces that may be cut, and goes on: which questions, in which order. Does no I/O.

    made ──> PATCH at its offset ──> ... ──> completed with the SHA-256 of all that was read
                 │ cut, full, busy: a pause, and ask for the offset

A course is a generator: it yields what is to be done, and is sent what came of it, or thrown the error.
"""

import contextlib
import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import httpx2

from vidseq.client.answers import read_answer, read_offset
from vidseq.client.retries import Failures, Retries
from vidseq.client.uploads import Progress, Source, open_upload
from vidseq.client.uploads import Upload as Reading
from vidseq.errors import NotFound, OptionError, ServiceError
from vidseq.schemas import Upload

PART_BYTES = 32 * 2**20  # of one request: what a cut may cost is far less, and so is what a request costs

Created = Callable[[Upload], object]
"""Called once the upload has an id, by which another process could go on with it."""


class Hashed:
    """A file whose SHA-256 is made of what is read of it anyway, as far as that comes in order."""

    def __init__(self, reading: Reading) -> None:
        assert reading.num_bytes is not None
        self.num_bytes = reading.num_bytes
        self._reading = reading
        self._sha256 = hashlib.sha256()
        self._num_hashed = 0

    def chunks(self, first: int, end: int) -> Generator[bytes, None, None]:
        with contextlib.closing(self._reading.chunks(first, end)) as chunks:
            for chunk in chunks:
                self._hash(first, chunk)
                first += len(chunk)
                yield chunk

    async def chunks_async(self, first: int, end: int) -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(self._reading.chunks_async(first, end)) as chunks:
            async for chunk in chunks:
                self._hash(first, chunk)
                first += len(chunk)
                yield chunk

    def sha256(self) -> str:
        """In hexadecimal; reads what was not read before."""
        for chunk in self._reading.pieces(self._num_hashed, self.num_bytes):
            self._hash(self._num_hashed, chunk)
        return self._sha256.hexdigest()

    def _hash(self, first: int, chunk: bytes) -> None:
        if first <= self._num_hashed < first + len(chunk):
            self._sha256.update(memoryview(chunk)[self._num_hashed - first :])
            self._num_hashed = first + len(chunk)


@dataclass(frozen=True)
class Part:
    """Some bytes of a file, as the body of a request."""

    file: Hashed
    first: int
    end: int

    def chunks(self) -> Generator[bytes, None, None]:
        return self.file.chunks(self.first, self.end)

    def chunks_async(self) -> AsyncGenerator[bytes, None]:
        return self.file.chunks_async(self.first, self.end)


@dataclass(frozen=True)
class Ask:
    """A request; its answer is sent back, an error of ours thrown."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | None = None
    part: Part | None = None


@dataclass(frozen=True)
class Pause:
    seconds: float


@dataclass(frozen=True)
class Read:
    """The rest of a file, for its SHA-256, which is sent back."""

    file: Hashed


Step = Ask | Pause | Read
Course = Generator[Step, Any, Upload]


def sent(
    source: Source,
    *,
    resume: Upload | str | None,
    chunk_bytes: int,
    retries: Retries,
    on_progress: Progress | None,
    on_created: Created | None,
) -> Course:
    """From a source to a complete upload. What is wrong with the source is said before anything is asked."""
    reading = open_upload(source, on_progress=on_progress)
    if reading.num_bytes is None:
        raise OptionError("an upload goes on where it was cut, and this file cannot be rewound")
    if reading.num_bytes == 0:
        raise OptionError("there is nothing to upload: the file has 0 bytes")
    if chunk_bytes < 1:
        raise OptionError(f"chunk_bytes is {chunk_bytes}; at least 1 is needed")
    file = Hashed(reading)
    begin = _posted("v1/uploads", num_bytes=file.num_bytes) if resume is None else Ask("GET", _path(resume))
    return _sent(file, begin, chunk_bytes=chunk_bytes, retries=retries, on_created=on_created)


def got(upload: Upload | str, *, retries: Retries) -> Course:
    return _answered(Ask("GET", _path(upload)), retries)


def deleted(upload: Upload | str, *, retries: Retries) -> Generator[Step, Any, None]:
    """Asked again, after an answer that was lost, there is nothing any more to delete."""
    failures, ask = Failures(retries, repeatable=True), Ask("DELETE", _path(upload))
    while True:
        try:
            yield ask
            return
        except NotFound:
            if not failures.any:
                raise
            return
        except ServiceError as error:
            pause_seconds = failures.pause_seconds(error)
        yield Pause(pause_seconds)


def _sent(file: Hashed, begin: Ask, *, chunk_bytes: int, retries: Retries, on_created: Created | None) -> Course:
    upload = yield from _answered(begin, retries)
    if upload.num_bytes != file.num_bytes:
        raise OptionError(f"the upload has {upload.num_bytes:,} bytes and the file {file.num_bytes:,}: it is another")
    if on_created is not None:
        on_created(upload)
    path, offset = _path(upload), upload.offset
    failures = Failures(retries, repeatable=True, resumes=True)
    while offset < file.num_bytes:
        try:
            offset = read_offset((yield _patch(path, Part(file, offset, min(offset + chunk_bytes, file.num_bytes)))))
            failures = Failures(retries, repeatable=True, resumes=True)
            continue
        except ServiceError as error:
            pause_seconds = failures.pause_seconds(error)
        yield Pause(pause_seconds)
        standing = yield from _answered(Ask("GET", path), retries)
        if standing.offset > offset:  # it goes on, however slowly
            failures = Failures(retries, repeatable=True, resumes=True)
        offset = standing.offset
    sha256 = yield Read(file)
    return (yield from _answered(_posted(f"{path}/complete", sha256=sha256), retries))


def _answered(ask: Ask, retries: Retries) -> Course:
    failures = Failures(retries, repeatable=True)
    while True:
        try:
            response: httpx2.Response = yield ask
            return read_answer(response, Upload)
        except ServiceError as error:
            pause_seconds = failures.pause_seconds(error)
        yield Pause(pause_seconds)


def _patch(path: str, part: Part) -> Ask:
    headers = {
        "Content-Type": "application/offset+octet-stream",
        "Content-Length": str(part.end - part.first),
        "Upload-Offset": str(part.first),
    }
    return Ask("PATCH", path, headers=headers, part=part)


def _posted(path: str, **fields: object) -> Ask:
    return Ask("POST", path, headers={"Content-Type": "application/json"}, content=json.dumps(fields).encode())


def _path(upload: Upload | str) -> str:
    upload_id = upload if isinstance(upload, str) else upload.id
    if not (upload_id.isascii() and upload_id.isalnum()):
        raise OptionError(f"{upload_id[:100]!r} is not the id of an upload, which has letters and digits alone")
    return f"v1/uploads/{upload_id}"
