"""What is written and drawn on pictures, into a new video or a window. Knows nothing of where they come from.

Shape letters: H height, W width, C channels (blue, green, red, as OpenCV draws them).
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2

from vidseq.decoder import Pixels
from vidseq.errors import OptionError

VIDEO_SUFFIXES = (".mp4", ".mkv")
WINDOW = "vidseq"
# Paul Tol's bright scheme, as vidseq.timeline has it, in the order of OpenCV.
COLOURS_BGR = ((170, 119, 68), (119, 102, 238), (51, 136, 34), (68, 187, 204), (238, 204, 102), (119, 51, 170))

Ribbon = Sequence[tuple[float, float, int]]  # spans as shares of a length, 0 to 1, and the number of a colour


def refuse_place(path: Path, *, source: Path | None = None) -> None:
    """Raises OptionError: no video can be written there, or it would take the place of its source."""
    if path.suffix not in VIDEO_SUFFIXES:
        raise OptionError(f"{path} does not end in one of {', '.join(VIDEO_SUFFIXES)}")
    if source is not None and not path.parent.is_dir():
        raise OptionError(f"there is no folder {str(path.parent)!r} to write {path.name!r} to")
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise OptionError(f"{str(path)!r} is the clip itself, and would be overwritten")


class Annotated:
    """Pictures with lines of text on them: in a new video file, or in a window where `path` is None.

        with Annotated(Path("seen.mp4"), frames_per_second=25) as annotated:
            going_on = annotated.draw(frame.pixels_HWC, ["push_up 0.98"])

    A file plays each picture for as long as the next (MPEG-4 in .mp4 or .mkv). Text is drawn in ASCII.
    Raises OptionError: another suffix, a file that cannot be written, no display to show a window on.
    """

    def __init__(self, path: Path | None, *, frames_per_second: float) -> None:
        if path is not None:
            refuse_place(path)
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

    def draw(self, pixels_HWC: Pixels, lines: Sequence[str], ribbon: Ribbon | None = None, at: float = 0.0) -> bool:
        """One more picture [H, W, C] in blue, green, red. False: the person has closed the window, or pressed q.

        Args:
            lines: written from the top left corner down.
            ribbon: drawn along the bottom, with a mark at the share `at` of its length.
        """
        drawn_HWC = _with_text(pixels_HWC, lines)
        if ribbon is not None:
            _draw_ribbon(drawn_HWC, ribbon, at)
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


def _draw_ribbon(pixels_HWC: Pixels, ribbon: Ribbon, at: float) -> None:
    """Into the picture: a stripe of the clip's whole length, dark where nothing is said."""
    height, width, _ = pixels_HWC.shape
    top = height - max(4, height // 24)
    pixels_HWC[top:] //= 4
    for begin, end, number in ribbon:
        left, right = round(begin * width), max(round(begin * width) + 1, round(end * width))
        pixels_HWC[top + 1 :, left:right] = COLOURS_BGR[number % len(COLOURS_BGR)]
    mark = min(width - 1, round(at * width))
    pixels_HWC[top - 2 :, max(0, mark - 1) : mark + 1] = 255


def _has_display() -> bool:
    """Tried out in a process of its own: where there is no display, Qt ends the process that asks it for a window."""
    program = f"import cv2; cv2.namedWindow({WINDOW!r}); cv2.waitKey(1); cv2.destroyAllWindows()"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0
