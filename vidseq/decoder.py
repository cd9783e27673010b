"""OpenCV, for reading: an open file becomes numbers and pixels, pixels become a square. Knows no clocks and no limits.

Shape letters: H height, W width, C channels (blue, green, red, as OpenCV gives them).
"""

import ctypes
import math
import os
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt

from vidseq.config import Picture
from vidseq.errors import UndecodableVideo, UnsupportedCodec

Pixels = npt.NDArray[np.uint8]

# The four letters are OpenCV's, made from FFmpeg's codec id: they name the decoder, whatever the file calls itself.
CODECS = {
    "h264": "h264",
    "hevc": "hevc",
    "vvc1": "vvc",
    "AV01": "av1",
    "VP80": "vp8",
    "VP90": "vp9",
    "FMP4": "mpeg4",
    "mpg1": "mpeg1video",
    "mpg2": "mpeg2video",
    "MJPG": "mjpeg",
    "h263": "h263",
}

# Without the first two, a text file named clip.mp4 makes FFmpeg open its neighbours and network addresses. The third
# binds the decoders that FFmpeg tries while it opens a file; the one that OpenCV feeds afterwards is bound by CODECS.
CODEC_WHITELIST = (
    "codec_whitelist;h264,hevc,vvc,libdav1d,av1,vp8,libvpx,vp9,libvpx-vp9,mpeg4,mpeg1video,mpeg2video,mjpeg,h263"
)
FORMAT_WHITELIST = "format_whitelist;mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts"
CAPTURE_OPTIONS = f"protocol_whitelist;file|{FORMAT_WHITELIST}|{CODEC_WHITELIST}"
# Of standard input, without opening anything: not even its own name in /proc.
STANDARD_INPUT, STANDARD_INPUT_OPTIONS = "fd:", f"protocol_whitelist;fd|{FORMAT_WHITELIST}|{CODEC_WHITELIST}"

MID_GREY = 128
_LINE_BUFFERED = 1  # _IOLBF of stdio.h


def codec_of(four_letters: str) -> str:
    """The codec's name. Raises UnsupportedCodec."""
    if four_letters not in CODECS:
        raise UnsupportedCodec(f"the codec {four_letters!r} is not one of {', '.join(sorted(CODECS.values()))}")
    return CODECS[four_letters]


@dataclass(frozen=True)
class Header:
    """The stream's header as OpenCV gives it: any number may be 0, negative, or wrong by orders of magnitude."""

    width: float
    height: float
    four_letters: str
    num_frames: float
    frames_per_second: float


def set_up_ffmpeg(options: str) -> None:
    """For this process: what the FFmpeg inside OpenCV may do from now on, and nothing of it on the terminal."""
    if os.environ.get("OPENCV_FFMPEG_CAPTURE_OPTIONS") != options:  # not each time: setenv races getenv
        os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = options
    # What is wrong with a file is said by errors and by the report, not on somebody's terminal.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def be_forked() -> None:
    """For this process, before it forks: no threads, which a child would wait for, and no words held in a buffer."""
    cv2.setNumThreads(1)
    libc = ctypes.CDLL(None)
    libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, _LINE_BUFFERED, ctypes.c_size_t(0))


class Decoder:
    """OpenCV's capture on one open file: a descriptor in, numbers and pixels out.

    This is the seam. Everything that parses hostile bytes happens in here, and what crosses is plain data, so that a
    child process that can do nothing else runs it as well: vidseq.sandbox. In this process one thing is unbounded: a
    stream whose frames grow after the header has been gated (OpenCV scales them to the size at the start, but FFmpeg
    has decoded them by then).
    """

    # What the decoder said of the file: nothing in this process, where it is silenced.
    warnings: tuple[str, ...] = ()
    # By how much later the file says that its first frame is: OpenCV counts from that one. To a frame; None before it.
    lead_seconds: float | None = None

    def __init__(self, fd: int, *, arriving: bool = False) -> None:
        """Reads the header; see `opened`. For this process, sets FFmpeg's allow-lists and silences OpenCV's log.

        With `arriving`, `fd` is a pipe, and whoever fills it may take any time.
        """
        self._open(f"/proc/self/fd/{fd}", CAPTURE_OPTIONS, arriving=arriving)

    @classmethod
    def of_standard_input(cls, *, arriving: bool = False) -> Self:
        """The same of descriptor 0, from where it stands; needs no file system."""
        decoder = cls.__new__(cls)
        decoder._open(STANDARD_INPUT, STANDARD_INPUT_OPTIONS, arriving=arriving)
        return decoder

    def _open(self, url: str, options: str, *, arriving: bool) -> None:
        set_up_ffmpeg(options)
        # More threads cost a fifth more CPU time; many clips at once are what fills a machine.
        settings = [cv2.CAP_PROP_N_THREADS, 1]
        if arriving:  # 0: none; by default a pause of 30 s ends the video, without a word
            settings += [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 0, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 0]
        self._capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, settings)
        self.opened = self._capture.isOpened()
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # upright, and width and height as displayed

    def header(self) -> Header:
        """Decodes nothing."""
        return header_of(self._capture)

    def grab(self, picture: Picture | None, not_before: float | None) -> tuple[float, ...]:
        """Decodes the next frame and returns its timestamp in seconds; () where decoding ended.

        The arguments are for a decoder that is worth telling ahead what will be asked of it: BoxedDecoder.
        """
        if not self._capture.grab():
            return ()
        seconds = _number(self._capture, cv2.CAP_PROP_POS_MSEC) / 1000
        if self.lead_seconds is None:
            self.lead_seconds = self._lead_seconds(seconds)
        return (seconds,)

    def _lead_seconds(self, seconds: float) -> float:
        frames_per_second = _number(self._capture, cv2.CAP_PROP_FPS)
        if frames_per_second <= 0:
            return 0.0
        return max(0.0, _number(self._capture, cv2.CAP_PROP_PTS) / frames_per_second - seconds)

    def picture(self, picture: Picture | None, not_before: float | None) -> Pixels:
        """The frame last grabbed, upright: fitted to [size, size, C] in red, green, blue; or, with None, whole,
        [H, W, C] in blue, green, red. Raises UndecodableVideo."""
        pixels_HWC = retrieved(self._capture)
        return pixels_HWC if picture is None else fit(pixels_HWC, picture)

    def close(self) -> None:
        self._capture.release()


def header_of(capture: cv2.VideoCapture) -> Header:
    """Of an open capture."""
    fourcc = int(_number(capture, cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    return Header(
        width=_number(capture, cv2.CAP_PROP_FRAME_WIDTH),
        height=_number(capture, cv2.CAP_PROP_FRAME_HEIGHT),
        four_letters=fourcc.to_bytes(4, "little").decode("latin-1"),
        num_frames=_number(capture, cv2.CAP_PROP_FRAME_COUNT),
        frames_per_second=_number(capture, cv2.CAP_PROP_FPS),
    )


def _number(capture: cv2.VideoCapture, prop: int) -> float:
    value = capture.get(prop)
    return value if math.isfinite(value) else 0.0


def retrieved(capture: cv2.VideoCapture) -> Pixels:
    """The frame last grabbed, [H, W, C]. Raises UndecodableVideo."""
    is_one, pixels_HWC = capture.retrieve()
    if not is_one:
        raise UndecodableVideo("a frame was decoded but cannot be converted to pixels")
    return np.asarray(pixels_HWC, dtype=np.uint8)


def fit(pixels_HWC: Pixels, picture: Picture) -> Pixels:
    """From [H, W, C] in blue, green, red to [size, size, C] in red, green, blue, by one resize.

    'crop' cuts out the centre square and resizes that: what resizing the shorter side and cutting afterwards gives
    (up to the half pixel to which that cut is rounded), for less work. 'letterbox' centres the whole frame on grey,
    'stretch' makes a square of it: no pixel is lost or wasted, and proportions change.
    """
    height, width, _ = pixels_HWC.shape
    size = picture.size
    if picture.fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        small_HWC = _resize(pixels_HWC[top : top + side, left : left + side], height=size, width=size)
    elif picture.fit == "stretch":
        small_HWC = _resize(pixels_HWC, height=size, width=size)
    else:
        scale = size / max(height, width)
        inner_height, inner_width = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = (size - inner_height) // 2, (size - inner_width) // 2
        small_HWC = np.full((size, size, 3), MID_GREY, dtype=np.uint8)
        inner_HWC = _resize(pixels_HWC, height=inner_height, width=inner_width)
        small_HWC[top : top + inner_height, left : left + inner_width] = inner_HWC
    return np.asarray(cv2.cvtColor(small_HWC, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _resize(pixels_HWC: Pixels, *, height: int, width: int) -> Pixels:
    # INTER_AREA averages all it merges, so that nothing shimmers; for enlarging it would paint blocks.
    interpolation = cv2.INTER_AREA if height * width < pixels_HWC.shape[0] * pixels_HWC.shape[1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels_HWC, (width, height), interpolation=interpolation), dtype=np.uint8)
