"""Containers whose boxes contradict themselves, each other or the file: nested, endless, shared, pointing elsewhere."""

import random
import struct
import zlib
from collections.abc import Iterator

from tests.hostile_encrypted import INFO, SEGMENT, TRACKS, box, element, insert, place_of
from tests.hostile_files import CODEC, DAMAGED, LABELLED, NO_MEMORY, SLOW, Hostile, Sources, hostile

KIND = "boxes"
SIZES = {"0": 0, "1": 1, "7": 7, "2^31": 1 << 31, "2^32-1": (1 << 32) - 1}
LONG_SIZES = {"0": 0, "15": 15, "2^63": 1 << 63, "2^63-1": (1 << 63) - 1, "2^64-1": (1 << 64) - 1}
TABLE = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
EITHER = frozenset({LABELLED, *DAMAGED})


def make(sources: Sources) -> Iterator[Hostile]:
    yield from _sizes(sources)
    yield from _nested(sources)
    yield from _elsewhere(sources)
    yield from _spoilt(sources)


def _sizes(sources: Sources) -> Iterator[Hostile]:
    for kind in (b"ftyp", b"moov", b"trak", b"stsd", b"stbl", b"mdat"):
        place = sources.front_mp4.index(kind) - 4
        for name, size in SIZES.items():
            data = sources.front_mp4[:place] + struct.pack(">I", size) + sources.front_mp4[place + 4 :]
            yield hostile(KIND, f"{kind.decode()}-of-{name}.mp4", data, EITHER)
    for name, size in LONG_SIZES.items():
        head = struct.pack(">I4sQ", 1, b"free", size)
        yield hostile(KIND, f"long-box-of-{name}.mp4", head + sources.mp4, EITHER)
    for name, size in {"0": b"\x80", "2^56-2": b"\x01\xff\xff\xff\xff\xff\xff\xfe", "unknown": b"\xff"}.items():
        for part, number in {"segment": SEGMENT, "tracks": TRACKS}.items():
            start = place_of(sources.mkv, number) + 4
            length = 9 - sources.mkv[start].bit_length()
            data = sources.mkv[:start] + size + sources.mkv[start + length :]
            yield hostile(KIND, f"{part}-of-{name}.mkv", data, EITHER)
    yield hostile(KIND, "riff-of-0.avi", sources.avi[:4] + bytes(4) + sources.avi[8:], EITHER)
    yield hostile(KIND, "riff-of-2^32-1.avi", sources.avi[:4] + b"\xff" * 4 + sources.avi[8:], EITHER)


def _nested(sources: Sources) -> Iterator[Hostile]:
    ftyp, deep = sources.mp4[:32], b""
    for _ in range(20_000):
        deep = box(b"moov", deep) if len(deep) < 400_000 else deep
    yield hostile(KIND, "index-in-index.mp4", ftyp + deep, DAMAGED)
    deep = b""
    for _ in range(2_000):
        deep = element(TRACKS, deep)
    yield hostile(KIND, "tracks-in-tracks.mkv", sources.mkv[: place_of(sources.mkv, TRACKS)] + deep, DAMAGED)
    lists = b""
    for _ in range(5_000):
        lists = b"LIST" + struct.pack("<I", len(lists) + 4) + b"hdrl" + lists
    yield hostile(KIND, "list-in-list.avi", b"RIFF" + struct.pack("<I", len(lists)) + b"AVI " + lists, DAMAGED)
    yield hostile(KIND, "many-boxes.mp4", box(b"free", b"") * 200_000 + sources.mp4, EITHER)
    moov = sources.mp4[sources.mp4.index(b"moov") - 4 :]
    yield hostile(KIND, "many-indexes.mp4", sources.mp4 + moov * 500, EITHER)
    yield hostile(KIND, "many-tracks.mp4", _many_tracks(sources, 3_000), EITHER, NO_MEMORY, SLOW)
    yield hostile(KIND, "many-tracks.mkv", _many_matroska_tracks(sources, 20_000), EITHER, NO_MEMORY, SLOW)
    yield hostile(KIND, "many-programs.ts", _many_programs(sources), EITHER, NO_MEMORY, SLOW)
    yield hostile(KIND, "many-lists.avi", _many_avi_streams(sources, 10_000), EITHER, NO_MEMORY, SLOW)


def _many_tracks(sources: Sources, count: int) -> bytes:
    start = sources.mp4.index(b"trak") - 4
    track = sources.mp4[start:][: int.from_bytes(sources.mp4[start : start + 4], "big")]
    return insert(sources.mp4, (b"moov",), track * count)


def _many_matroska_tracks(sources: Sources, count: int) -> bytes:
    tracks = place_of(sources.mkv, TRACKS)
    numbered = (element(0xAE, element(0xD7, struct.pack(">I", each)) + element(0x83, b"\1")) for each in range(count))
    return sources.mkv[:tracks] + element(TRACKS, b"".join(numbered)) + sources.mkv[tracks:]


def _many_avi_streams(sources: Sources, count: int) -> bytes:
    start = sources.avi.index(b"LIST", 20)
    stream = sources.avi[start:][: 8 + int.from_bytes(sources.avi[start + 4 : start + 8], "little")]
    return sources.avi[:start] + stream * count + sources.avi[start:]


def _many_programs(sources: Sources) -> bytes:
    """Tables that name each of 8,000 numbers as another picture."""
    packets = []
    for first in range(0x110, 0x1FF0, 30):
        streams = b"".join(struct.pack(">BHH", 0x1B, 0xE000 | pid, 0xF000) for pid in range(first, first + 30))
        table = struct.pack(">BHHBBBHH", 2, 0xB000 | (13 + len(streams)), 1, 0xC1, 0, 0, 0xE100, 0xF000) + streams
        table += struct.pack(">I", _crc32_mpeg(table))
        packets.append((b"\x47\x50\x00\x10\0" + table).ljust(188, b"\xff"))
    return sources.ts[: 188 * 3] + b"".join(packets) + sources.ts[188 * 3 :]


def _crc32_mpeg(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ 0x04C11DB7 if value >> 31 else value << 1) & 0xFFFFFFFF
    return value


def _elsewhere(sources: Sources) -> Iterator[Hostile]:
    """An index that says that its pictures lie in another file, or at another address."""
    here, away = str(sources.neighbours / "clip.mp4"), f"http://127.0.0.1:{sources.port}/clip.mp4"
    plain = b"url \0\0\0\1"
    for name, target in {
        "file": f"file://{here}",
        "path": here,
        "http": away,
        "relative": "../neighbours/clip.mp4",
    }.items():
        reference = box(b"url ", bytes(4) + target.encode() + b"\0")
        start = sources.mp4.index(plain) - 4
        data = bytearray(insert(sources.mp4, (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"), reference))
        data[start + 8 : start + 12] = bytes(4)  # the one that was there is elsewhere, too
        yield hostile(KIND, f"pictures-elsewhere-{name}.mp4", bytes(data), EITHER)
    alias = bytes(10) + b"\0" * 140 + struct.pack(">HH", 18, len(here)) + here.encode() + b"\xff\xff\0\0"
    data = sources.mp4.replace(plain, b"alis\0\0\0\0")
    path = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref", b"alis")
    yield hostile(KIND, "pictures-elsewhere-alias.mov", insert(data, path, alias), EITHER)
    location = box(b"rdrf", bytes(4) + b"url " + struct.pack(">I", len(away)) + away.encode())
    reference = box(b"moov", box(b"rmra", box(b"rmda", location)))
    yield hostile(KIND, "reference-movie.mov", sources.mp4[:32] + reference, DAMAGED)
    yield hostile(KIND, "segment-of-another.mkv", _linked(sources), EITHER)
    packed = zlib.compress(bytes(100 << 20), 9)
    header = box(b"cmov", box(b"dcom", b"zlib") + box(b"cmvd", struct.pack(">I", 100 << 20) + packed))
    yield hostile(KIND, "packed-index.mov", sources.mp4[:32] + box(b"moov", header), DAMAGED, NO_MEMORY)


def _linked(sources: Sources) -> bytes:
    """A segment that goes on in a file of another name."""
    name = str(sources.neighbours / "clip.mkv").encode()
    info = place_of(sources.mkv, INFO)
    return sources.mkv[:info] + element(INFO, element(0x3E83BB, name) + element(0x3C83AB, name)) + sources.mkv[info:]


def _spoilt(sources: Sources) -> Iterator[Hostile]:
    """The boxes are sound, what is in them is not."""
    draw, mp4 = random.Random(0), sources.mp4
    start = mp4.index(b"mdat") + 4
    end = mp4.index(b"moov") - 4
    bodies = {
        "noise": draw.randbytes(end - start),
        "zeros": bytes(end - start),
        "ones": b"\xff" * (end - start),
        "lengths": b"\x7f\xff\xff\xff\x65" * ((end - start) // 5) + bytes((end - start) % 5),
        "markers": b"\0\0\0\1\x67" * ((end - start) // 5) + bytes((end - start) % 5),
    }
    for name, body in bodies.items():
        yield hostile(KIND, f"pictures-of-{name}.mp4", mp4[:start] + body + mp4[end:], DAMAGED)
    setup = mp4.index(b"avcC") + 4
    for name, body in {"zeros": bytes(30), "noise": draw.randbytes(30), "ones": b"\xff" * 30}.items():
        yield hostile(KIND, f"setup-of-{name}.mp4", mp4[:setup] + body + mp4[setup + 30 :], DAMAGED, CODEC)
    other = {b"mp4v": "mpeg4", b"hvc1": "hevc", b"av01": "av1", b"vp09": "vp9", b"jpeg": "mjpeg"}
    entry = mp4.index(b"avc1", mp4.index(b"stsd"))
    for letters, name in other.items():
        data = mp4[:entry] + letters + mp4[entry + 4 :]
        yield hostile(KIND, f"h264-called-{name}.mp4", data, EITHER, CODEC)
    yield hostile(KIND, "h264-called-unknown.mp4", mp4[:entry] + b"zzzz" + mp4[entry + 4 :], DAMAGED)
    for name, packet in {"header": 0, "middle": 10}.items():
        spoilt = bytearray(sources.ts)
        for place in range(188 * packet, len(spoilt), 188 * 7):
            spoilt[place : place + 4] = b"\x46\xff\xff\xff"
        yield hostile(KIND, f"lost-sync-{name}.ts", bytes(spoilt), EITHER, "video/unsupported-container")
