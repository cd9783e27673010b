"""A source becomes an open file of a known container, or a typed error. Knows nothing of codecs, frames or OpenCV.

Nothing is trusted by its name: a clip is opened once, what was opened is sniffed, and the decoder gets the same open
file as `/proc/self/fd/N`. So a name full of `%d`, `concat:` or `http:` is only a name, and a file that is swapped
after it was looked at is not the file that is decoded.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO, Literal

from vidseq.errors import EmptyVideo, OptionError, SourceNotFound, TooManyBytes, UnsupportedContainer

Source = str | os.PathLike[str] | bytes | BinaryIO
Container = Literal["mp4", "matroska", "avi", "mpegts"]

SNIFF_BYTES = 1024  # as much as is looked at

_COPY_BYTES = 1 << 20
_TS_PACKET_BYTES = 188
_TS_SYNC = 0x47
_FIRST_MP4_BOXES = frozenset({b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"})


def open_source(source: Source, *, max_bytes: int) -> int:
    """A file descriptor of the source; the caller closes it.

    Bytes, and binary files (read from where they stand), are copied into memory that has no name in the file system.
    Raises SourceNotFound, EmptyVideo, TooManyBytes, OptionError (not a source at all).
    """
    fd = _open_path(source) if isinstance(source, str | os.PathLike) else _copy_into_memory(source, max_bytes=max_bytes)
    try:
        num_bytes = os.fstat(fd).st_size
        if num_bytes == 0:
            raise EmptyVideo("the video has zero bytes")
        if num_bytes > max_bytes:
            raise TooManyBytes(num_bytes, max_bytes)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_path(path: str | os.PathLike[str]) -> int:
    try:
        # NONBLOCK: a FIFO would otherwise hang here until somebody writes.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SourceNotFound(f"{os.fspath(path)!r} cannot be opened: {reason}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise SourceNotFound(f"{os.fspath(path)!r} is not a file")
    return fd


def _copy_into_memory(source: bytes | BinaryIO, *, max_bytes: int) -> int:
    fd = new_memory("vidseq-clip")
    try:
        with os.fdopen(fd, "wb", closefd=False) as copy:
            for chunk in _chunks(source):
                if copy.tell() + len(chunk) > max_bytes:
                    raise TooManyBytes(copy.tell() + len(chunk), max_bytes)
                copy.write(chunk)
        seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def new_memory(name: str) -> int:
    """A file in memory, without a name in the file system, that can be sealed."""
    return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def seal(fd: int) -> None:
    """From here on nobody changes what is in this memory: neither we nor a process to which it is handed."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)


def _chunks(source: bytes | BinaryIO) -> Iterator[bytes]:
    if isinstance(source, bytes | bytearray | memoryview):
        yield source
        return
    if not hasattr(source, "read"):
        raise OptionError(f"a source is a path, bytes or a binary file, not {type(source).__name__}")
    while chunk := source.read(_COPY_BYTES):
        if not isinstance(chunk, bytes):
            raise OptionError(f"a source is read as bytes, but its read() gives {type(chunk).__name__}")
        yield chunk


def sniff(fd: int) -> Container:
    """The container, by its first bytes alone. Raises UnsupportedContainer."""
    head = os.pread(fd, SNIFF_BYTES, 0)
    if head[4:8] in _FIRST_MP4_BOXES:
        return "mp4"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:11] == b"AVI":
        return "avi"
    # The second form, with 4 bytes of time before each packet, is a camcorder's .m2ts.
    if _has_ts_sync(head, first=0, step=_TS_PACKET_BYTES) or _has_ts_sync(head, first=4, step=_TS_PACKET_BYTES + 4):
        return "mpegts"
    raise UnsupportedContainer(f"not MP4/MOV, Matroska/WebM, AVI or MPEG-TS: the file begins with {head[:12]!r}")


def _has_ts_sync(head: bytes, *, first: int, step: int) -> bool:
    sync = head[first::step]
    return len(sync) >= 3 and all(byte == _TS_SYNC for byte in sync)
