"""The head of a Matroska or WebM file, read for what FFmpeg does not tell through OpenCV. Knows nothing of decoding.

Segment
+-- Info, Tags, ...
+-- Tracks
|   +-- TrackEntry
|       +-- ContentEncodings
|           +-- ContentEncoding
|               +-- ContentEncryption      there where the pictures are encrypted
+-- Cluster                                the first pictures: what stands behind is no head
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

_SEGMENT, _TRACKS, _CLUSTER = 0x18538067, 0x1654AE6B, 0x1F43B675
_ENCRYPTION = 0x5035
_FOLDERS = frozenset({_SEGMENT, _TRACKS, 0xAE, 0x6D80, 0x6240})  # and TrackEntry, ContentEncodings, ContentEncoding
_MAX_ELEMENTS = 10_000  # of a head; an honest file has a hundred
_HEAD_BYTES = 12  # of an element, at most: four of its number, eight of its size
_NO_END = 2**63 - 1  # where an element ends that does not say it, or a file that is still arriving


@dataclass(frozen=True)
class Element:
    """Bytes [start, end) of a kind; its content begins at `body`."""

    kind: int
    start: int
    body: int
    end: int


@dataclass(frozen=True)
class Tracks:
    """What a head says of its tracks. `whole`: all of it was read, so that what is not here is not there."""

    whole: bool = False
    encrypted: bool = False


def read_tracks(fd: int) -> Tracks:
    """Reads a bounded number of elements and believes none of their sizes; never fails, at worst finds nothing."""
    found, encrypted = False, False
    with suppress(_Nonsense):
        for element in _walk(fd):
            found = found or element.kind == _TRACKS
            encrypted = encrypted or element.kind == _ENCRYPTION
        return Tracks(found, encrypted)
    return Tracks(False, encrypted)


class TracksSearch:
    """Finds out, while a Matroska arrives in the file `fd`, whether all of its head is here.

    Each look goes on where the last one stopped, so that many small arrivals cost no more than a large one.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._start = 0
        self._num_elements = 0

    def at_end(self) -> bool | None:
        """False: it is here, or it makes no sense, of which more bytes would make none. None: not known yet."""
        num_bytes = os.fstat(self._fd).st_size
        while self._start + _HEAD_BYTES <= num_bytes:
            element = _read_element(self._fd, self._start, _NO_END)
            self._num_elements += 1
            if element is None or element.kind == _CLUSTER or self._num_elements > _MAX_ELEMENTS:
                return False
            if element.kind == _SEGMENT:
                self._start = element.body
            elif element.end == _NO_END:
                return False
            else:
                self._start = element.end
        return None


class _Nonsense(Exception):
    """An element without a number or an end, or larger than what it is in; or more of them than anybody needs."""


def _walk(fd: int) -> Iterator[Element]:
    """Steps into folders and over everything else, up to the first cluster or the end. Raises _Nonsense."""
    start, ends = 0, [os.fstat(fd).st_size]
    for _ in range(_MAX_ELEMENTS):
        while start >= ends[-1]:
            start = ends.pop()
            if not ends:
                return
        element = _read_element(fd, start, ends[-1])
        if element is None:
            raise _Nonsense
        if element.kind == _CLUSTER:
            return
        yield element
        start = element.end
        if element.kind in _FOLDERS:
            start = element.body
            ends.append(element.end)
    raise _Nonsense


def _read_element(fd: int, start: int, stop: int) -> Element | None:
    """The element at `start`, unless it makes no sense or ends after `stop`. A segment, and the clusters in which a
    head ends, may end anywhere: a file that is cut short, or was never finished, has a head."""
    head = os.pread(fd, _HEAD_BYTES, start)
    id_bytes = _length(head[:1])
    size_bytes = _length(head[id_bytes : id_bytes + 1])
    if not 0 < id_bytes <= 4 or size_bytes == 0 or len(head) < id_bytes + size_bytes:
        return None
    kind = int.from_bytes(head[:id_bytes], "big")
    size = int.from_bytes(head[id_bytes : id_bytes + size_bytes], "big") - (1 << 7 * size_bytes)
    body = start + id_bytes + size_bytes
    if kind in (_SEGMENT, _CLUSTER):
        unknown = size == (1 << 7 * size_bytes) - 1
        return Element(kind, start, body, stop if unknown else min(stop, body + size))
    return Element(kind, start, body, body + size) if body + size <= stop else None


def _length(first: bytes) -> int:
    """Of a number whose first byte says it by its leading zeros; 0 of none."""
    return 9 - first[0].bit_length() if first and first[0] else 0
