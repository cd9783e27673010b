"""vidseq.camera: pictures from a file and from a real RTSP connection, honest endings, and what is drawn on them."""

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from tests.toy_videos import paint, read, write_clip
from vidseq.camera import Camera
from vidseq.config import Limits, Picture
from vidseq.decoder import Pixels
from vidseq.drawing import Annotated
from vidseq.errors import OptionError, SourceLost, SourceNotFound, TooManyPixels, UnsupportedCodec
from vidseq.video import Reader, Verdict

PICTURE = Picture(size=64)
ROOT = Path(__file__).parents[1]
SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=toy\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track\r\n"
ANSWERS = {
    "OPTIONS": "Public: DESCRIBE, SETUP, PLAY\r\n\r\n",
    "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(SDP)}\r\n\r\n{SDP}",
    "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n\r\n",
    "PLAY": "Session: 1\r\n\r\n",
}
TS_BYTES = 7 * 188  # of MPEG-TS in one packet of RTP


def play(listener: socket.socket, mpegts: bytes) -> None:
    """A toy RTSP camera: answers one caller, sends all its pictures over the same connection, and hangs up."""
    connection, _ = listener.accept()
    with suppress(ConnectionError), connection, connection.makefile("rb") as requests:
        method = ""
        while method != "PLAY":
            lines = [line.decode() for line in iter(lambda: requests.readline().strip(), b"")]
            method = lines[0].split()[0]
            (number,) = (line for line in lines if line.startswith("CSeq"))
            connection.sendall(f"RTSP/1.0 200 OK\r\n{number}\r\n{ANSWERS[method]}".encode())
        for index, start in enumerate(range(0, len(mpegts), TS_BYTES)):
            content = mpegts[start : start + TS_BYTES]
            head = struct.pack(">BBHII", 0x80, 33, index, index * 900, 7)
            connection.sendall(struct.pack(">cBH", b"$", 0, len(head) + len(content)) + head + content)


@contextmanager
def rtsp_camera(mpegts: bytes) -> Iterator[str]:
    """Its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        playing = threading.Thread(target=play, args=(listener, mpegts), daemon=True)
        playing.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        playing.join(timeout=10)


def drain(camera: Camera, numbers: list[int], seconds: list[float]) -> None:
    for frame in camera.frames():
        numbers.append(read(frame.fitted.pixels_HWC))
        seconds.append(frame.seconds)


# A file


def test_a_file_gives_every_picture_whole_and_fitted_with_its_own_time(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", num_frames=5)
    with Camera(str(path), picture=PICTURE) as camera:
        frames = list(camera.frames())
        assert camera.frames_per_second == pytest.approx(10)
    assert [frame.pixels_HWC.shape for frame in frames] == [(64, 96, 3)] * 5
    assert [read(frame.fitted.pixels_HWC) for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.seconds for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=0.001)


def test_what_the_model_sees_of_a_file_is_what_a_reader_gives(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", num_frames=5)
    with Camera(str(path), picture=PICTURE) as camera, Reader(path, picture=PICTURE) as reader:
        seen = [frame.fitted.pixels_HWC.tobytes() for frame in camera.frames()]
        assert seen == [frame.pixels_HWC.tobytes() for frame in reader.frames(lambda _: Verdict.TAKE)]


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="No such file"), Camera(str(tmp_path / "absent.mp4"), picture=PICTURE):
        pass


# A camera


def test_an_rtsp_camera_gives_its_pictures_at_the_time_they_come_and_says_when_it_is_gone(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.ts", num_frames=60).read_bytes()
    numbers: list[int] = []
    seconds: list[float] = []
    with rtsp_camera(clip) as address, Camera(f"rtsp://{address}/door", picture=PICTURE) as camera:
        with pytest.raises(SourceLost, match=f"no more pictures come from rtsp://{address}/door"):
            drain(camera, numbers, seconds)
        assert camera.frames_per_second == pytest.approx(10, abs=1)
    assert numbers[:55] == list(range(55))  # the last ones are cut off with the connection
    assert seconds[0] == 0 and seconds == sorted(seconds) and seconds[-1] < 6


def test_after_a_camera_a_file_is_opened_under_the_rules_for_files(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.ts")
    with rtsp_camera(clip.read_bytes()) as address, Camera(f"rtsp://{address}/", picture=PICTURE):
        with Reader(clip, picture=PICTURE) as reader:
            assert len(list(reader.frames(lambda _: Verdict.TAKE))) == 20
        assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"].startswith("protocol_whitelist;file|")


def test_pictures_of_a_camera_are_held_to_the_limit_on_pixels(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.ts").read_bytes()
    with rtsp_camera(clip) as address:
        camera = Camera(f"rtsp://{address}/", picture=PICTURE, limits=Limits(max_pixels=96 * 64 - 1))
        with pytest.raises(TooManyPixels), camera:
            pass


def test_a_camera_that_is_not_there_is_said_without_its_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(SourceNotFound) as caught, Camera(f"rtsp://me:secret@{address}/door", picture=PICTURE):
        pass
    assert str(caught.value) == f"no picture comes from rtsp://{address}/door: it is not there, or does not answer"


def test_a_camera_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"rtsp://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(SourceNotFound), Camera(url, picture=PICTURE, timeout_seconds=0.5):
            pass


@pytest.mark.parametrize("number", ["97", "99999999999"])
def test_a_number_without_a_camera_is_said(number: str) -> None:
    with pytest.raises(SourceNotFound, match=f"from camera {number}:"), Camera(number, picture=PICTURE):
        pass


@pytest.mark.parametrize("scheme", ["http", "https", "file", "ftp", "udp", "RTMP", "tcp"])
def test_no_other_url_is_opened(scheme: str) -> None:
    with pytest.raises(OptionError, match=f"{scheme}://127.0.0.1/a is no camera: of URLs, only rtsp:// and rtsps://"):
        Camera(f"{scheme}://user:secret@127.0.0.1/a", picture=PICTURE)


@pytest.mark.parametrize("source", ["concat:clip.mp4", "pipe:0", "rtsp:clip.mp4", "data:video/mp4;base64,AAAA"])
def test_what_is_no_url_is_only_the_name_of_a_file(source: str) -> None:
    with pytest.raises(SourceNotFound, match="cannot be opened"), Camera(source, picture=PICTURE):
        pass


def test_a_codec_that_is_not_on_the_list_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", codec="ffv1")
    with pytest.raises(UnsupportedCodec), Camera(str(path), picture=PICTURE):
        pass


def test_no_service_can_open_a_camera() -> None:
    users = [path.name for path in (ROOT / "serving").glob("*.py") if "camera" in path.read_text()]
    assert users == []


# What is drawn


def decoded(path: Path) -> list[Pixels]:
    with Reader(path, picture=Picture(size=64)) as reader:
        return [frame.pixels_HWC for frame in reader.frames(lambda _: Verdict.TAKE)]


@pytest.mark.parametrize("name", ["seen.mp4", "seen.mkv"])
def test_what_is_drawn_can_be_played(name: str, tmp_path: Path) -> None:
    with Annotated(tmp_path / name, frames_per_second=10) as annotated:
        assert all(annotated.draw(paint(number, height=64, width=256), ["up"]) for number in range(5))
    assert [read(pixels_HWC) for pixels_HWC in decoded(tmp_path / name)] == [0, 1, 2, 3, 4]


def test_the_lines_are_drawn_on_a_copy(tmp_path: Path) -> None:
    grey_HWC = np.full((240, 320, 3), 128, dtype=np.uint8)
    with Annotated(tmp_path / "seen.mp4", frames_per_second=10) as annotated:
        annotated.draw(grey_HWC, [])
        annotated.draw(grey_HWC, ["push_up 0.98", "squat 0.01"])
    with Reader(tmp_path / "seen.mp4", picture=PICTURE) as reader:
        (without, _), (with_lines, _) = reader.pictures(lambda _: Verdict.TAKE)
    assert (grey_HWC == 128).all()
    assert without.max() < 150 and with_lines[:60].max() > 200 and with_lines[120:].max() < 150


def test_a_name_that_looks_like_a_place_to_send_to_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Annotated(Path("tcp:127.0.0.1:9.mp4"), frames_per_second=10) as annotated:
        annotated.draw(paint(1), [])
    assert os.listdir(tmp_path) == ["tcp:127.0.0.1:9.mp4"]


def test_a_file_that_cannot_be_written_and_a_suffix_that_is_not_known_are_said(tmp_path: Path) -> None:
    absent = tmp_path / "absent" / "seen.mp4"
    with pytest.raises(OptionError, match="cannot be written"), Annotated(absent, frames_per_second=10) as annotated:
        annotated.draw(paint(1), [])
    with pytest.raises(OptionError, match=r"does not end in one of \.mp4, \.mkv"):
        Annotated(tmp_path / "seen.gif", frames_per_second=10)


def test_without_a_display_a_window_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OptionError, match="there is no display here"):
        Annotated(None, frames_per_second=10)
