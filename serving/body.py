"""A request's body into a memfd, piece by piece, limits and digest checked while reading. Knows no routes, no video."""

import asyncio
import fcntl
import os
from collections.abc import Callable, Collection
from typing import BinaryIO

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from serving.digest import HEADER, ContentDigest
from serving.form import FILE_FIELD, FileField
from serving.problems import BodyTimeout, BodyTooLarge, MalformedBody, UnsupportedMediaType
from vidseq.errors import EmptyVideo, TooManyBytes

MAX_FORM_BYTES = 64 * 1024  # what a multipart body may hold besides its file
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


async def receive_video(
    request: Request, *, max_bytes: int, timeout_seconds: float, hold: Callable[[int], None]
) -> BinaryIO:
    """The video of a raw or multipart body: a sealed memfd, to be read from its start; close it to free it.

    `hold` is called with the size of each piece before it is kept, and may object by raising.

    Errors: UnsupportedMediaType, MalformedBody, MalformedDigest, DigestMismatch, BodyTimeout, TooManyBytes, EmptyVideo;
    starlette's ClientDisconnect.
    """
    boundary = _boundary(request)
    max_body_bytes = max_bytes if boundary is None else max_bytes + MAX_FORM_BYTES
    _refuse_over(_declared_bytes(request), max_body_bytes)
    spool = _Spool(max_bytes, hold)
    num_bytes = 0
    try:
        form = None if boundary is None else FileField(boundary, spool.write)

        def keep(piece: bytes) -> None:
            nonlocal num_bytes
            num_bytes += len(piece)
            _refuse_over(num_bytes, max_body_bytes)
            (form or spool).write(piece)

        await _receive(request, keep, timeout_seconds=timeout_seconds)
        if form is not None:
            form.finish()
        return spool.sealed()
    except BaseException:
        spool.close()
        raise


async def receive_bytes(
    request: Request,
    types: Collection[str],
    *,
    max_bytes: int,
    timeout_seconds: float,
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

    if _declared_bytes(request) > max_bytes:
        raise BodyTooLarge(f"the body has {_declared_bytes(request):,} bytes; at most {max_bytes:,} are allowed")
    await _receive(request, keep, timeout_seconds=timeout_seconds)
    return bytes(held)


def media_type(request: Request) -> str:
    """What a body says that it is; refuses one that is compressed."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMediaType(f"the body has Content-Encoding {encoding[:50]!r}; send it as it is")
    kind, _ = parse_options_header(request.headers.get("content-type"))
    return kind.decode("latin-1")


async def _receive(request: Request, keep: Callable[[bytes], None], *, timeout_seconds: float) -> None:
    digest = ContentDigest(request.headers.getlist(HEADER))
    num_bytes = 0
    try:
        async with asyncio.timeout(timeout_seconds):
            async for piece in request.stream():
                num_bytes += len(piece)
                digest.update(piece)
                keep(piece)
    except TimeoutError as error:
        raise BodyTimeout(f"only {num_bytes:,} bytes came within {timeout_seconds:g} seconds") from error
    digest.check()


class _Spool:
    """A memfd that takes at most `max_bytes`: no temporary file to forget, and a child process can open it."""

    def __init__(self, max_bytes: int, hold: Callable[[int], None]) -> None:
        self._file: BinaryIO = os.fdopen(os.memfd_create("vidseq-body", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "w+b")
        self._num_bytes = 0
        self._max_bytes = max_bytes
        self._hold = hold

    def write(self, piece: bytes) -> None:
        self._num_bytes += len(piece)
        _refuse_over(self._num_bytes, self._max_bytes)
        self._hold(len(piece))
        self._file.write(piece)

    def sealed(self) -> BinaryIO:
        """The file at its start. From here on nobody who gets the descriptor can change what was checked."""
        if self._num_bytes == 0:
            raise EmptyVideo("the body holds no video, but 0 bytes")
        self._file.seek(0)  # flushes, too
        fcntl.fcntl(self._file, fcntl.F_ADD_SEALS, SEALS)
        return self._file

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


def _declared_bytes(request: Request) -> int:
    header = request.headers.get("content-length", "0")
    if not header.isdecimal():
        raise MalformedBody("Content-Length is not a number")
    return int(header)


def _refuse_over(num_bytes: int, max_bytes: int) -> None:
    if num_bytes > max_bytes:
        raise TooManyBytes(num_bytes, max_bytes)
