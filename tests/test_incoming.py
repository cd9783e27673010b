"""vidseq.incoming: what arrives in pieces is what lies in a file, a frame at a time, and nobody waits for ever."""

import asyncio
import os
import random
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from tests.open_files import none_stays_open
from tests.toy_videos import recode, remux, write_clip, write_frames
from vidseq import schemas
from vidseq.config import Limits, Picture
from vidseq.errors import (
    EmptyVideo,
    TooManyBytes,
    TooManyFrames,
    UndecodableVideo,
    UnsupportedCodec,
    UnsupportedContainer,
    VideoError,
)
from vidseq.incoming import Incoming, Opened
from vidseq.video import Frame, Reader, Verdict

PICTURE = Picture(size=32)
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}
FASTSTART = {"movflags": "faststart"}
MAX_BYTES = 1 << 24

Read = tuple[list[Frame], schemas.VideoReport]
Answer = TypeVar("Answer")

CONTAINERS = [
    ("clip.mkv", "libx264", {}),
    ("clip.webm", "libvpx", {}),
    ("clip.ts", "libx264", {}),
    ("clip.m2ts", "mpeg2video", {}),
    ("clip.avi", "mpeg4", {}),
    ("fragmented.mp4", "libx264", FRAGMENTED),
    ("faststart.mp4", "libx264", FASTSTART),
]
AT_END = ("index_at_end.mp4", "libx264", {})
in_every_container = pytest.mark.parametrize(
    ("name", "codec", "muxing"), CONTAINERS, ids=[row[0] for row in CONTAINERS]
)


def everything(seconds: float) -> Verdict:
    return Verdict.TAKE


def read_all(source: Path | Incoming, *, limits: Limits = Limits()) -> Read:
    with Reader(source, picture=PICTURE, limits=limits) as reader:
        return list(reader.frames(everything)), reader.report()


def same(left: list[Frame], right: list[Frame]) -> bool:
    return [(f.seconds, f.pixels_HWC.tobytes()) for f in left] == [(f.seconds, f.pixels_HWC.tobytes()) for f in right]


def pieces(data: bytes, *, seed: int, largest: int = 50_000) -> Iterator[bytes]:
    """Chunks of random sizes, small ones as often as large ones."""
    rng, start = random.Random(seed), 0
    while start < len(data):
        stop = start + int(largest ** rng.random())
        yield data[start:stop]
        start = stop


async def receive(
    chunks: Iterator[bytes], reading: Callable[[Incoming], Answer], *, max_bytes: int = MAX_BYTES
) -> Answer:
    """What a server does: feeds what comes, while a thread reads."""
    with Incoming(max_bytes=max_bytes) as incoming:
        answer = asyncio.create_task(asyncio.to_thread(reading, incoming))
        for chunk in chunks:
            if not await incoming.feed(chunk):
                break
        incoming.finish()
        return await answer


def write_noise(path: Path, *, codec: str = "mjpeg", num_frames: int = 60, width: int = 160, **muxing: str) -> Path:
    """10 frames a second that no codec can make small: far more bytes than a pipe holds."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (width * 3 // 4, width, 3), dtype=np.uint8) for _ in range(num_frames)]
    return write_frames(path, frames, [index / 10 for index in range(num_frames)], codec=codec, muxing=muxing)


# The same frames, at the same times


@pytest.mark.parametrize(
    ("name", "codec", "muxing"), [*CONTAINERS, AT_END], ids=[row[0] for row in [*CONTAINERS, AT_END]]
)
def test_what_arrives_in_pieces_gives_the_frames_and_times_of_the_file(
    name: str, codec: str, muxing: dict[str, str], tmp_path: Path
) -> None:
    path = write_clip(tmp_path / name, codec=codec, muxing=muxing, num_frames=40)
    frames, report = read_all(path)
    for seed in range(5):
        arrived, arrived_report = asyncio.run(receive(pieces(path.read_bytes(), seed=seed), read_all))
        assert same(arrived, frames)
        assert (arrived_report.frames_decoded, arrived_report.complete) == (40, True)
        assert (arrived_report.container, arrived_report.codec) == (report.container, report.codec)


def test_byte_after_byte_gives_the_same_frames_too(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", muxing=FASTSTART, num_frames=5)
    chunks = (bytes([byte]) for byte in path.read_bytes())
    assert same(asyncio.run(receive(chunks, read_all))[0], read_all(path)[0])


def test_frames_at_irregular_times_keep_their_own_times(tmp_path: Path) -> None:
    seconds = [0.0, 0.1, 0.15, 0.4, 1.0, 1.2]
    for name, muxing in (("a.mkv", {}), ("a.ts", {}), ("f.mp4", FRAGMENTED), ("s.mp4", FASTSTART)):
        data = write_clip(tmp_path / name, seconds=seconds, muxing=muxing).read_bytes()
        frames, _ = asyncio.run(receive(pieces(data, seed=1), read_all))
        assert [frame.seconds for frame in frames] == pytest.approx(seconds, abs=0.001)


def test_real_clips_give_the_same_frames_and_times_in_every_container(shared_data: Path, tmp_path: Path) -> None:
    clips = [*sorted(shared_data.glob("fight/*/*.mp4"))[::60], *sorted(shared_data.glob("yoga/*/*.mp4"))[::40]]
    assert clips
    for clip in clips:
        paths = [
            clip,
            remux(clip, tmp_path / "clip.mkv"),
            remux(clip, tmp_path / "clip.ts"),
            remux(clip, tmp_path / "fragmented.mp4", **FRAGMENTED),
            remux(clip, tmp_path / "faststart.mp4", **FASTSTART),
            recode(clip, tmp_path / "clip.avi"),
        ]
        for path in paths:
            arrived, _ = asyncio.run(receive(pieces(path.read_bytes(), seed=2), read_all))
            assert same(arrived, read_all(path)[0]), f"{clip.name} as {path.name}"


# While more bytes arrive


@in_every_container
def test_the_first_frame_comes_while_a_quarter_is_still_to_come(
    name: str, codec: str, muxing: dict[str, str], tmp_path: Path
) -> None:
    data = write_noise(tmp_path / name, codec=codec, **muxing).read_bytes()
    most = len(data) * 3 // 4
    first_is_here = threading.Event()

    def read_and_tell(incoming: Incoming) -> int:
        with Reader(incoming, picture=PICTURE) as reader:
            for _ in reader.frames(everything):
                first_is_here.set()
            return reader.report().frames_decoded

    def chunks() -> Iterator[bytes]:
        yield from pieces(data[:most], seed=3)
        assert first_is_here.wait(timeout=20)
        yield data[most:]

    assert asyncio.run(receive(chunks(), read_and_tell)) == 60


@pytest.mark.parametrize(("muxing", "at_end"), [(FASTSTART, False), (FRAGMENTED, False), ({}, True)])
def test_where_the_index_is_is_known_long_before_the_last_byte(
    muxing: dict[str, str], at_end: bool, tmp_path: Path
) -> None:
    data = write_noise(tmp_path / "clip.mp4", codec="libx264", **muxing).read_bytes()

    async def feed_a_tenth() -> bool | None:
        with Incoming(max_bytes=MAX_BYTES) as incoming:
            assert incoming.index_at_end is None
            feeding = asyncio.create_task(incoming.feed(data[: len(data) // 10]))
            await asyncio.sleep(0)
            feeding.cancel()
            return incoming.index_at_end

    assert asyncio.run(feed_a_tenth()) is at_end


def test_with_its_index_at_the_end_a_video_is_opened_after_its_last_byte(tmp_path: Path) -> None:
    data = write_clip(tmp_path / "clip.mp4").read_bytes()

    async def feed_all_then_finish() -> None:
        with Incoming(max_bytes=MAX_BYTES) as incoming:
            answer = asyncio.create_task(asyncio.to_thread(incoming.open))
            assert await incoming.feed(data)
            assert await asyncio.wait([answer], timeout=0.05) == (set(), {answer})
            incoming.finish()
            opened = await answer
            assert (os.fstat(opened.fd).st_size, opened.arriving) == (len(data), False)
            os.close(opened.fd)

    asyncio.run(feed_all_then_finish())


def test_who_feeds_faster_than_is_decoded_is_made_to_wait(tmp_path: Path) -> None:
    data = write_noise(tmp_path / "clip.avi").read_bytes()

    async def feed_without_a_reader() -> None:
        with Incoming(max_bytes=MAX_BYTES) as incoming, pytest.raises(TimeoutError):
            await asyncio.wait_for(incoming.feed(data), timeout=0.1)

    asyncio.run(feed_without_a_reader())


@pytest.mark.slow
def test_a_pause_in_the_middle_of_a_frame_ends_nothing(tmp_path: Path) -> None:
    """Left to itself, OpenCV takes 30 s of silence for the end of the video."""
    data = write_noise(tmp_path / "clip.avi", num_frames=6, width=1280).read_bytes()

    async def receive_with_a_pause() -> Read:
        with Incoming(max_bytes=MAX_BYTES) as incoming:
            answer = asyncio.create_task(asyncio.to_thread(read_all, incoming))
            await incoming.feed(data[: len(data) // 2])
            await asyncio.sleep(31)
            for chunk in pieces(data[len(data) // 2 :], seed=4, largest=1000):
                await incoming.feed(chunk)
            incoming.finish()
            return await answer

    assert len(asyncio.run(receive_with_a_pause())[0]) == 6


# What is declared


def test_what_nobody_can_know_yet_is_not_declared(tmp_path: Path) -> None:
    for name, muxing in (("clip.ts", {}), ("clip.mp4", FRAGMENTED)):
        path = write_clip(tmp_path / name, muxing=muxing, num_frames=40)
        _, report = asyncio.run(receive(pieces(path.read_bytes(), seed=5), read_all))
        assert (report.duration_seconds, report.frames_declared, report.complete) == (None, None, True)


def test_what_is_cut_short_gives_what_it_has_and_says_so(tmp_path: Path) -> None:
    data = write_noise(tmp_path / "clip.mkv", codec="libx264").read_bytes()
    frames, report = asyncio.run(receive(pieces(data[: len(data) // 2], seed=6), read_all))
    assert 20 < len(frames) < 40
    assert not report.complete
    assert "of the declared 6.00 s could be decoded" in report.warnings[0]


# What is refused


def refused(data: bytes, reading: Callable[[Incoming], object] = read_all, *, max_bytes: int = MAX_BYTES) -> VideoError:
    with pytest.raises(VideoError) as caught:
        asyncio.run(receive(pieces(data, seed=7), reading, max_bytes=max_bytes))
    return caught.value


def test_no_bytes_are_an_empty_video() -> None:
    assert isinstance(refused(b""), EmptyVideo)


@pytest.mark.parametrize("data", [b"G", b"#EXTM3U\nsibling.ts\n", b"GIF89a" + bytes(2000)])
def test_what_does_not_begin_like_a_video_is_refused(data: bytes) -> None:
    assert isinstance(refused(data), UnsupportedContainer)


def test_an_unknown_container_is_refused_by_its_first_bytes() -> None:
    async def feed_text() -> None:
        with Incoming(max_bytes=MAX_BYTES) as incoming:
            assert await incoming.feed(b"text" * 255)
            assert not await incoming.feed(b"text")
            with pytest.raises(UnsupportedContainer):
                incoming.open()

    asyncio.run(feed_text())


@pytest.mark.parametrize("muxing", [FASTSTART, {}], ids=["pipe", "memory"])
def test_more_bytes_than_allowed_are_refused_with_both_numbers(muxing: dict[str, str], tmp_path: Path) -> None:
    data = write_noise(tmp_path / "clip.mp4", codec="libx264", **muxing).read_bytes()
    error = refused(data, max_bytes=len(data) - 1)
    assert isinstance(error, TooManyBytes)
    assert (error.value, error.limit) == (len(data), len(data) - 1)


def test_an_encrypted_video_is_refused_by_its_index(tmp_path: Path) -> None:
    key = "0123456789abcdef0123456789abcdef"
    scheme = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": key, "encryption_kid": key}
    data = write_clip(tmp_path / "clip.mp4", muxing=scheme | FASTSTART).read_bytes()
    assert "the video is encrypted" in str(refused(data))


def box(kind: bytes, size: int, content: bytes = b"") -> bytes:
    return struct.pack(">I4s", size, kind) + content


@pytest.mark.parametrize(
    "head",
    [
        box(b"free", 8) * 50_000,
        box(b"free", 0) + bytes(5000),
        box(b"free", 1, struct.pack(">Q", 2**63)) + bytes(5000),
        box(b"free", 1, struct.pack(">Q", 2**64 - 1)) + bytes(5000),
        box(b"free", 2**32 - 1) + bytes(5000),
        box(b"free", 4) + bytes(5000),
        box(b"moov", 0) + bytes(5000),
        box(b"moov", 2**31) + bytes(5000),
        box(b"ftyp", 8) + box(b"moov", 8) + bytes(5000),
        box(b"moov", 8 + 8 * 20_000) + box(b"trak", 8) * 20_000 + bytes(5000),
    ],
    ids=["bomb", "free 0", "2**63", "2**64", "2**32", "free 4", "moov 0", "moov 2**31", "moov 8", "traks"],
)
def test_a_head_that_lies_ends_in_a_typed_error(head: bytes) -> None:
    assert isinstance(refused(head), VideoError)


def test_boxes_without_end_are_not_searched_without_end() -> None:
    async def feed_boxes() -> bool | None:
        with Incoming(max_bytes=MAX_BYTES) as incoming:
            await incoming.feed(box(b"free", 8) * 20_000)
            return incoming.index_at_end

    assert asyncio.run(feed_boxes())


# Whoever leaves first


def take_one(incoming: Incoming) -> None:
    with Reader(incoming, picture=PICTURE) as reader:
        assert len(list(reader.frames(lambda seconds: Verdict.STOP if seconds else Verdict.TAKE))) == 1


def read_two(incoming: Incoming) -> None:
    with pytest.raises(TooManyFrames):
        read_all(incoming, limits=Limits(max_frames=2))


def be_refused(incoming: Incoming) -> None:
    with pytest.raises(UnsupportedCodec):
        read_all(incoming)


@pytest.mark.parametrize(("reading", "codec"), [(take_one, "mjpeg"), (read_two, "mjpeg"), (be_refused, "ffv1")])
def test_a_reader_that_has_enough_wants_no_more_bytes(
    reading: Callable[[Incoming], None], codec: str, tmp_path: Path
) -> None:
    data = write_noise(tmp_path / "clip.mkv", codec=codec).read_bytes()

    async def feed_all() -> list[bool]:
        with Incoming(max_bytes=MAX_BYTES) as incoming:
            answer = asyncio.create_task(asyncio.to_thread(reading, incoming))
            wanted = [await incoming.feed(chunk) for chunk in (data, b"more")]
            incoming.finish()
            await answer
            return wanted

    assert asyncio.run(feed_all()) == [False, False]


def test_a_reader_that_leaves_wakes_who_feeds_on_uvloop_too(tmp_path: Path) -> None:
    uvloop = pytest.importorskip("uvloop")
    data = write_noise(tmp_path / "clip.mkv").read_bytes()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        chunks = iter([data, b"more"])
        runner.run(asyncio.wait_for(receive(chunks, take_one), timeout=20))
    assert list(chunks) == [b"more"]  # the feed was told that nobody wants more


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5])
def test_when_the_sender_leaves_the_reader_ends_and_nothing_is_left(share: float, tmp_path: Path) -> None:
    data = write_noise(tmp_path / "clip.mkv").read_bytes()

    async def feed_some_and_leave() -> None:
        with Incoming(max_bytes=MAX_BYTES) as incoming:
            answer = asyncio.create_task(asyncio.to_thread(read_all, incoming))
            for chunk in pieces(data[: int(len(data) * share)], seed=8):
                await incoming.feed(chunk)
            incoming.abort()
            with pytest.raises(UndecodableVideo, match=r"its sender left after [\d,]+ bytes"):
                await answer

    read_all(tmp_path / "clip.mkv")  # whatever OpenCV opens once
    num_threads = threading.active_count()
    with none_stays_open():
        asyncio.run(feed_some_and_leave())
    assert threading.active_count() <= num_threads


async def abort_soon(incoming: Incoming) -> None:
    await asyncio.sleep(0.05)
    incoming.abort()


async def cancel_soon(feeding: asyncio.Task[bool]) -> None:
    await asyncio.sleep(0.05)
    feeding.cancel()


def test_abort_wakes_a_feed_that_waits(tmp_path: Path) -> None:
    data = write_noise(tmp_path / "clip.avi").read_bytes()

    async def feed_until_aborted() -> bool:
        with Incoming(max_bytes=MAX_BYTES) as incoming:
            aborting: Awaitable[None] = asyncio.create_task(abort_soon(incoming))
            wanted = await incoming.feed(data)
            await aborting
            return wanted

    with none_stays_open():
        assert asyncio.run(asyncio.wait_for(feed_until_aborted(), timeout=20)) is False


def test_a_feed_that_is_cancelled_leaves_nothing_behind(tmp_path: Path) -> None:
    data = write_noise(tmp_path / "clip.avi").read_bytes()

    async def feed_until_cancelled() -> None:
        with Incoming(max_bytes=MAX_BYTES) as incoming:
            feeding = asyncio.create_task(incoming.feed(data))
            cancelling = asyncio.create_task(cancel_soon(feeding))
            with pytest.raises(asyncio.CancelledError):
                await feeding
            await cancelling

    with none_stays_open():
        asyncio.run(feed_until_cancelled())


def test_an_error_of_the_receiver_wakes_the_reader() -> None:
    readers: list[asyncio.Task[Opened]] = []

    async def break_down() -> None:
        with Incoming(max_bytes=MAX_BYTES) as incoming:
            readers.append(asyncio.create_task(asyncio.to_thread(incoming.open)))
            await asyncio.sleep(0.05)
            raise ZeroDivisionError

    async def break_down_and_look() -> None:
        with pytest.raises(ZeroDivisionError):
            await break_down()
        with pytest.raises(UndecodableVideo, match="its sender left"):
            await readers[0]

    asyncio.run(break_down_and_look())
