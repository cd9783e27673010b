"""Clips with something changed: the same seed and number make the same bytes again. Knows nothing of decoding.

Seeded and our own: what is wanted is damage of clips that were good, as wires, disks and people make it, in a known
number, that can be told by two integers.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# What stands before a size, or is followed by one: of MP4, AVI and Matroska.
BOXES = (b"ftyp", b"moov", b"mvhd", b"trak", b"tkhd", b"edts", b"elst", b"mdia", b"mdhd", b"hdlr", b"minf", b"stbl")
BOXES += (b"stsd", b"avc1", b"avcC", b"stts", b"ctts", b"stss", b"stsc", b"stsz", b"stco", b"mdat", b"moof", b"trun")
CHUNKS = (b"RIFF", b"LIST", b"avih", b"strh", b"strf", b"idx1", b"00dc")
ELEMENTS = (
    b"\x18\x53\x80\x67",
    b"\x15\x49\xa9\x66",
    b"\x16\x54\xae\x6b",
    b"\x1f\x43\xb6\x75",
    b"\xae",
    b"\xe0",
    b"\xa3",
)
NUMBERS = (0, 1, 2, 7, 8, 16, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
HEADER_BYTES = 2048  # at either end of a file: where its fields are, and its index
MOST_CHANGES = 3

Change = Callable[[bytearray, random.Random], None]


@dataclass(frozen=True)
class Mutant:
    """What became of the clip of that index, and what was done to it, in order."""

    data: bytes
    clip: int
    done: str


def mutant(clips: Sequence[bytes], *, seed: int, number: int) -> Mutant:
    """The one of that number."""
    draw = random.Random(f"{seed}:{number}")
    clip = draw.randrange(len(clips))
    data, done = bytearray(clips[clip]), []
    for _ in range(draw.randint(1, MOST_CHANGES)):
        if draw.random() < 0.1:
            _splice(data, draw.choice(clips), draw)
            done.append("splice")
        else:
            change = draw.choice(CHANGES)
            change(data, draw)
            done.append(change.__name__.strip("_"))
    return Mutant(bytes(data), clip, ", ".join(done))


def _flip_bits(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 1, 4, 32))):
        if data:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _run_of_bytes(data: bytearray, draw: random.Random) -> None:
    start, length = _run(data, draw)
    data[start : start + length] = draw.choice((bytes(length), b"\xff" * length, draw.randbytes(length)))


def _truncate(data: bytearray, draw: random.Random) -> None:
    del data[draw.randint(0, len(data)) :]


def _delete(data: bytearray, draw: random.Random) -> None:
    start, length = _run(data, draw)
    del data[start : start + length]


def _insert(data: bytearray, draw: random.Random) -> None:
    start, length = _run(data, draw)
    data[start:start] = draw.randbytes(length)


def _duplicate(data: bytearray, draw: random.Random) -> None:
    """A piece, in place of another or between others."""
    start, length = _run(data, draw)
    piece = data[start : start + length]
    place = draw.randint(0, len(data))
    data[place : place + draw.choice((0, length))] = piece


def _edit_size(data: bytearray, draw: random.Random) -> None:
    """Of a box, a chunk or an element that is there."""
    kind = draw.choice((*BOXES, *CHUNKS, *ELEMENTS))
    place = data.find(kind, draw.choice((0, 0, draw.randrange(len(data) + 1))))
    if place < 0:
        return
    if kind in BOXES:
        data[max(0, place - 4) : place] = draw.choice(NUMBERS).to_bytes(4, "big")[-min(4, place) or 4 :]
    elif kind in CHUNKS:
        data[place + 4 : place + 8] = draw.choice(NUMBERS).to_bytes(4, "little")
    else:
        end = place + len(kind)
        data[end : end + 1] = draw.choice((b"\x80", b"\x81", b"\xff", b"\x40", b"\x01", b"\0"))


def _edit_field(data: bytearray, draw: random.Random) -> None:
    """Four bytes, where headers are."""
    if len(data) < 8:
        return
    place = draw.randrange(min(HEADER_BYTES, len(data) - 4))
    place = draw.choice((place, len(data) - 4 - place))
    data[place : place + 4] = draw.choice(NUMBERS).to_bytes(4, draw.choice(("big", "little")))


def _splice(data: bytearray, other: bytes, draw: random.Random) -> None:
    """The head of one, the tail of another, cut at the same share or anywhere."""
    share = draw.random()
    other_share = draw.choice((share, draw.random()))
    data[int(share * len(data)) :] = other[int(other_share * len(other)) :]


def _run(data: bytearray, draw: random.Random) -> tuple[int, int]:
    return draw.randrange(len(data) + 1), draw.choice((1, 2, 4, 16, 64, 188, 1024))


CHANGES: tuple[Change, ...] = (
    _flip_bits,
    _run_of_bytes,
    _truncate,
    _delete,
    _insert,
    _duplicate,
    _edit_size,
    _edit_field,
)
