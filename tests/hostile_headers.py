"""Fields that lie: counts, rates, durations, sizes, times. The pictures behind them are sound."""

import struct
from collections.abc import Iterator

from tests.hostile_encrypted import INFO, TRACKS, element, place_of
from tests.hostile_files import CODEC, DAMAGED, LABELLED, NO_MEMORY, PIXELS, SECONDS, SLOW, Hostile, Sources, hostile
from tests.toy_videos import overwrite

KIND = "headers"
EITHER = frozenset({LABELLED, SECONDS, *DAMAGED})
MOST = (1 << 32) - 1


def make(sources: Sources) -> Iterator[Hostile]:
    yield from _avi(sources.avi)
    yield from _matroska(sources.mkv)
    yield from _mp4(sources.mp4)
    yield from _pictures(sources)


def _avi(avi: bytes) -> Iterator[Hostile]:
    stream, frames, form = avi.index(b"strh") + 8, avi.index(b"avih") + 8, avi.index(b"strf") + 8
    rates = {
        "1e9-frames": (1, 10, 10**9),
        "2^32-1-frames": (1, 10, MOST),
        "no-frames": (1, 10, 0),
        "0.001-frames-a-second": (10_000, 10, 40),
        "2e9-frames-a-second": (1, 2 * 10**9, 40),
        "a-frame-in-136-years": (MOST, 1, 40),
        "no-rate": (0, 0, 40),
        "no-scale": (0, 10, 40),
    }
    for name, (scale, rate, count) in rates.items():
        lying = overwrite(avi, stream + 20, struct.pack("<II", scale, rate))
        yield hostile(KIND, f"{name}.avi", overwrite(lying, stream + 32, struct.pack("<I", count)), EITHER)
    sizes = {"negative": (-64, -96), "upside-down": (96, -64), "2^31": (-(1 << 31),) * 2, "0": (0, 0), "1": (1, 1)}
    for name, (width, height) in (sizes | {"65535": (65535, 65535), "2^31-1": ((1 << 31) - 1,) * 2}).items():
        lying = overwrite(avi, form + 4, struct.pack("<ii", width, height))
        yield hostile(KIND, f"pixels-{name}.avi", lying, EITHER, PIXELS, NO_MEMORY, CODEC)
    yield hostile(KIND, "streams-2^32-1.avi", overwrite(avi, frames + 24, struct.pack("<I", MOST)), EITHER)
    yield hostile(KIND, "buffer-2^32-1.avi", overwrite(avi, frames + 28, struct.pack("<I", MOST)), EITHER)
    index = avi.index(b"idx1") + 8
    yield hostile(KIND, "index-elsewhere.avi", overwrite(avi, index, b"00dc\x10\0\0\0\xff\xff\xff\x7f" * 20), EITHER)


def _matroska(mkv: bytes) -> Iterator[Hostile]:
    duration = mkv.index(b"\x44\x89\x88") + 3
    times = {"nan": float("nan"), "inf": float("inf"), "-1": -1.0, "1e300": 1e300, "1e12": 1e12, "0": 0.0, "huge": 2e9}
    for name, milliseconds in times.items():
        yield hostile(KIND, f"{name}-ms.mkv", overwrite(mkv, duration, struct.pack(">d", milliseconds)), EITHER)
    info = place_of(mkv, INFO)
    for name, nanoseconds in {"0": 0, "1": 1, "2^63": 1 << 63}.items():
        scaled = element(INFO, element(0x2AD7B1, struct.pack(">Q", nanoseconds)))
        yield hostile(KIND, f"tick-of-{name}-ns.mkv", mkv[:info] + scaled + mkv[info:], EITHER)
    for name, field, value in (("width", b"\xb0", 1 << 40), ("height", b"\xba", 0), ("width-0", b"\xb0", 0)):
        place = mkv.index(field, mkv.index(b"\xe0", place_of(mkv, TRACKS)))
        length = mkv[place + 1] & 0x7F
        lying = overwrite(
            mkv, place + 2, (value or 0).to_bytes(8, "big")[-length:] if value < 1 << 16 else b"\xff" * length
        )
        yield hostile(KIND, f"{name}-lies.mkv", lying, EITHER, PIXELS)
    cluster = mkv.index(b"\x1f\x43\xb6\x75")
    late = mkv.replace(b"\xe7\x81\x00", b"\xe7\x81\xff", 1) if b"\xe7\x81\x00" in mkv[cluster:] else mkv
    yield hostile(KIND, "late-cluster.mkv", late, EITHER)


def _mp4(mp4: bytes) -> Iterator[Hostile]:
    fields = {"mvhd": 16, "tkhd": 20, "mdhd": 16}  # to the duration, from the content's start
    for kind, offset in fields.items():
        place = mp4.index(kind.encode()) + 4 + offset
        for name, value in {"0": 0, "2^31": 1 << 31, "2^32-1": MOST}.items():
            yield hostile(KIND, f"{kind}-{name}.mp4", overwrite(mp4, place, struct.pack(">I", value)), EITHER)
    for name, value in {"0": 0, "1": 1, "2^32-1": MOST}.items():
        place = mp4.index(b"mdhd") + 16
        yield hostile(KIND, f"ticks-{name}.mp4", overwrite(mp4, place, struct.pack(">I", value)), EITHER)
    # Tables: how many entries they have, and what the first of them says.
    for kind in ("stts", "stsz", "stsc", "stco", "ctts", "stss"):
        place = mp4.find(kind.encode())
        if place < 0:
            continue
        count = place + (12 if kind == "stsz" else 8)
        for name, value in {"0": 0, "1e9": 10**9, "2^32-1": MOST}.items():
            lying = overwrite(mp4, count, struct.pack(">I", value))
            yield hostile(KIND, f"{kind}-of-{name}.mp4", lying, EITHER, NO_MEMORY, SLOW)
        lying = overwrite(mp4, count + 4, struct.pack(">I", MOST))
        yield hostile(KIND, f"{kind}-says-2^32-1.mp4", lying, EITHER, NO_MEMORY, SLOW)
    sizes = mp4.index(b"stsz") + 8
    same = overwrite(mp4, sizes, struct.pack(">II", 1, 2 * 10**7))
    yield hostile(KIND, "2e7-frames-of-a-byte.mp4", same, EITHER, NO_MEMORY, SLOW)
    edit = mp4.index(b"elst") + 12
    for name, start in {"-2": -2, "2^31-1": (1 << 31) - 1, "-2^31": -(1 << 31)}.items():
        yield hostile(KIND, f"edit-from-{name}.mp4", overwrite(mp4, edit + 4, struct.pack(">i", start)), EITHER)
    entry = mp4.index(b"avc1", mp4.index(b"stsd")) + 28
    for name, side in {"0": 0, "65535": 65535}.items():
        lying = overwrite(mp4, entry, struct.pack(">HH", side, side))
        yield hostile(KIND, f"entry-{name}-pixels.mp4", lying, EITHER, PIXELS)
    matrix = mp4.index(b"tkhd") + 4 + 40
    yield hostile(KIND, "matrix-of-ones.mp4", overwrite(mp4, matrix, b"\xff" * 36), EITHER)


def _pictures(sources: Sources) -> Iterator[Hostile]:
    """Clocks of a transport stream that jump."""
    spoilt = bytearray(sources.ts)
    for place in range(188 * 40, len(spoilt) - 188, 188):
        start = spoilt.find(b"\0\0\1\xe0", place, place + 60)
        if start > 0 and spoilt[start + 7] & 0x80:
            spoilt[start + 9 : start + 14] = b"\x21\xff\xff\xff\xff"
            break
    yield hostile(KIND, "a-clock-that-jumps.ts", bytes(spoilt), EITHER)
    yield hostile(KIND, "twice-the-same.ts", sources.ts * 2, EITHER)
