"""Bytes in, timed frames out: the one place that decodes. Knows nothing of sampling rates, models or tensors.

    source -> sniffed, opened, gated -> grab every frame -> want(seconds)? -> retrieve, resize once -> Frame

Shape letters: H height, W width, C channels (red, green, blue).
"""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt

from vidseq import schemas
from vidseq.config import Limits, Picture
from vidseq.container import Source, open_source
from vidseq.errors import NoVideoStream, UndecodableVideo, UnsupportedCodec, VideoError
from vidseq.incoming import Incoming, Opened, look_at
from vidseq.mp4 import Index
from vidseq.tally import Declared, Tally

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
CAPTURE_OPTIONS = (
    f"protocol_whitelist;file|format_whitelist;mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts|{CODEC_WHITELIST}"
)

MID_GREY = 128
LONGEST_PLAUSIBLE_SECONDS = 31 * 24 * 3600.0  # longer than this is nonsense in a header


class Verdict(Enum):
    """What to do with the frame that has just been decoded."""

    TAKE = "take"
    SKIP = "skip"
    STOP = "stop"


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of the model's size, pixels_HWC [size, size, 3] uint8, and its own timestamp in the video."""

    pixels_HWC: Pixels
    seconds: float

    def __repr__(self) -> str:
        return f"Frame({'x'.join(map(str, self.pixels_HWC.shape))} at {self.seconds:.3f} s)"


class Reader:
    """A video, open for one pass.

        with Reader(source, picture=picture) as reader:
            for frame in reader.frames(want): ...
            reader.report()

    The source is a path, bytes, a binary file, or an Incoming whose bytes are still arriving: frames and timestamps
    are the same. Memory does not grow with the length of the video, and nothing is left behind: no file, no
    descriptor, no decoder.

    Entering raises SourceNotFound, EmptyVideo, TooManyBytes, UnsupportedContainer, NoVideoStream, UndecodableVideo,
    UnsupportedCodec, TooManyPixels, all before the first frame is decoded. With an Incoming it blocks until so much
    has arrived that the decoder can begin.
    """

    def __init__(self, source: Source | Incoming, *, picture: Picture, limits: Limits = Limits()) -> None:
        self._source = source
        self._picture = picture
        self._limits = limits
        self._fd = -1
        self._decoder: Decoder | None = None

    def __enter__(self) -> Self:
        try:
            opened = self._open()
            if opened.index is not None and opened.index.encrypted:  # a decoder may make pictures of the noise
                raise UndecodableVideo("the video is encrypted")
            self._decoder = Decoder(self._fd, arriving=opened.arriving)
            self._check_incoming()
            if not self._decoder.opened:
                raise _why_not_opened(opened.index)
            self._container = opened.container
            self._declared = _declared(self._decoder.header(), opened)
            self._tally = Tally(self._declared, self._limits)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> Opened:
        if isinstance(self._source, Incoming):
            opened = self._source.open()
            self._fd = opened.fd
            return opened
        self._fd = open_source(self._source, max_bytes=self._limits.max_bytes)
        return look_at(self._fd)

    def _check_incoming(self) -> None:
        if isinstance(self._source, Incoming):
            self._source.check()

    def close(self) -> None:
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def frames(self, want: Callable[[float], Verdict]) -> Iterator[Frame]:
        """Decodes every frame, asks `want(seconds)` about each, and converts and resizes only those to be taken.

        Raises TooManyFrames, TooManySeconds, TooManyDecodedBytes, and UndecodableVideo if there is no frame at all;
        of an Incoming also TooManyBytes, and UndecodableVideo once it was aborted.
        """
        for pixels_HWC, seconds in self.pictures(want):
            yield Frame(fit(pixels_HWC, self._picture), seconds)

    def pictures(self, want: Callable[[float], Verdict]) -> Iterator[tuple[Pixels, float]]:
        """As `frames`, but whole: upright, [H, W, C] with C blue, green, red; and the timestamp of each."""
        assert self._decoder is not None, "a Reader is used within its with block"
        assert self._tally.num_frames == 0, "a Reader reads once"
        while (seconds := self._decoder.grab()) is not None:
            self._check_incoming()
            self._tally.count(seconds)
            verdict = want(seconds)
            if verdict is Verdict.STOP:
                self._tally.stopped = True
                return
            if verdict is Verdict.TAKE:
                yield self._decoder.retrieve(), seconds
        self._check_incoming()
        self._tally.ended = True
        if self._tally.num_frames == 0:
            raise UndecodableVideo(
                f"no frame of the {self._declared.codec} video could be decoded: it is damaged, cut short or encrypted"
            )

    @property
    def seen_until(self) -> float | None:
        """When the last decoded frame ends, if it is shown for as long as the others were on average."""
        return self._tally.seen_until

    def report(self) -> schemas.VideoReport:
        """What the file declares and what was found; before frames() has ended, what was found so far."""
        return schemas.VideoReport(
            width=self._declared.width,
            height=self._declared.height,
            codec=self._declared.codec,
            container=self._container,
            duration_seconds=self._declared.duration_seconds,
            frames_declared=self._declared.num_frames,
            frames_decoded=self._tally.num_frames,
            complete=self._tally.complete,
            warnings=self._tally.warnings,
        )


def _declared(header: "Header", opened: Opened) -> Declared:
    """Of header fields, which may be anything, those that make sense. Raises UnsupportedCodec."""
    codec = codec_of(header.four_letters)
    counted_seconds = _plausible(header.num_frames / header.frames_per_second if header.frames_per_second else 0.0)
    # OpenCV guesses the rate where frames come irregularly, so an MP4's own duration goes before count / rate.
    shown_seconds = _plausible(opened.index.duration_seconds) if opened.index is not None else None
    if opened.arriving and opened.index is not None and shown_seconds is None:
        counted_seconds = None  # the index of a fragmented MP4 is empty: what was counted is the first fragments
    return Declared(
        width=int(header.width),
        height=int(header.height),
        codec=codec,
        duration_seconds=shown_seconds or counted_seconds,
        num_frames=int(header.num_frames) if counted_seconds else None,
    )


def codec_of(four_letters: str) -> str:
    """The codec's name. Raises UnsupportedCodec."""
    if four_letters not in CODECS:
        raise UnsupportedCodec(f"the codec {four_letters!r} is not one of {', '.join(sorted(CODECS.values()))}")
    return CODECS[four_letters]


def _plausible(seconds: float) -> float | None:
    return seconds if 0 < seconds <= LONGEST_PLAUSIBLE_SECONDS else None


def _why_not_opened(index: Index | None) -> VideoError:
    if index is None:
        return NoVideoStream("no video was found in the file: it holds only sound, is cut short or is damaged")
    if not index.found:
        return UndecodableVideo("the file has no index (moov): it is cut short, or damaged before it")
    if b"vide" not in index.handlers:
        return NoVideoStream("the file holds no video" + (", only sound" if b"soun" in index.handlers else ""))
    return UndecodableVideo("the video track cannot be opened: its codec is unknown, or the index is damaged")


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


class Decoder:
    """OpenCV's capture on one open file: a descriptor in, numbers and pixels out.

    This is the seam. Everything that parses hostile bytes happens in here, and what crosses is plain data, so that it
    can move into a sandboxed child process and nothing above it will notice. Until then one thing is unbounded: a
    stream whose frames grow after the header has been gated (OpenCV scales them to the size at the start, but FFmpeg
    has decoded them by then).
    """

    def __init__(self, fd: int, *, arriving: bool = False) -> None:
        """Reads the header; see `opened`. For this process, sets FFmpeg's allow-lists and silences OpenCV's log.

        With `arriving`, `fd` is a pipe, and whoever fills it may take any time.
        """
        set_up_ffmpeg(CAPTURE_OPTIONS)
        # More threads cost a fifth more CPU time; many clips at once are what fills a machine.
        settings = [cv2.CAP_PROP_N_THREADS, 1]
        if arriving:  # 0: none; by default a pause of 30 s ends the video, without a word
            settings += [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 0, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 0]
        self._capture = cv2.VideoCapture(f"/proc/self/fd/{fd}", cv2.CAP_FFMPEG, settings)
        self.opened = self._capture.isOpened()
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # upright, and width and height as displayed

    def header(self) -> Header:
        """Decodes nothing."""
        fourcc = int(self._number(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
        return Header(
            width=self._number(cv2.CAP_PROP_FRAME_WIDTH),
            height=self._number(cv2.CAP_PROP_FRAME_HEIGHT),
            four_letters=fourcc.to_bytes(4, "little").decode("latin-1"),
            num_frames=self._number(cv2.CAP_PROP_FRAME_COUNT),
            frames_per_second=self._number(cv2.CAP_PROP_FPS),
        )

    def grab(self) -> float | None:
        """Decodes the next frame and returns its timestamp in seconds; None where decoding ended."""
        return self._number(cv2.CAP_PROP_POS_MSEC) / 1000 if self._capture.grab() else None

    def retrieve(self) -> Pixels:
        """The frame last grabbed, upright, [H, W, C] with C blue, green, red. Raises UndecodableVideo."""
        retrieved, pixels_HWC = self._capture.retrieve()
        if not retrieved:
            raise UndecodableVideo("a frame was decoded but cannot be converted to pixels")
        return np.asarray(pixels_HWC, dtype=np.uint8)

    def close(self) -> None:
        self._capture.release()

    def _number(self, prop: int) -> float:
        value = self._capture.get(prop)
        return value if math.isfinite(value) else 0.0


def fit(pixels_HWC: Pixels, picture: Picture) -> Pixels:
    """From [H, W, C] in blue, green, red to [size, size, C] in red, green, blue, by one resize.

    'crop' cuts out the centre square and resizes that: what resizing the shorter side and cutting afterwards gives
    (up to the half pixel to which that cut is rounded), for less work. 'letterbox' centres the whole frame on grey.
    """
    height, width, _ = pixels_HWC.shape
    size = picture.size
    if picture.fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        small_HWC = _resize(pixels_HWC[top : top + side, left : left + side], height=size, width=size)
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
