"""Frames from a camera, an RTSP stream or a file on the person's own machine, as they come.

Knows nothing of models. It is the one door that opens a URL, and only rtsp:// and rtsps://; no service uses it.

Shape letters: H height, W width, C channels (blue, green, red).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Self

import cv2

from vidseq.config import Limits, Picture
from vidseq.decoder import CODEC_WHITELIST, Pixels, codec_of, fit, header_of, retrieved, set_up_ffmpeg
from vidseq.errors import OptionError, SourceLost, SourceNotFound, TooManyPixels
from vidseq.video import Frame, Reader, Verdict

# Pictures come over the connection that asked for them (tcp), so that no port has to be opened for them.
RTSP_OPTIONS = f"protocol_whitelist;tcp,tls|format_whitelist;rtsp|rtsp_transport;tcp|{CODEC_WHITELIST}"
RTSP_SCHEMES = ("rtsp://", "rtsps://")
USUAL_FRAMES_PER_SECOND = 25.0  # where a source does not say how many it has


@dataclass(frozen=True, eq=False)
class CameraFrame:
    """One picture as it came, pixels_HWC uint8, and when: `seconds` since a camera's first, or the file's own."""

    pixels_HWC: Pixels
    seconds: float
    picture: Picture

    @cached_property
    def fitted(self) -> Frame:
        """What the model sees of it."""
        return Frame(fit(self.pixels_HWC, self.picture), self.seconds)


class Camera:
    """A source of pictures, open for one pass.

        with Camera("rtsp://camera.local/door", picture=picture) as camera:
            for frame in camera.frames(): ...

    The source is the number of a camera ("0"), an RTSP URL, or a path. A file has timestamps of its own; pictures of a
    camera have the time at which they came. `frames_per_second` is what the source says of itself, or 25.

    Entering raises SourceNotFound (no such camera, no answer within `timeout_seconds`), OptionError (a URL of another
    kind), UnsupportedCodec, TooManyPixels, and for a file whatever Reader raises.
    """

    def __init__(
        self, source: str, *, picture: Picture, limits: Limits = Limits(), timeout_seconds: float = 10.0
    ) -> None:
        self._picture = picture
        self._opened: Reader | _Live
        if source.isdecimal() or source.startswith(RTSP_SCHEMES):
            self._opened = _Live(source, max_pixels=limits.max_pixels, timeout_seconds=timeout_seconds)
        elif "://" in source:
            raise OptionError(
                f"{_without_password(source)} is no camera: of URLs, only rtsp:// and rtsps:// are opened"
            )
        else:
            self._opened = Reader(source, picture=picture, limits=limits)

    def __enter__(self) -> Self:
        self._opened.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    @property
    def file(self) -> Reader | None:
        """The Reader of a file, whose pictures come when they are asked for; None for a camera: it waits for nobody."""
        return None if isinstance(self._opened, _Live) else self._opened

    @property
    def frames_per_second(self) -> float:
        if isinstance(self._opened, _Live):
            return self._opened.frames_per_second
        report = self._opened.report()
        if report.duration_seconds is None or report.frames_declared is None:
            return USUAL_FRAMES_PER_SECOND
        return report.frames_declared / report.duration_seconds

    def frames(self) -> Iterator[CameraFrame]:
        """Ends with a file.

        Raises SourceLost where a camera sends no more, UndecodableVideo for a damaged picture of it; for a file as
        Reader.frames.
        """
        for pixels_HWC, seconds in self._opened.pictures(lambda _: Verdict.TAKE):
            yield CameraFrame(pixels_HWC, seconds, self._picture)


class _Live:
    """A camera, asked as a Reader is."""

    def __init__(self, source: str, *, max_pixels: int, timeout_seconds: float) -> None:
        self._source = source
        self._shown = _without_password(source)
        self._max_pixels = max_pixels
        self._timeout_milliseconds = round(timeout_seconds * 1000)
        self._capture: cv2.VideoCapture | None = None
        self.frames_per_second = USUAL_FRAMES_PER_SECOND

    def __enter__(self) -> Self:
        set_up_ffmpeg(RTSP_OPTIONS)
        if self._source.isdecimal():
            number = min(int(self._source), 2**31 - 1)  # all that OpenCV can count: there is no such camera either
            self._capture = cv2.VideoCapture(number, cv2.CAP_ANY)
            self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # where that is possible: no old pictures in a queue
        else:
            timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC]
            settings = [number for timeout in timeouts for number in (timeout, self._timeout_milliseconds)]
            self._capture = cv2.VideoCapture(self._source, cv2.CAP_FFMPEG, settings)
        try:
            self._gate(self._capture)
        except BaseException:
            self.close()
            raise
        return self

    def _gate(self, capture: cv2.VideoCapture) -> None:
        if not capture.isOpened():
            raise SourceNotFound(f"no picture comes from {self._shown}: it is not there, or does not answer")
        header = header_of(capture)
        if not self._source.isdecimal():
            codec_of(header.four_letters)
        if header.width * header.height > self._max_pixels:
            raise TooManyPixels(header.width * header.height, self._max_pixels)
        if 1 <= header.frames_per_second <= 240:
            self.frames_per_second = header.frames_per_second

    def pictures(self, want: Callable[[float], Verdict]) -> Iterator[tuple[Pixels, float]]:
        assert self._capture is not None, "a Camera is used within its with block"
        first_seconds: float | None = None
        while self._capture.grab():
            now_seconds = time.monotonic()
            first_seconds = now_seconds if first_seconds is None else first_seconds
            verdict = want(now_seconds - first_seconds)
            if verdict is Verdict.STOP:
                return
            if verdict is Verdict.TAKE:
                yield retrieved(self._capture), now_seconds - first_seconds
        raise SourceLost(f"no more pictures come from {self._shown}: it was switched off, or the connection was lost")

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def _without_password(source: str) -> str:
    """A source as it may be shown: cameras have their password in the URL."""
    if source.isdecimal():
        return f"camera {source}"
    scheme, _, rest = source.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}://{place.rpartition('@')[2]}{slash}{path}"
