"""Frames from a camera, an RTSP stream or a file on the person's own machine, as they come; and what is drawn on them.

Knows nothing of models. It is the one door that opens a URL, and only rtsp:// and rtsps://; no service uses it.

Shape letters: H height, W width, C channels (blue, green, red, as OpenCV draws them).
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
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
VIDEO_SUFFIXES = (".mp4", ".mkv")
WINDOW = "vidseq"
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


class Annotated:
    """Pictures with lines of text on them: in a new video file, or in a window where `path` is None.

        with Annotated(Path("seen.mp4"), frames_per_second=25) as annotated:
            going_on = annotated.draw(frame.pixels_HWC, ["push_up 0.98"])

    A file plays each picture for as long as the next (MPEG-4 in .mp4 or .mkv). Text is drawn in ASCII.
    Raises OptionError: another suffix, a file that cannot be written, no display to show a window on.
    """

    def __init__(self, path: Path | None, *, frames_per_second: float) -> None:
        if path is not None and path.suffix not in VIDEO_SUFFIXES:
            raise OptionError(f"{path} does not end in one of {', '.join(VIDEO_SUFFIXES)}")
        if path is None and not _has_display():
            raise OptionError("no window can be shown: there is no display here; write a file instead")
        self._path = path
        self._frames_per_second = frames_per_second
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.release()
        if self._path is None:
            cv2.destroyAllWindows()

    def draw(self, pixels_HWC: Pixels, lines: Sequence[str]) -> bool:
        """One more picture [H, W, C] in blue, green, red. False: the person has closed the window, or pressed q."""
        drawn_HWC = _with_text(pixels_HWC, lines)
        if self._path is None:
            cv2.imshow(WINDOW, drawn_HWC)
            pressed = cv2.waitKey(1) & 0xFF
            return pressed != ord("q") and cv2.getWindowProperty(WINDOW, cv2.WND_PROP_VISIBLE) > 0
        if self._writer is None:
            self._writer = self._open_writer(self._path, drawn_HWC)
        self._writer.write(drawn_HWC)
        return True

    def _open_writer(self, path: Path, pixels_HWC: Pixels) -> cv2.VideoWriter:
        height, width, _ = pixels_HWC.shape
        fourcc = cv2.VideoWriter.fourcc(*"mp4v")
        # An absolute path: FFmpeg would take a name like tcp:8.8.8.8.mp4 for a place to send to.
        name = os.path.abspath(path)
        writer = cv2.VideoWriter(name, cv2.CAP_FFMPEG, fourcc, self._frames_per_second, (width, height))
        if not writer.isOpened():
            raise OptionError(f"{path} cannot be written")
        return writer


def _with_text(pixels_HWC: Pixels, lines: Sequence[str]) -> Pixels:
    """A copy with white lines, edged in black, from the top left corner down."""
    drawn_HWC = pixels_HWC.copy()
    scale = max(0.4, pixels_HWC.shape[0] / 600)
    for number, line in enumerate(lines, start=1):
        corner = (round(10 * scale), round(30 * scale * number))
        for colour, thickness in (((0, 0, 0), 4), ((255, 255, 255), 1)):
            weight = max(1, round(thickness * scale))
            cv2.putText(drawn_HWC, line, corner, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, weight, cv2.LINE_AA)
    return drawn_HWC


def _has_display() -> bool:
    """Tried out in a process of its own: where there is no display, Qt ends the process that asks it for a window."""
    program = f"import cv2; cv2.namedWindow({WINDOW!r}); cv2.waitKey(1); cv2.destroyAllWindows()"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0
