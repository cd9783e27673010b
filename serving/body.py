"""A request's body into a memfd, piece by piece, limits and digest checked while reading. Knows no routes, no video."""

import asyncio
import fcntl
import hashlib
import math
import os
from collections.abc import Awaitable, Callable, Collection
from typing import BinaryIO, NamedTuple

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from serving.digest import HEADER, ContentDigest
from serving.form import FILE_FIELD, FileField
from serving.problems import BodyTimeout, BodyTooLarge, MalformedBody, UnsupportedMediaType
from vidseq.errors import EmptyVideo, TooManyBytes

MAX_FORM_BYTES = 64 * 1024  # what a multipart body may hold besides its file
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


class Pace(NamedTuple):
    """How slowly a body may come: `total_seconds` at most, and by any moment `min_bytes_per_second` of all the time but
    the first `grace_seconds`. A connection that sends nothing, or a byte now and then, is over when its grace is; and
    whatever has come, when nothing more has for `idle_seconds`."""

    total_seconds: float
    grace_seconds: float
    min_bytes_per_second: float
    idle_seconds: float = math.inf

    def seconds_for(self, num_bytes: int) -> float:
        """By when more than these have to be here, since the first was waited for."""
        return min(self.total_seconds, self.grace_seconds + num_bytes / self.min_bytes_per_second)


class Received(NamedTuple):
    """`file` is a sealed memfd, to be read from its start; close it to free it. `sha256` is that of the video."""

    file: BinaryIO
    sha256: bytes | None  # None where it is not wanted


async def receive_video(
    request: Request, *, max_bytes: int, pace: Pace, hold: Callable[[int], None], sha256_wanted: bool = False
) -> Received:
    """The video of a raw or multipart body. Its digest is that of the file, not of the form, whose edges are random.

    `hold` is called with the size of each piece before it is kept, and may object by raising.

    Errors: UnsupportedMediaType, MalformedBody, MalformedDigest, DigestMismatch, BodyTimeout, TooManyBytes, EmptyVideo;
    starlette's ClientDisconnect.
    """
    boundary = _boundary(request)
    max_body_bytes = max_bytes if boundary is None else max_bytes + MAX_FORM_BYTES
    _refuse_over(declared_bytes(request), max_body_bytes)
    raw_wanted, form_wanted = sha256_wanted and boundary is None, sha256_wanted and boundary is not None
    spool = _Spool(max_bytes, hold, hashlib.sha256() if form_wanted else None)
    num_bytes = 0
    try:
        form = None if boundary is None else FileField(boundary, spool.write)

        def keep(piece: bytes) -> None:
            nonlocal num_bytes
            num_bytes += len(piece)
            _refuse_over(num_bytes, max_body_bytes)
            (form or spool).write(piece)

        digest = await receive(request, keep, pace=pace, sha256_wanted=raw_wanted)
        if form is not None:
            form.finish()
        return Received(spool.sealed(), digest.sha256() if raw_wanted else spool.sha256())
    except BaseException:
        spool.close()
        raise


async def receive_bytes(
    request: Request,
    types: Collection[str],
    *,
    max_bytes: int,
    pace: Pace,
    hold: Callable[[int], None] = lambda num_bytes: None,
) -> bytes:
    """A small body, of one of these media types.

    Errors: UnsupportedMediaType, MalformedBody, MalformedDigest, DigestMismatch, BodyTimeout, BodyTooLarge; starlette's
    ClientDisconnect.
    """
    if media_type(request) not in types:
        raise UnsupportedMediaType(f"the body has Content-Type {media_type(request)[:50]!r}; send {' or '.join(types)}")
    held = bytearray()

    def keep(piece: bytes) -> None:
        hold(len(piece))
        if len(held) + len(piece) > max_bytes:
            raise BodyTooLarge(f"the body has more than {max_bytes:,} bytes, which is the most")
        held.extend(piece)

    if declared_bytes(request) > max_bytes:
        raise BodyTooLarge(f"the body has {declared_bytes(request):,} bytes; at most {max_bytes:,} are allowed")
    await receive(request, keep, pace=pace)
    return bytes(held)


def media_type(request: Request) -> str:
    """What a body says that it is; refuses one that is compressed."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMediaType(f"the body has Content-Encoding {encoding[:50]!r}; send it as it is")
    kind, _ = parse_options_header(request.headers.get("content-type"))
    return kind.decode("latin-1")


async def receive(
    request: Request, keep: Callable[[bytes], Awaitable[None] | None], *, pace: Pace, sha256_wanted: bool = False
) -> ContentDigest:
    """Each piece to `keep`, which may have to be waited for; the digest of all, which is the one that was declared.

    Errors: MalformedDigest, DigestMismatch, BodyTimeout; starlette's ClientDisconnect.
    """
    digest = ContentDigest(request.headers.getlist(HEADER), sha256_wanted=sha256_wanted)
    num_bytes = 0
    begun_seconds = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout_at(begun_seconds + pace.seconds_for(0)) as deadline:
            async for piece in request.stream():
                num_bytes += len(piece)
                digest.update(piece)
                if (kept := keep(piece)) is not None:
                    await kept
                idle_at = asyncio.get_running_loop().time() + pace.idle_seconds
                deadline.reschedule(min(begun_seconds + pace.seconds_for(num_bytes), idle_at))
    except TimeoutError as error:
        seconds = (deadline.when() or math.nan) - begun_seconds
        raise BodyTimeout(f"only {num_bytes:,} bytes came within {seconds:g} seconds") from error
    digest.check()
    return digest


class _Spool:
    """A memfd that takes at most `max_bytes`: no temporary file to forget, and a child process can open it."""

    def __init__(self, max_bytes: int, hold: Callable[[int], None], hashing: "hashlib._Hash | None") -> None:
        self._file: BinaryIO = os.fdopen(os.memfd_create("vidseq-body", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "w+b")
        self._num_bytes = 0
        self._max_bytes = max_bytes
        self._hold = hold
        self._hashing = hashing

    def write(self, piece: bytes) -> None:
        self._num_bytes += len(piece)
        _refuse_over(self._num_bytes, self._max_bytes)
        self._hold(len(piece))
        if self._hashing is not None:
            self._hashing.update(piece)
        self._file.write(piece)

    def sealed(self) -> BinaryIO:
        """The file at its start. From here on nobody who gets the descriptor can change what was checked."""
        if self._num_bytes == 0:
            raise EmptyVideo("the body holds no video, but 0 bytes")
        self._file.seek(0)  # flushes, too
        fcntl.fcntl(self._file, fcntl.F_ADD_SEALS, SEALS)
        return self._file

    def sha256(self) -> bytes | None:
        return None if self._hashing is None else self._hashing.digest()

    def close(self) -> None:
        self._file.close()


def _boundary(request: Request) -> bytes | None:
    """The boundary of a multipart body, None for a raw one."""
    kind = media_type(request)
    if kind == "multipart/form-data":
        _, parameters = parse_options_header(request.headers.get("content-type"))
        return parameters.get(b"boundary", b"")
    if kind.startswith("video/") or kind == "application/octet-stream":
        return None
    raise UnsupportedMediaType(
        f"the body has Content-Type {kind[:50]!r}; send a video as video/* or "
        f"application/octet-stream, or as the field {FILE_FIELD!r} of multipart/form-data"
    )


def declared_bytes(request: Request) -> int:
    """0 where nothing is said. Raises MalformedBody."""
    header = request.headers.get("content-length", "0")
    if not header.isdecimal():
        raise MalformedBody("Content-Length is not a number")
    return int(header)


def _refuse_over(num_bytes: int, max_bytes: int) -> None:
    if num_bytes > max_bytes:
        raise TooManyBytes(num_bytes, max_bytes)
