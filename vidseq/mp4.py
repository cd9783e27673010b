"""The index of an MP4 or MOV file, read for what FFmpeg does not tell through OpenCV. Knows nothing of decoding.

moov
+-- mvhd                       timescale of the movie
+-- trak                       one a track
    +-- tkhd                   its duration as shown, after edits
    +-- mdia
        +-- hdlr               what it is: vide, soun, ...
        +-- minf/stbl/stsd     how it is coded: avc1, hvc1, ...; encv where encrypted
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

_FOLDERS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl"})
_MAX_BOXES = 10_000  # up to the end of the index; an honest file has a hundred
_LEAF_BYTES = 40  # enough of mvhd, tkhd, hdlr and stsd


@dataclass(frozen=True)
class Index:
    """What an index says, as far as it can be read: `duration_seconds` of the longest video track, 0 if not said."""

    found: bool = False
    handlers: tuple[bytes, ...] = ()
    encrypted: bool = False
    duration_seconds: float = 0.0


def read_index(fd: int) -> Index:
    """Reads a bounded number of boxes and believes none of their sizes; never fails, at worst finds nothing."""
    found, encrypted = False, False
    handlers: list[bytes] = []
    timescale, shown_units, longest_units = 0, 0, 0
    for kind, body in _boxes(fd):
        leaf = os.pread(fd, _LEAF_BYTES, body)
        if kind == b"moov":
            found = True
        elif kind == b"mvhd":
            timescale = _number(leaf, 12, 16) if leaf[:1] == b"\0" else _number(leaf, 20, 24)
        elif kind == b"tkhd":
            shown_units = _number(leaf, 20, 24) if leaf[:1] == b"\0" else _number(leaf, 28, 36)
        elif kind == b"hdlr":
            handlers.append(leaf[8:12])
            if leaf[8:12] == b"vide":
                longest_units = max(longest_units, shown_units)
        elif kind == b"stsd":
            encrypted = encrypted or leaf[12:16] == b"encv"
    return Index(found, tuple(handlers), encrypted, longest_units / timescale if timescale else 0.0)


def _number(leaf: bytes, start: int, stop: int) -> int:
    return int.from_bytes(leaf[start:stop], "big")


def _boxes(fd: int) -> Iterator[tuple[bytes, int]]:
    """The boxes of an MP4 up to the end of its index, as (kind, where its body starts).

    A folder's boxes fill its body, so a walk that steps into folders and over everything else needs no stack.
    """
    start, stop = 0, os.fstat(fd).st_size
    for _ in range(_MAX_BOXES):
        head = os.pread(fd, 16, start)
        kind, size, body = head[4:8], _number(head, 0, 4), start + 8
        if size == 1:  # a 64-bit size follows
            size, body = _number(head, 8, 16), start + 16
        end = start + size if size else stop  # 0: the last box, to the end
        if not start + 8 <= body <= end <= stop:
            return
        yield kind, body
        start = body if kind in _FOLDERS else end
        if kind == b"moov":
            stop = end
