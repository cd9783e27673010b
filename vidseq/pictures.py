"""A folder of pictures as a video: named in order, and without times of its own. Knows nothing of video files.

Shape letters: H height, W width, C channels (red, green, blue).
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from vidseq.config import Limits, Picture
from vidseq.errors import EmptyVideo, TooManyFrames, TooManyPixels, UndecodableVideo
from vidseq.video import Frame, Verdict, fit

SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
FRAMES_PER_SECOND = 25.0  # pictures have no timestamps: this is how fast they are taken to follow one another


class PictureReader:
    """The pictures of one folder in the order of their names, `FRAMES_PER_SECOND` apart; asked as a Reader is."""

    def __init__(self, folder: Path, *, picture: Picture, limits: Limits) -> None:
        self._paths = picture_paths(folder)
        self._picture = picture
        self._limits = limits
        if not self._paths:
            raise EmptyVideo(f"{folder} holds no pictures ({', '.join(sorted(SUFFIXES))})")
        if len(self._paths) > limits.max_frames:
            raise TooManyFrames(len(self._paths), limits.max_frames)

    def frames(self, want: Callable[[float], Verdict]) -> Iterator[Frame]:
        """Reads only the pictures to be taken. Raises UndecodableVideo, TooManyPixels."""
        for index, path in enumerate(self._paths):
            seconds = index / FRAMES_PER_SECOND
            verdict = want(seconds)
            if verdict is Verdict.STOP:
                return
            if verdict is Verdict.TAKE:
                pixels_HWC = cv2.imread(str(path), cv2.IMREAD_COLOR)
                if pixels_HWC is None:
                    raise UndecodableVideo(f"{path} is not a picture that can be read")
                height, width, _ = pixels_HWC.shape
                if height * width > self._limits.max_pixels:
                    raise TooManyPixels(height * width, self._limits.max_pixels)
                yield Frame(fit(np.asarray(pixels_HWC, dtype=np.uint8), self._picture), seconds)


def picture_paths(folder: Path) -> list[Path]:
    """The pictures of a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
