"""The index of an MP4 or MOV file, read for what FFmpeg does not tell through OpenCV. Knows nothing of decoding.

moov
+-- mvhd                       timescale of the movie
+-- trak                       one a track
    +-- tkhd                   its duration as shown, after edits
    +-- mdia
        +-- hdlr               what it is: vide, soun, ...
        +-- minf/stbl/stsd     how it is coded: avc1, hvc1, ...; encv where encrypted
        +-- minf/stbl/stco     where its chunks are in the file; co64 in 64 bits
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

_FOLDERS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl"})
_MAX_BOXES = 10_000  # up to the end of the index; an honest file has a hundred
_LEAF_BYTES = 40  # enough of mvhd, tkhd and hdlr
_STSD_HEAD_BYTES = 8  # before its entries, which are boxes
_MAX_ENTRIES = 100  # of one stsd; an honest one has one
_HEAD_BYTES = 16  # of a box, at most
_NO_END = 2**63 - 1  # where a box ends that goes on to the end of a file that is still arriving


@dataclass(frozen=True)
class Box:
    """A box of bytes [start, end), the first of them its head, the rest, from `body` on, its content."""

    kind: bytes
    start: int
    body: int
    end: int


@dataclass(frozen=True)
class Index:
    """What an index says, as far as it can be read: `duration_seconds` of the longest video track, 0 if not said.

    `whole`: it was read to its end, so that what is not here is not there.
    """

    found: bool = False
    whole: bool = False
    handlers: tuple[bytes, ...] = ()
    encrypted: bool = False
    duration_seconds: float = 0.0


def read_index(fd: int) -> Index:
    """Reads a bounded number of boxes and believes none of their sizes; never fails, at worst finds nothing."""
    found, whole, encrypted = False, False, False
    handlers: list[bytes] = []
    timescale, shown_units, longest_units = 0, 0, 0
    with suppress(_Nonsense):
        for box in _walk(fd):
            leaf = os.pread(fd, _LEAF_BYTES, box.body)
            if box.kind == b"moov":
                found = True
            elif box.kind == b"mvhd":
                timescale = _number(leaf, 12, 16) if leaf[:1] == b"\0" else _number(leaf, 20, 24)
            elif box.kind == b"tkhd":
                shown_units = _number(leaf, 20, 24) if leaf[:1] == b"\0" else _number(leaf, 28, 36)
            elif box.kind == b"hdlr":
                handlers.append(leaf[8:12])
                if leaf[8:12] == b"vide":
                    longest_units = max(longest_units, shown_units)
            elif box.kind == b"stsd":
                encrypted = encrypted or b"encv" in _entries(fd, box)
        whole = found
    return Index(found, whole, tuple(handlers), encrypted, longest_units / timescale if timescale else 0.0)


def boxes(fd: int) -> Iterator[Box]:
    """The boxes of an MP4 up to the end of its index, or to the first that makes no sense."""
    with suppress(_Nonsense):
        yield from _walk(fd)


class _Nonsense(Exception):
    """A box that is smaller than its head or larger than what it is in, or more of them than anybody needs."""


def _walk(fd: int) -> Iterator[Box]:
    """Steps into folders and over everything else, up to the end of the first index. Raises _Nonsense."""
    start, ends = 0, [os.fstat(fd).st_size]
    for _ in range(_MAX_BOXES):
        while start + 8 > ends[-1]:  # what is left of a folder is no box
            start = ends.pop()
            if len(ends) <= 1:
                return
        box = _read_box(fd, start, ends[-1])
        if box is None:
            raise _Nonsense
        yield box
        start = box.end
        if box.kind in _FOLDERS:
            start = box.body
            ends.append(box.end)
    raise _Nonsense


def _entries(fd: int, stsd: Box) -> list[bytes]:
    """What the samples of a track may be. Raises _Nonsense."""
    kinds: list[bytes] = []
    start = stsd.body + _STSD_HEAD_BYTES
    while start + 8 <= stsd.end:
        entry = _read_box(fd, start, stsd.end)
        if entry is None or len(kinds) == _MAX_ENTRIES:
            raise _Nonsense
        kinds.append(entry.kind)
        start = entry.end
    return kinds


class IndexSearch:
    """Finds out, while an MP4 arrives in the file `fd`, whether its index comes before its pictures.

    Each look goes on where the last one stopped, so that many small arrivals cost no more than a large one.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._start = 0
        self._num_boxes = 0

    def at_end(self) -> bool | None:
        """False: the index is in front, and all of it is here. True: the whole file is needed. None: not known yet.

        True is also the answer to what makes no sense: what to say of it is then found out from the whole file.
        """
        num_bytes = os.fstat(self._fd).st_size
        while self._start + _HEAD_BYTES <= num_bytes:
            box = _read_box(self._fd, self._start, _NO_END)
            self._num_boxes += 1
            if box is None or box.end == _NO_END or box.kind in (b"mdat", b"moof") or self._num_boxes > _MAX_BOXES:
                return True
            if box.kind == b"moov":
                return False if box.end <= num_bytes else None
            self._start = box.end
        return None


def _read_box(fd: int, start: int, stop: int) -> Box | None:
    """The box at `start`, unless its size says that it is smaller than its head or ends after `stop`."""
    head = os.pread(fd, _HEAD_BYTES, start)
    kind, size, body = head[4:8], _number(head, 0, 4), start + 8
    if size == 1:  # a 64-bit size follows
        size, body = _number(head, 8, 16), start + 16
    end = start + size if size else stop  # 0: the last box, to the end
    return Box(kind, start, body, end) if start + 8 <= body <= end <= stop else None


def _number(leaf: bytes, start: int, stop: int) -> int:
    return int.from_bytes(leaf[start:stop], "big")
