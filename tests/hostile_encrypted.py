"""Clips that are encrypted in part, as their containers say in many ways. A decoder makes pictures of the noise."""

import random
import struct
from collections.abc import Iterator

import numpy as np

from tests.hostile_files import CODEC, DAMAGED, UNDECODABLE, Hostile, Sources, hostile
from tests.toy_videos import remux, write_frames

KIND = "encrypted"
CLEAR_BYTES, PATTERN_BYTES, HIDDEN_BYTES = 40, 160, 16  # the pattern of `cbcs`: one block of ten
SAMPLE_ENTRY = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"encv")
_SCHEME = b"\0\0\0\0cbcs\0\1\0\0"
_UNITS = (1, 5, 6)  # of H.264: slices, and what is said beside them
SEGMENT, INFO, TRACKS, CLUSTER = 0x18538067, 0x1549A966, 0x1654AE6B, 0x1F43B675  # of Matroska
_TRACK = 0xAE


def make(sources: Sources) -> Iterator[Hostile]:
    clip = sources.folder / "texture.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (15, 20, 3), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    frames = [np.roll(noise, 5 * index, axis=1) for index in range(40)]
    write_frames(clip, frames, [index / 10 for index in range(40)])
    mkv = remux(clip, sources.folder / "texture.mkv").read_bytes()
    mp4 = encrypted_mp4(clip.read_bytes())
    moov = mp4.index(b"moov") - 4
    empty_box = struct.pack(">I4s", 8, b"free")
    yield hostile(KIND, "plain.mp4", mp4, UNDECODABLE)
    yield hostile(KIND, "behind-many-boxes.mp4", mp4[:moov] + empty_box * 10_001 + mp4[moov:], UNDECODABLE)
    yield hostile(KIND, "behind-a-broken-box.mp4", mp4[:moov] + struct.pack(">I4s", 4, b"free") + mp4[moov:], DAMAGED)
    first_index = struct.pack(">I4s", 8, b"moov")
    yield hostile(KIND, "behind-an-empty-index.mp4", mp4[:moov] + first_index + mp4[moov:], DAMAGED)
    yield hostile(KIND, "in-a-wrong-order.mp4", mp4[:moov] + mp4[moov:].replace(b"hdlr", b"hdlx", 1), DAMAGED)
    yield hostile(KIND, "two-entries.mp4", _two_entries(mp4), DAMAGED)
    yield hostile(KIND, "clip.mkv", encrypted_mkv(mkv), UNDECODABLE)
    yield hostile(KIND, "clip-of-unknown-size.mkv", _of_unknown_size(encrypted_mkv(mkv)), UNDECODABLE)
    yield hostile(KIND, "scrambled.ts", scrambled_ts(sources.ts), DAMAGED, CODEC)


def encrypted_mp4(mp4: bytes) -> bytes:
    """With its own kind of sample entry, which says of what kind the pictures were."""
    noisy = bytearray(_noise(mp4, *_body(mp4, b"mdat")))
    entry = noisy.index(b"avc1", noisy.index(b"stsd"))
    noisy[entry : entry + 4] = b"encv"
    scheme = box(b"schi", box(b"tenc", b"\1\0\0\0\0\x19\1\0" + bytes(range(16)) + b"\x10" + bytes(16)))
    return insert(bytes(noisy), SAMPLE_ENTRY, box(b"sinf", box(b"frma", b"avc1") + box(b"schm", _SCHEME) + scheme))


def encrypted_mkv(mkv: bytes) -> bytes:
    """With what says so in the track: ContentEncodings > ContentEncoding > type 1, ContentEncryption."""
    encryption = element(0x5035, element(0x47E1, b"\x05") + element(0x47E2, bytes(range(16))))
    encoding = element(0x6240, element(0x5031, b"\0") + element(0x5032, b"\1") + element(0x5033, b"\1") + encryption)
    tracks, cluster = place_of(mkv, TRACKS), place_of(mkv, CLUSTER)
    whole = element(TRACKS, element(_TRACK, track_of(mkv) + element(0x6D80, encoding)))
    noisy = _noise(mkv, cluster, len(mkv))
    length, size = 4 + _size(mkv, tracks + 4)[1], _size(mkv, tracks + 4)[0]
    data = noisy[:tracks] + whole + noisy[tracks + length + size :]
    segment = place_of(data, SEGMENT)
    grown = len(data) - segment - 12
    return data[: segment + 4] + (grown | 1 << 56).to_bytes(8, "big") + data[segment + 12 :]


def scrambled_ts(ts: bytes) -> bytes:
    """Each packet of the picture says that it is, and is."""
    noisy, draw = bytearray(ts), random.Random(0)
    for packet in range(0, len(ts), 188):
        if int.from_bytes(ts[packet + 1 : packet + 3], "big") & 0x1FFF == 0x100:
            noisy[packet + 3] |= 0x80
            head = 5 + ts[packet + 4] if ts[packet + 3] & 0x20 else 4
            noisy[packet + head : packet + 188] = draw.randbytes(max(0, 188 - head))
    return bytes(noisy)


def box(kind: bytes, body: bytes) -> bytes:
    """Of an MP4."""
    return struct.pack(">I4s", 8 + len(body), kind) + body


def insert(mp4: bytes, path: tuple[bytes, ...], extra: bytes) -> bytes:
    """The same file with `extra` at the end of the innermost box. Behind it nothing may be counted from the start."""
    places, place = [], 0
    for kind in path:
        place = mp4.index(kind, place)
        places.append(place - 4)
    data = bytearray(mp4)
    end = places[-1] + int.from_bytes(data[places[-1] : places[-1] + 4], "big")
    for start in places:
        data[start : start + 4] = (int.from_bytes(data[start : start + 4], "big") + len(extra)).to_bytes(4, "big")
    data[end:end] = extra
    return bytes(data)


def element(number: int, body: bytes) -> bytes:
    """Of a Matroska."""
    return number.to_bytes((number.bit_length() + 7) // 8, "big") + (len(body) | 1 << 56).to_bytes(8, "big") + body


def place_of(mkv: bytes, number: int) -> int:
    """Where the element begins. What is found before it is a table of contents."""
    return mkv.rindex(number.to_bytes(4, "big"), 0, mkv.index(CLUSTER.to_bytes(4, "big")) + 4)


def track_of(mkv: bytes) -> bytes:
    """What is in the first track."""
    tracks = place_of(mkv, TRACKS)
    start = tracks + 4 + _size(mkv, tracks + 4)[1]
    start += 6 if mkv[start : start + 2] == b"\xbf\x84" else 0  # a check sum
    assert mkv[start] == _TRACK
    size, length = _size(mkv, start + 1)
    return mkv[start + 1 + length :][:size]


def _body(mp4: bytes, kind: bytes) -> tuple[int, int]:
    start = mp4.index(kind)
    return start + 4, start - 4 + int.from_bytes(mp4[start - 4 : start], "big")


def _size(data: bytes, place: int) -> tuple[int, int]:
    """An EBML size, and how many bytes it has."""
    length = 9 - data[place].bit_length()
    return int.from_bytes(data[place : place + length], "big") - (1 << 7 * length), length


def _noise(data: bytes, start: int, end: int) -> bytes:
    """What looks like a NAL unit with its length keeps its head, and of the rest most."""
    noisy, draw, place = bytearray(data), random.Random(0), start
    while place + 4 < end:
        length = int.from_bytes(data[place : place + 4], "big")
        if not 1 < length <= end - place - 4 or data[place + 4] & 0x9F not in _UNITS:
            place += 1
            continue
        for hidden in range(place + 4 + CLEAR_BYTES, place + 4 + length, PATTERN_BYTES):
            stop = min(hidden + HIDDEN_BYTES, place + 4 + length)
            noisy[hidden:stop] = draw.randbytes(stop - hidden)
        place += 4 + length
    return bytes(noisy)


def _two_entries(mp4: bytes) -> bytes:
    """A sample entry of an unknown kind before the one that says it."""
    first = box(b"zzzz", bytes(6) + b"\0\1" + bytes(70))
    grown = insert(mp4, SAMPLE_ENTRY[:-1], b"").replace(b"stsd\0\0\0\0\0\0\0\1", b"stsd\0\0\0\0\0\0\0\2")
    start = grown.index(b"stsd") + 12
    data = bytearray(insert(grown, SAMPLE_ENTRY[:-1], first))
    end = data.index(b"stsd") - 4 + int.from_bytes(data[data.index(b"stsd") - 4 : data.index(b"stsd")], "big")
    entries = bytes(data[start:end])
    data[start:end] = entries[-len(first) :] + entries[: -len(first)]
    return bytes(data)


def _of_unknown_size(mkv: bytes) -> bytes:
    segment = place_of(mkv, SEGMENT)
    return mkv[: segment + 4] + b"\x01" + b"\xff" * 7 + mkv[segment + 12 :]
