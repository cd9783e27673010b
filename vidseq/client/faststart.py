"""An MP4 whose index is at its end, read as one whose index is in front. Knows nothing of codecs or HTTP.

    ftyp | mdat ........ | moov         what lies on the disk
    ftyp | moov' | mdat ........        what is read: moov' says that everything has moved by its own size

Nothing is decoded or coded again, so frames, timestamps and edits stay what they are; nothing is copied, so sending can
begin at once. (A remux by FFmpeg loses frames where there are edits, and refuses codecs that it does not know.)
"""

import io
import os
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from vidseq.container import Source, open_source, sniff
from vidseq.errors import OptionError, UnsupportedContainer
from vidseq.mp4 import Box, IndexSearch, boxes

if TYPE_CHECKING:
    from typing_extensions import Buffer

_LETTERS = {b"stco": "I", b"co64": "Q"}  # of struct: offsets of 32 and of 64 bits


def faststart(source: Source) -> BinaryIO:
    """The file with its index in front, to be read as often as is wanted; the caller closes it.

    What is no MP4, has no index or has it in front already is read as it is.

    Errors: SourceNotFound, EmptyVideo; OptionError where there is an index at the end that cannot be moved.
    """
    fd = open_source(source, max_bytes=sys.maxsize)
    try:
        os.lseek(fd, 0, os.SEEK_SET)
        index = _index_at_end(fd)
        return os.fdopen(fd, "rb") if index is None else io.BufferedReader(_Rearranged(fd, index))
    except BaseException:
        os.close(fd)
        raise


@dataclass(frozen=True)
class _Moved:
    """The index as it is to be read, from `start` on. The bytes [start, old_start) of the file follow it."""

    content: bytes
    start: int
    old_start: int


def _index_at_end(fd: int) -> _Moved | None:
    try:
        if sniff(fd) != "mp4" or not IndexSearch(fd).at_end():
            return None
    except UnsupportedContainer:  # the service says so, in better words
        return None
    found = list(boxes(fd))
    index = next((box for box in found if box.kind == b"moov"), None)
    if index is None:
        return None
    start = found[0].end if found[0].kind == b"ftyp" else 0
    return _Moved(_with_moved_offsets(fd, index, found, moving=range(start, index.start)), start, index.start)


def _with_moved_offsets(fd: int, index: Box, found: list[Box], *, moving: range) -> bytes:
    """The index, with its own size added to the offset of every chunk that moves."""
    kinds = [box.kind for box in found]
    tables = [box for box in found if box.kind in _LETTERS]
    # Offsets that the walk did not come across (past a damage, in a compressed index, in fragments) would be wrong.
    if found[-1].end != index.end or len(tables) != kinds.count(b"stbl") or b"cmov" in kinds or b"moof" in kinds:
        raise OptionError("the index cannot be moved to the front: it is damaged, compressed or of an unknown form")
    content = bytearray(os.pread(fd, index.end - index.start, index.start))
    for table in tables:
        at = table.body - index.start + 8  # after version and flags, and the number of offsets
        offsets = struct.Struct(f">{int.from_bytes(content[at - 4 : at])}{_LETTERS[table.kind]}")
        if at + offsets.size > table.end - index.start:
            raise OptionError("the index cannot be moved to the front: it is damaged")
        old = offsets.unpack_from(content, at)
        try:
            offsets.pack_into(content, at, *(offset + len(content) * (offset in moving) for offset in old))
        except struct.error:
            raise OptionError("the index cannot be moved to the front: its offsets would pass 4 GiB") from None
    return bytes(content)


class _Rearranged(io.RawIOBase):
    """The bytes of an open file, which it then owns, with the index moved."""

    def __init__(self, fd: int, index: _Moved) -> None:
        self._fd = fd
        self._index = index
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: os.fstat(self._fd).st_size}[whence]
        self._at = origin + offset
        return self._at

    def readinto(self, buffer: "Buffer") -> int:
        room = memoryview(buffer).cast("B")
        data = self._read(len(room))
        room[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _read(self, num_bytes: int) -> bytes:
        """At most `num_bytes` from here on, and no further than to where the next piece begins."""
        at, index = self._at, self._index
        pieces_end = (index.start, index.start + len(index.content), index.old_start + len(index.content))
        if at < pieces_end[0]:
            return os.pread(self._fd, min(num_bytes, pieces_end[0] - at), at)
        if at < pieces_end[1]:
            return index.content[at - index.start :][:num_bytes]
        if at < pieces_end[2]:
            return os.pread(self._fd, min(num_bytes, pieces_end[2] - at), at - len(index.content))
        return os.pread(self._fd, num_bytes, at)

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()
