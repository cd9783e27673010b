"""vidseq.video: the right frames with their own times, honest reports, and a typed error for everything else."""

import contextlib
import ctypes
import io
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_videos import overwrite, paint, read, turn_clockwise, write_clip, write_frames, write_sound

from tests.open_files import none_stays_open
from vidseq import schemas
from vidseq.config import Limits, Picture
from vidseq.container import Source, open_source
from vidseq.decoder import MID_GREY, Decoder, fit
from vidseq.errors import (
    EmptyVideo,
    LimitExceeded,
    NoVideoStream,
    OptionError,
    SourceNotFound,
    TooManyBytes,
    TooManyDecodedBytes,
    TooManyFrames,
    TooManyPixels,
    TooManySeconds,
    UndecodableVideo,
    UnsupportedCodec,
    UnsupportedContainer,
    VideoError,
)
from vidseq.sandbox.box import Sandbox
from vidseq.video import Frame, Reader, Verdict

ROOT = Path(__file__).parents[1]
PICTURE = Picture(size=64)

CODECS = [
    ("clip.mp4", "libx264", "mp4", "h264"),
    ("clip.mov", "mpeg4", "mp4", "mpeg4"),
    ("clip.mp4", "libsvtav1", "mp4", "av1"),
    ("clip.mkv", "libx264", "matroska", "h264"),
    ("clip.mkv", "libx265", "matroska", "hevc"),
    ("clip.webm", "libvpx", "matroska", "vp8"),
    ("clip.webm", "libvpx-vp9", "matroska", "vp9"),
    ("clip.avi", "mpeg4", "avi", "mpeg4"),
    ("clip.avi", "mjpeg", "avi", "mjpeg"),
    ("clip.ts", "libx264", "mpegts", "h264"),
    ("clip.ts", "mpeg2video", "mpegts", "mpeg2video"),
    ("clip.m2ts", "libx264", "mpegts", "h264"),
]


class Place:
    """Where `decode` decodes: None is this process."""

    sandbox: Sandbox | None = None


@pytest.fixture(scope="module", autouse=True, params=["here", "boxed"])
def place(request: pytest.FixtureRequest, sandbox: Sandbox) -> None:
    """Every test runs in this process, and in the sandbox."""
    Place.sandbox = sandbox if request.param == "boxed" else None


def everything(seconds: float) -> Verdict:
    return Verdict.TAKE


def decode(
    source: Source,
    want: Callable[[float], Verdict] = everything,
    *,
    picture: Picture = PICTURE,
    limits: Limits = Limits(),
) -> tuple[list[Frame], schemas.VideoReport]:
    with Reader(source, picture=picture, limits=limits, sandbox=Place.sandbox) as reader:
        return list(reader.frames(want)), reader.report()


def numbers(frames: list[Frame]) -> list[int]:
    return [read(frame.pixels_HWC) for frame in frames]


# What comes out


@pytest.mark.parametrize(("name", "encoder", "container", "codec"), CODECS)
def test_every_frame_of_each_container_and_codec_comes_once_and_in_order(
    name: str, encoder: str, container: str, codec: str, tmp_path: Path
) -> None:
    frames, report = decode(write_clip(tmp_path / name, codec=encoder, num_frames=12))
    assert numbers(frames) == list(range(12))
    assert [frame.seconds for frame in frames] == pytest.approx([index / 10 for index in range(12)], abs=0.001)
    assert (report.container, report.codec) == (container, codec)
    assert (report.frames_decoded, report.complete, report.warnings) == (12, True, ())


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts"])
def test_frames_at_irregular_times_keep_their_own_times(name: str, tmp_path: Path) -> None:
    seconds = [0.0, 0.1, 0.15, 0.4, 1.0, 1.2]
    frames, report = decode(write_clip(tmp_path / name, seconds=seconds))
    assert [frame.seconds for frame in frames] == pytest.approx(seconds, abs=0.001)
    assert report.duration_seconds == pytest.approx(1.3, abs=0.11)


def test_path_bytes_and_binary_file_give_the_same_frames(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    expected = [(frame.seconds, frame.pixels_HWC.tobytes()) for frame in decode(path)[0]]
    with path.open("rb") as file:
        for source in (str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), file):
            assert [(frame.seconds, frame.pixels_HWC.tobytes()) for frame in decode(source)[0]] == expected


def test_only_the_frames_that_are_wanted_come(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", num_frames=20)
    frames, report = decode(path, lambda seconds: Verdict.TAKE if round(seconds * 10) % 5 == 0 else Verdict.SKIP)
    assert numbers(frames) == [0, 5, 10, 15]
    assert report.frames_decoded == 20


def test_stop_ends_decoding_and_what_was_asked_for_is_complete(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", num_frames=20)
    frames, report = decode(path, lambda seconds: Verdict.STOP if seconds > 0.45 else Verdict.TAKE)
    assert numbers(frames) == [0, 1, 2, 3, 4]
    assert (report.frames_decoded, report.frames_declared, report.complete) == (6, 20, True)


def test_a_clip_that_says_it_lies_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    on_its_side = [np.rot90(paint(number)) for number in range(5)]
    path = write_frames(tmp_path / "clip.mp4", on_its_side, [index / 10 for index in range(5)])
    frames, report = decode(turn_clockwise(path.read_bytes()))
    assert numbers(frames) == list(range(5))
    assert (report.width, report.height) == (96, 64)


def test_colours_come_as_red_green_blue(tmp_path: Path) -> None:
    orange = np.full((64, 96, 3), (250, 130, 10), dtype=np.uint8)
    frames, _ = decode(write_frames(tmp_path / "clip.mp4", [orange], [0.0]))
    assert frames[0].pixels_HWC.dtype == np.uint8
    assert frames[0].pixels_HWC.mean(axis=(0, 1)) == pytest.approx((250, 130, 10), abs=12)


def test_a_video_of_one_frame_is_complete(tmp_path: Path) -> None:
    frames, report = decode(write_clip(tmp_path / "clip.mp4", num_frames=1))
    assert (numbers(frames), report.complete, report.warnings) == ([0], True, ())


def test_a_last_frame_that_is_shown_for_long_does_not_make_a_video_incomplete(tmp_path: Path) -> None:
    slides = write_clip(tmp_path / "clip.mp4", seconds=[0.0, 0.1, 0.2]).read_bytes()
    shown_for_an_hour = overwrite(slides, slides.index(b"tkhd") + 4 + 20, struct.pack(">I", 3600 * 1000))
    _, report = decode(shown_for_an_hour)
    assert (report.duration_seconds, report.complete) == (3600.0, True)


def test_the_report_tells_what_is_declared_before_anything_is_decoded(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", num_frames=20)
    with Reader(clip, picture=PICTURE, sandbox=Place.sandbox) as reader:
        report = reader.report()
    assert (report.width, report.height, report.duration_seconds, report.frames_declared) == (96, 64, 2.0, 20)
    assert (report.frames_decoded, report.complete) == (0, False)


def test_a_frame_size_that_changes_midway_does_not_end_the_video(tmp_path: Path) -> None:
    small = write_clip(tmp_path / "small.ts", num_frames=20).read_bytes()
    large = write_clip(tmp_path / "large.ts", num_frames=20, first_number=20, height=128, width=192).read_bytes()
    frames, report = decode(small + large)
    assert numbers(frames)[-1] == 39
    assert (report.width, report.height, report.frames_decoded) == (96, 64, 40)


# One resize


@pytest.mark.parametrize(("height", "width"), [(48, 160), (160, 48), (300, 400), (64, 64), (33, 47)])
def test_crop_shows_the_centre_square_at_any_size(height: int, width: int) -> None:
    square_HWC = fit(paint(0b1011_0110_0101, height=height, width=width), Picture(size=100))
    assert square_HWC.shape == (100, 100, 3)
    assert read(square_HWC) == 0b1011_0110_0101


def test_crop_then_resize_is_resize_then_crop() -> None:
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    smooth_HWC = np.asarray(cv2.GaussianBlur(pixels_HWC, (0, 0), 4), dtype=np.uint8)
    whole_HWC = cv2.resize(smooth_HWC, (128, 96), interpolation=cv2.INTER_AREA)
    expected_HWC = cv2.cvtColor(whole_HWC[:, 16:112], cv2.COLOR_BGR2RGB)
    assert np.abs(fit(smooth_HWC, Picture(size=96)).astype(int) - expected_HWC).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(60, 120), (120, 60)])
def test_letterbox_shows_the_whole_frame_between_grey_bars(height: int, width: int) -> None:
    white_HWC = np.full((height, width, 3), 255, dtype=np.uint8)
    boxed_HWC = fit(white_HWC, Picture(size=64, fit="letterbox"))
    bright = boxed_HWC[..., 0] == 255
    assert boxed_HWC.shape == (64, 64, 3)
    assert sorted((bright.any(axis=0).sum(), bright.any(axis=1).sum())) == [32, 64]
    assert set(np.unique(boxed_HWC)) == {MID_GREY, 255}


def test_letterbox_of_a_thread_keeps_one_row() -> None:
    boxed_HWC = fit(np.full((1, 4000, 3), 255, dtype=np.uint8), Picture(size=32, fit="letterbox"))
    assert (boxed_HWC == 255).all(axis=(1, 2)).sum() == 1


@pytest.mark.parametrize(("height", "width"), [(60, 120), (120, 60)])
def test_stretch_shows_the_whole_frame_and_nothing_else(height: int, width: int) -> None:
    """Four quarters of four shades stay four quarters."""
    quarters_HWC = np.kron(
        np.array([[40, 90], [160, 220]], dtype=np.uint8), np.ones((height // 2, width // 2), np.uint8)
    )
    stretched_HWC = fit(quarters_HWC[..., None].repeat(3, axis=2), Picture(size=32, fit="stretch"))
    expected = np.kron(np.array([[40, 90], [160, 220]]), np.ones((16, 16)))
    np.testing.assert_array_equal(stretched_HWC[..., 0], expected)


# What is refused before a frame is decoded


def test_a_path_that_is_not_there_a_folder_and_a_fifo_are_not_found(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "absent.mp4", tmp_path, tmp_path / "fifo", "zero\0byte.mp4", "http://127.0.0.1:9/a.mp4"):
        with pytest.raises(SourceNotFound, match=r"cannot be opened|is not a file"):
            decode(path)


def test_zero_bytes_are_an_empty_video(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    for source in (tmp_path / "empty.mp4", b"", io.BytesIO()):
        with pytest.raises(EmptyVideo):
            decode(source)


@pytest.mark.parametrize(
    "content",
    [
        b"this is a text that somebody named .mp4",
        b"ffconcat version 1.0\nfile sibling.mp4\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsibling.ts\n#EXT-X-ENDLIST\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        b"GIF89a" + bytes(100),
        b"FLV\x01" + bytes(100),
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"G",
    ],
    ids=["text", "ffconcat", "hls", "sdp", "gif", "flv", "png", "one byte"],
)
def test_what_does_not_begin_like_a_video_is_refused_whatever_its_name(content: bytes, tmp_path: Path) -> None:
    write_clip(tmp_path / "sibling.mp4")
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(UnsupportedContainer, match="not MP4/MOV, Matroska/WebM, AVI or MPEG-TS"):
        decode(tmp_path / "clip.mp4")


def test_a_playlist_that_slipped_past_the_sniffing_could_not_reach_another_open_file(tmp_path: Path) -> None:
    playlist = tmp_path / "clip.mp4"
    with write_clip(tmp_path / "somebody_elses.ts").open("rb") as other:
        playlist.write_text(f"ffconcat version 1.0\nfile {other.fileno()}\n")  # beside /proc/self/fd/N
        with playlist.open("rb") as file:
            assert not Decoder(file.fileno()).opened


def test_a_container_that_slipped_past_the_sniffing_would_not_open(tmp_path: Path) -> None:
    with write_clip(tmp_path / "clip.flv").open("rb") as file:
        assert not Decoder(file.fileno()).opened


@pytest.mark.parametrize("name", ["clip%03d.mp4", "concat:clip.mp4", "-i.mp4", "ünïcode 視頻.mp4", "a|b;c.mp4"])
def test_an_odd_name_is_only_a_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "toy.mp4").rename(tmp_path / name)
    assert numbers(decode(name)[0]) == list(range(20))


@pytest.mark.parametrize("make_source", [lambda: 7, lambda: None, lambda: io.StringIO("text")])
def test_what_is_no_source_at_all_is_said(make_source: Callable[[], Source]) -> None:
    with pytest.raises(OptionError, match="a source is"):
        decode(make_source())


@pytest.mark.parametrize("kind", [str, Path.read_bytes, lambda path: io.BytesIO(path.read_bytes())])
def test_more_bytes_than_allowed_are_refused_from_any_source(kind: Callable[[Path], Source], tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    with pytest.raises(TooManyBytes, match="at most 1,000 are allowed") as caught:
        decode(kind(path), limits=Limits(max_bytes=1000))
    assert (caught.value.value, caught.value.limit) == (path.stat().st_size, 1000)


def test_a_stream_is_not_read_much_further_than_the_limit() -> None:
    endless = io.BytesIO(bytes(8 << 20))
    with pytest.raises(TooManyBytes):
        decode(endless, limits=Limits(max_bytes=1 << 20))
    assert endless.tell() <= 2 << 20


@pytest.mark.parametrize(("name", "codec", "letters"), [("clip.mkv", "ffv1", "ffv1"), ("clip.avi", "magicyuv", "MAGY")])
def test_a_codec_that_is_not_on_the_list_is_refused_by_name(
    name: str, codec: str, letters: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedCodec, match=f"the codec '{letters}' is not one of .*h264"):
        decode(write_clip(tmp_path / name, codec=codec))


def test_an_mp4_whose_codec_nobody_knows_is_undecodable_and_says_why(tmp_path: Path) -> None:
    mp4 = write_clip(tmp_path / "clip.mp4").read_bytes()
    with pytest.raises(UndecodableVideo, match="its codec is unknown"):
        decode(mp4.replace(b"avc1", b"zzzz"))


def test_a_frame_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "wide.avi", codec="mjpeg", num_frames=1, height=1008, width=10_000)
    with pytest.raises(TooManyPixels) as caught:
        decode(path)
    assert (caught.value.value, caught.value.limit) == (10_080_000, Limits().max_pixels)


@pytest.mark.parametrize("name", ["sound.mp4", "sound.mkv", "sound.ts"])
def test_sound_alone_is_no_video_stream(name: str, tmp_path: Path) -> None:
    with pytest.raises(NoVideoStream):
        decode(write_sound(tmp_path / name))


def test_an_encrypted_video_is_undecodable_and_says_so(tmp_path: Path) -> None:
    key = "0123456789abcdef0123456789abcdef"
    scheme = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": key, "encryption_kid": key}
    with pytest.raises(UndecodableVideo, match="the video is encrypted"):
        decode(write_clip(tmp_path / "clip.mp4", muxing=scheme))


# What is refused while decoding


def test_the_limit_on_frames_holds_while_decoding(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", num_frames=20)
    assert len(decode(path, limits=Limits(max_frames=20))[0]) == 20
    with pytest.raises(TooManyFrames, match="20 frames; at most 19"):
        decode(path, limits=Limits(max_frames=19))


def test_the_limit_on_seconds_holds_while_decoding(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", num_frames=20)
    assert len(decode(path, limits=Limits(max_seconds=1.95))[0]) == 20
    with pytest.raises(TooManySeconds, match=r"1 seconds; at most 0\.95"):
        decode(path, limits=Limits(max_seconds=0.95))


def test_the_limit_on_decoded_bytes_counts_the_frames_that_are_skipped_too(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", num_frames=20)
    with pytest.raises(TooManyDecodedBytes) as caught:
        decode(path, lambda seconds: Verdict.SKIP, limits=Limits(max_decoded_bytes=10 * 96 * 64 * 3))
    assert caught.value.value == 11 * 96 * 64 * 3


def test_each_limit_carries_value_limit_and_a_code_of_its_own(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", num_frames=20)
    small = [Limits(max_bytes=9), Limits(max_pixels=9), Limits(max_frames=9), Limits(max_seconds=0.9)]
    codes = set()
    for limits in [*small, Limits(max_decoded_bytes=9)]:
        with pytest.raises(LimitExceeded) as caught:
            decode(path, limits=limits)
        assert caught.value.value > caught.value.limit
        codes.add(caught.value.code)
    assert len(codes) == 5


# Headers that lie, files that are cut


def avi_header(scale: int, rate: int, num_frames: int) -> Callable[[bytes], bytes]:
    def lie(avi: bytes) -> bytes:
        stream_header = avi.index(b"strh") + 8
        lying = overwrite(avi, stream_header + 20, struct.pack("<II", scale, rate))
        return overwrite(lying, stream_header + 32, struct.pack("<I", num_frames))

    return lie


@pytest.mark.parametrize(
    ("scale", "rate", "num_frames"),
    [(1, 10, 10**9), (1, 0, 20), (0, 10, 20), (0, 0, 0), (1, 2 * 10**9, 20), (10_000, 10, 20), (1, 10, 2**32 - 1)],
)
def test_a_rate_or_count_that_lies_in_an_avi_changes_no_frame(
    scale: int, rate: int, num_frames: int, tmp_path: Path
) -> None:
    avi = write_clip(tmp_path / "clip.avi", codec="mpeg4", num_frames=20).read_bytes()
    frames, report = decode(avi_header(scale, rate, num_frames)(avi))
    assert numbers(frames) == list(range(20))
    assert report.frames_decoded == 20
    assert report.frames_declared in (20, None)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 0.0, 1e300])
def test_a_duration_that_is_nonsense_in_a_matroska_is_not_reported(seconds: float, tmp_path: Path) -> None:
    mkv = write_clip(tmp_path / "clip.mkv", num_frames=20).read_bytes()
    duration = mkv.index(b"\x44\x89\x88") + 3
    frames, report = decode(overwrite(mkv, duration, struct.pack(">d", seconds)))
    assert numbers(frames) == list(range(20))
    assert (report.duration_seconds, report.frames_declared, report.complete) == (None, None, True)


@pytest.mark.parametrize(("milliseconds", "complete"), [(1090.0, True), (1200.0, False)])
def test_a_file_that_is_a_little_longer_than_its_picture_is_complete(
    milliseconds: float, complete: bool, tmp_path: Path
) -> None:
    mkv = write_clip(tmp_path / "clip.mkv", num_frames=10).read_bytes()
    _, report = decode(overwrite(mkv, mkv.index(b"\x44\x89\x88") + 3, struct.pack(">d", milliseconds)))
    assert report.complete is complete


@pytest.mark.parametrize("box", [b"mvhd", b"tkhd"])
@pytest.mark.parametrize("field", [0, 1, 2**31, 2**32 - 1])
def test_a_duration_that_lies_in_an_mp4_changes_no_frame(box: bytes, field: int, tmp_path: Path) -> None:
    mp4 = write_clip(tmp_path / "clip.mp4", num_frames=20).read_bytes()
    frames, report = decode(overwrite(mp4, mp4.index(box) + 4 + 20, struct.pack(">I", field)))
    assert numbers(frames) == list(range(20))
    assert report.complete


def test_an_mp4_cut_before_its_index_is_undecodable_and_says_why(tmp_path: Path) -> None:
    mp4 = write_clip(tmp_path / "clip.mp4").read_bytes()
    with pytest.raises(UndecodableVideo, match=r"no index \(moov\)"):
        decode(mp4[: mp4.index(b"moov") - 4])


@pytest.mark.parametrize(
    ("name", "muxing"), [("clip.mp4", {"movflags": "faststart"}), ("clip.mkv", {}), ("clip.avi", {})]
)
def test_a_file_that_is_cut_short_is_reported_incomplete(name: str, muxing: dict[str, str], tmp_path: Path) -> None:
    whole = write_clip(tmp_path / name, num_frames=60, height=256, width=256, codec="mpeg4", muxing=muxing).read_bytes()
    frames, report = decode(whole[: len(whole) * 2 // 3])
    assert 0 < report.frames_decoded < 57
    assert numbers(frames[:5]) == [0, 1, 2, 3, 4]
    assert not report.complete
    assert "of the declared 6.00 s could be decoded" in report.warnings[0]


def test_frames_whose_time_does_not_rise_are_counted_and_said(tmp_path: Path) -> None:
    first = write_clip(tmp_path / "first.ts", num_frames=10).read_bytes()
    _, report = decode(first + first)
    assert report.frames_decoded == 20
    assert "have no time of their own" in report.warnings[0]


@pytest.mark.parametrize(("name", "codec"), [("clip.mp4", "libx264"), ("clip.mkv", "libvpx"), ("clip.avi", "mpeg4")])
@settings(max_examples=25)
@given(data=st.data())
def test_any_damage_ends_in_frames_or_in_a_typed_error(name: str, codec: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        clip = write_clip(Path(folder) / name, codec=codec, num_frames=10).read_bytes()
    for offset in data.draw(st.lists(st.integers(0, len(clip) - 1), max_size=4)):
        clip = overwrite(clip, offset, bytes([data.draw(st.integers(0, 255))]))
    clip = clip[: data.draw(st.integers(len(clip) // 2, len(clip)))]
    with contextlib.suppress(VideoError):
        _, report = decode(clip)
        assert report.frames_decoded > 0


# Nothing is left behind


def test_nothing_stays_open_whether_it_goes_well_or_not(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4").read_bytes()
    decode(clip)
    with none_stays_open():
        with Reader(clip, picture=PICTURE, sandbox=Place.sandbox) as reader:
            next(reader.frames(everything))
        for source in (b"", b"text", clip[:2000], tmp_path / "absent", tmp_path, write_sound(tmp_path / "sound.mp4")):
            with pytest.raises((VideoError, SourceNotFound)):
                decode(source)


def test_bytes_in_memory_cannot_be_changed_by_who_is_handed_them() -> None:
    fd = open_source(b"the bytes of a clip", max_bytes=100)
    for change in (lambda: os.pwrite(fd, b"x", 0), lambda: os.ftruncate(fd, 0), lambda: os.ftruncate(fd, 1000)):
        with pytest.raises(PermissionError):
            change()
    os.close(fd)


def test_no_temporary_file_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_clip(tmp_path / "clip.mp4").read_bytes()
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("TMPDIR", str(empty))
    with Reader(io.BytesIO(clip), picture=PICTURE, sandbox=Place.sandbox) as reader:
        next(reader.frames(everything))
        assert os.listdir(empty) == []


READ_ALL = """
import sys
from vidseq.config import Picture
from vidseq.errors import UndecodableVideo
from vidseq.video import Reader, Verdict
for path in sys.argv[1:]:
    try:
        with Reader(path, picture=Picture(size=32)) as reader:
            list(reader.frames(lambda _: Verdict.TAKE))
            assert reader.report().frames_decoded < 60
    except UndecodableVideo:
        pass
"""


def test_a_damaged_video_writes_nothing_to_the_terminal(tmp_path: Path) -> None:
    """In a process of its own: FFmpeg's log is set up once, by whoever uses OpenCV's first (here, other tests)."""
    clip = write_clip(tmp_path / "clip.mp4", num_frames=60).read_bytes()
    spoilt = overwrite(clip, clip.index(b"mdat") + 1000, bytes(range(200)))
    paths = [tmp_path / name for name in ("codec.mp4", "short.mp4", "spoilt.mp4")]
    for path, data in zip(paths, (clip.replace(b"avc1", b"zzzz"), clip[:1000], spoilt), strict=True):
        path.write_bytes(data)
    untold = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV_")}
    command = [sys.executable, "-c", READ_ALL, *paths]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=untold)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


# What the module promises about itself


def test_the_capture_of_opencv_occurs_where_files_and_cameras_are_opened_and_nowhere_else() -> None:
    users = [
        str(path.relative_to(ROOT))
        for package in ("vidseq", "training", "serving")
        for path in sorted((ROOT / package).rglob("*.py"))
        if "VideoCapture" in path.read_text()
    ]
    assert users == ["vidseq/camera.py", "vidseq/decoder.py"]


def test_importing_does_no_work() -> None:
    code = "import os, vidseq.video; assert not [name for name in os.environ if name.startswith('OPENCV_FFMPEG')]"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV_FFMPEG")}
    subprocess.run([sys.executable, "-c", code], env=clean, cwd=ROOT, check=True)


def test_the_ffmpeg_inside_opencv_has_the_fix_for_cve_2026_8461() -> None:
    (library,) = Path(cv2.__file__).parents[1].glob("opencv_python*.libs/libavutil-*.so*")
    version = ctypes.CDLL(str(library)).av_version_info
    version.restype = ctypes.c_char_p
    assert tuple(int(part) for part in version().decode().split(".")) >= (8, 1, 2)
