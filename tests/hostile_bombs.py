"""Little that becomes much: pixels, frames, memory or time out of a few kilobytes."""

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from PIL import Image

from tests.hostile_encrypted import CLUSTER, INFO, SEGMENT, TRACKS, element, place_of, track_of
from tests.hostile_files import (
    CODEC,
    DAMAGED,
    FRAMES,
    LABELLED,
    NO_MEMORY,
    PIXELS,
    SLOW,
    TRUNCATED,
    Hostile,
    Sources,
    hostile,
)
from tests.toy_videos import overwrite, write_clip

KIND = "bombs"


def make(sources: Sources) -> Iterator[Hostile]:
    folder = sources.folder
    yield hostile(KIND, "huge-in-the-middle.avi", bomb(folder / "a.avi", side=14_000).read_bytes(), NO_MEMORY, LABELLED)
    full = bomb(folder / "m.avi", side=16_200, subsampling=0)  # as many as FFmpeg takes at all
    yield hostile(KIND, "huge-in-full-colour.avi", full.read_bytes(), NO_MEMORY)
    layered = bomb(folder / "l.avi", side=14_000, progressive=True)  # all of its coefficients are held at once
    yield hostile(KIND, "layered-in-the-middle.avi", layered.read_bytes(), NO_MEMORY, TRUNCATED)
    yield hostile(KIND, "claims-65500.avi", _claims(folder / "b.avi", side=65_500), NO_MEMORY, DAMAGED, LABELLED)
    big = {"height": 2304, "width": 4096}
    picture = _picture(folder / "c.mkv", **big)
    yield hostile(KIND, "hundreds-of-megabytes.mkv", _repeated(folder / "d.mkv", picture, 40, **big), LABELLED)
    yield hostile(KIND, "minutes-of-work.mkv", _repeated(folder / "e.mkv", picture, 6_000, **big), SLOW)
    small = {"height": 16, "width": 16}
    dot = _picture(folder / "f.mkv", **small)
    yield hostile(KIND, "many-frames.mkv", _repeated(folder / "g.mkv", dot, 50_000, rate=1000, **small), FRAMES, SLOW)
    wide = {"height": 4320, "width": 7680}
    yield hostile(KIND, "8k.mkv", _repeated(folder / "h.mkv", _picture(folder / "i.mkv", **wide), 3, **wide), PIXELS)
    yield hostile(KIND, "grows.webm", _grows(folder / "j.webm"), NO_MEMORY, DAMAGED, LABELLED)
    yield hostile(KIND, "grows-at-once.webm", _grows(folder / "k.webm", first=0), NO_MEMORY, PIXELS, DAMAGED)
    yield hostile(KIND, "packed-frames.mkv", _packed(sources.mkv), NO_MEMORY, DAMAGED, LABELLED)
    yield hostile(KIND, "no-bytes-a-frame.avi", _empty_chunks(sources.avi), FRAMES, DAMAGED, LABELLED, SLOW)
    yield hostile(KIND, "sparse.mp4", sources.mp4 + bytes(32 << 20), LABELLED)
    yield hostile(KIND, "gaps.ts", (sources.ts[:188] + b"\x47\x1f\xff\x10" + b"\xff" * 184) * 50_000, DAMAGED, CODEC)


def bomb(path: Path, *, side: int, **options: Any) -> Path:
    """A clip of small pictures, then one that takes `side` x `side` pixels and few bytes; `options` are Pillow's."""
    jpeg = io.BytesIO()
    Image.new("RGB", (side, side)).save(jpeg, "JPEG", **options)
    return _with_a_picture(path, jpeg.getvalue())


def _claims(path: Path, *, side: int) -> bytes:
    """The same with a small picture that says it were large."""
    jpeg = io.BytesIO()
    Image.new("RGB", (96, 64)).save(jpeg, "JPEG")
    start = jpeg.getvalue().index(b"\xff\xc0") + 5
    return _with_a_picture(path, overwrite(jpeg.getvalue(), start, struct.pack(">HH", side, side))).read_bytes()


def _with_a_picture(path: Path, jpeg: bytes) -> Path:
    write_clip(path, codec="mjpeg", num_frames=12)
    with av.open(str(path)) as old:
        packets = [bytes(packet) for packet in old.demux(video=0) if packet.size]
    return _write(path, "mjpeg", [*packets, jpeg, *packets], height=64, width=96, rate=10)


def _write(path: Path, codec: str, packets: Sequence[bytes], *, height: int, width: int, rate: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = height, width
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number, data in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.time_base, packet.is_keyframe = Fraction(1, rate), True
            container.mux(packet)
    return path


def _picture(path: Path, *, height: int, width: int) -> bytes:
    """One key frame of H.264, grey, with all that is needed to decode it."""
    with av.open(str(path), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "veryfast", "x264-params": "annexb=1"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        frame = av.VideoFrame(width, height, "yuv420p")
        for plane in frame.planes:
            plane.update(b"\x80" * plane.buffer_size)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


def _repeated(path: Path, picture: bytes, count: int, *, height: int, width: int, rate: int = 10) -> bytes:
    return _write(path, "libx264", [picture] * count, height=height, width=width, rate=rate).read_bytes()


def _grows(path: Path, *, first: int = 5) -> bytes:
    """VP8 whose key frames say, from one of them on, that they have 16383 x 16383 pixels."""
    write_clip(path, codec="libvpx", num_frames=1)
    with av.open(str(path)) as old:
        (packet,) = [bytes(packet) for packet in old.demux(video=0) if packet.size]
    large = overwrite(packet, packet.index(b"\x9d\x01\x2a") + 3, struct.pack("<HH", 0x3FFF, 0x3FFF))
    packets = [packet] * first + [large] * 20
    return _write(path, "libvpx", packets, height=64, width=96, rate=10).read_bytes()


def _packed(mkv: bytes) -> bytes:
    """The track says that its blocks are compressed, and one of them is a quarter of a gigabyte of zeros."""
    tracks = place_of(mkv, TRACKS)
    encoding = element(0x6D80, element(0x6240, element(0x5034, element(0x4254, b"\0"))))
    packer = zlib.compressobj(9)
    zeros = b"".join(packer.compress(bytes(1 << 20)) for _ in range(256)) + packer.flush()
    blocks = b"".join(element(0xA3, b"\x81" + struct.pack(">HB", number, 0x80) + zeros) for number in range(3))
    head = mkv[: place_of(mkv, SEGMENT) + 4] + b"\x01" + b"\xff" * 7
    info = mkv[place_of(mkv, INFO) : tracks]
    clusters = element(CLUSTER, element(0xE7, b"\0") + blocks)
    return head + info + element(TRACKS, element(0xAE, track_of(mkv) + encoding)) + clusters


def _empty_chunks(avi: bytes) -> bytes:
    """Half a million pictures without a byte, in front of the others."""
    movi = avi.index(b"movi") + 4
    return avi[:movi] + b"00dc\0\0\0\0" * 500_000 + avi[movi:]
