"""Files of another form than they say: foreign containers and codecs, two forms in one, no picture, cut short."""

import io
import random
import zipfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av

from tests.hostile_files import (
    CODEC,
    DAMAGED,
    EMPTY,
    LABELLED,
    NO_VIDEO,
    UNSUPPORTED,
    Hostile,
    Sources,
    hostile,
)
from tests.toy_videos import paint, write_sound

# An encoder, the pixels it takes, and a container that holds it.
FOREIGN_CODECS = {
    "ffv1.mkv": ("ffv1", "yuv420p"),
    "snow.mkv": ("snow", "yuv420p"),
    "rawvideo.avi": ("rawvideo", "yuv420p"),
    "huffyuv.avi": ("huffyuv", "yuv422p"),
    "magicyuv.avi": ("magicyuv", "gbrp"),
    "utvideo.avi": ("utvideo", "gbrp"),
    "msmpeg4v2.avi": ("msmpeg4v2", "yuv420p"),
    "wmv2.avi": ("wmv2", "yuv420p"),
    "cinepak.avi": ("cinepak", "rgb24"),
    "png.mov": ("png", "rgb24"),
    "prores.mov": ("prores", "yuv422p10le"),
    "qtrle.mov": ("qtrle", "rgb24"),
    "jpeg2000.mov": ("jpeg2000", "rgb24"),
}
FOREIGN_FORMS = {  # by their true ending; all of them are called .mp4
    "flv": "flv",
    "gif": "gif",
    "asf": "wmv2",
    "ogv": "libvpx",
    "mxf": "mpeg2video",
    "nut": "mpeg4",
    "ivf": "libvpx",
    "y4m": "wrapped_avframe",
    "h264": "libx264",
    "mpg": "mpeg2video",
    "swf": "flv",
    "rm": "rv10",
    "apng": "apng",
    "webp": "webp",
    "jpg": "mjpeg",
}
PIXELS = {"gif": "rgb8", "apng": "rgb24", "mjpeg": "yuvj420p"}
TRUNCATIONS = 20


def make(sources: Sources) -> Iterator[Hostile]:
    for name, (codec, pixels) in FOREIGN_CODECS.items():
        yield hostile("codecs", name, _written(sources.folder / name, codec, pixels), CODEC, NO_VIDEO, DAMAGED)
    for ending, codec in FOREIGN_FORMS.items():
        data = _written(sources.folder / f"foreign.{ending}", codec, PIXELS.get(codec, "yuv420p"))
        yield hostile("forms", f"{ending}.mp4", data, UNSUPPORTED)
    yield from _no_picture(sources)
    yield from _polyglots(sources)
    yield from _cut_short(sources)


def _written(path: Path, codec: str, pixel_format: str) -> bytes:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 288, 352, pixel_format  # a size that every codec takes
        for number in range(1 if path.suffix == ".jpg" else 5):
            frame = av.VideoFrame.from_ndarray(paint(number, height=288, width=352), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    path.unlink()
    return data


def _no_picture(sources: Sources) -> Iterator[Hostile]:
    kind, draw = "no picture", random.Random(0)
    yield hostile(kind, "empty.mp4", b"", EMPTY)
    yield hostile(kind, "one-byte.mp4", b"\0", UNSUPPORTED)
    yield hostile(kind, "zeros.mp4", bytes(1 << 20), UNSUPPORTED)
    yield hostile(kind, "random.mp4", draw.randbytes(1 << 20), UNSUPPORTED)
    heads = {"mp4": b"\0\0\0\x18ftypmp42", "mkv": b"\x1a\x45\xdf\xa3", "avi": b"RIFF\0\0\1\0AVI LIST"}
    for ending, head in heads.items():
        yield hostile(kind, f"noise.{ending}", head + draw.randbytes(1 << 20), DAMAGED)
    packets = b"".join(b"\x47" + draw.randbytes(187) for _ in range(5000))
    yield hostile(kind, "noise.ts", packets, DAMAGED, CODEC)
    for ending in ("mp4", "mkv", "ts"):
        yield hostile(kind, f"sound.{ending}", write_sound(sources.folder / f"s.{ending}").read_bytes(), NO_VIDEO)
    (sources.folder / "words.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nwords\n\n")
    with av.open(str(sources.folder / "words.srt")) as old, av.open(str(sources.folder / "words.mkv"), "w") as new:
        words = new.add_stream_from_template(old.streams[0])
        for packet in old.demux(0):
            if packet.dts is not None:
                packet.stream = words
                new.mux(packet)
    yield hostile(kind, "words.mkv", (sources.folder / "words.mkv").read_bytes(), NO_VIDEO)
    yield hostile(kind, "header-alone.mkv", sources.mkv[: sources.mkv.index(b"\x1f\x43\xb6\x75")], DAMAGED)
    yield hostile(kind, "index-alone.mp4", sources.front_mp4[: sources.front_mp4.index(b"mdat") + 4], DAMAGED)


def _polyglots(sources: Sources) -> Iterator[Hostile]:
    """What is a video by its first bytes is read as one, whatever follows; what is something else first, is that."""
    kind, mp4 = "polyglots", sources.mp4
    page = f'<script src="http://127.0.0.1:{sources.port}/a.js"></script>'.encode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("clip.mp4", mp4)
    free = len(page) + 8
    in_a_box = free.to_bytes(4, "big") + b"free" + page + sources.fragmented_mp4  # its offsets are its own
    yield hostile(kind, "html-in-a-box.mp4", in_a_box, LABELLED)
    yield hostile(kind, "mp4-then-html.mp4", mp4 + page, LABELLED)
    yield hostile(kind, "mp4-then-zip.mp4", mp4 + archive.getvalue(), LABELLED)
    yield hostile(kind, "mp4-then-mkv.mp4", mp4 + sources.mkv, LABELLED)
    yield hostile(kind, "mp4-then-playlist.mp4", mp4 + b"\n#EXTM3U\n/etc/passwd\n", LABELLED)
    yield hostile(kind, "html-then-mp4.mp4", page + mp4, UNSUPPORTED)
    yield hostile(kind, "zip-of-mp4.mp4", archive.getvalue(), UNSUPPORTED)
    yield hostile(kind, "text-then-ftyp.mp4", b"words" + mp4, UNSUPPORTED)
    yield hostile(kind, "pdf-then-mp4.mp4", b"%PDF-1.7\n" + mp4, UNSUPPORTED)
    yield hostile(kind, "gif-then-mp4.mp4", b"GIF89a\1\0\1\0\0\0\0;" + mp4, UNSUPPORTED)
    yield hostile(kind, "elf-then-mp4.mp4", b"\x7fELF\2\1\1\0" + bytes(8) + mp4, UNSUPPORTED)
    yield hostile(kind, "mkv-called.mp4", sources.mkv, LABELLED)
    yield hostile(kind, "ts-called.mp4", sources.ts, LABELLED)
    yield hostile(kind, "mkv-then-mp4.mkv", sources.mkv + mp4, LABELLED)
    yield hostile(kind, "ts-with-ftyp.ts", sources.ts[:4] + b"ftyp" + sources.ts[8:], LABELLED, DAMAGED)
    yield hostile(kind, "playlist-in-a-name.mp4", mp4.replace(b"Lavf", b"#EXT", 1), LABELLED)


def _cut_short(sources: Sources) -> Iterator[Hostile]:
    """Behind half of the bytes there may be half of the time, and a label with a warning; before, there is none."""
    whole = {"front.mp4": sources.front_mp4, "clip.mkv": sources.mkv, "clip.avi": sources.avi, "clip.ts": sources.ts}
    if sources.real is not None:
        whole["real.mp4"] = sources.real
    for name, data in whole.items():
        for step in range(TRUNCATIONS):
            share = (step + 0.5) / TRUNCATIONS
            part = data[: int(len(data) * share)]
            # MPEG-TS declares nothing that could be missed; half an AVI may hold more than half of its frames.
            labelled = {LABELLED} if share > 0.4 or name == "clip.ts" else set()
            outcomes = {UNSUPPORTED, EMPTY, *DAMAGED} | labelled
            yield hostile("cut short", f"{step:02d}-{name}", part, frozenset(outcomes))
