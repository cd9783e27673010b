"""A folder of pictures as a video without times of its own. Knows no video files."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from vidseq.config import Limits, Picture
from vidseq.decoder import Pixels, fit
from vidseq.errors import EmptyVideo, TooManyFrames, UndecodablePicture
from vidseq.pictures import decode_file
from vidseq.video import Frame, Verdict

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
        """Reads only the pictures to be taken. Raises UndecodablePicture, TooManyPixels."""
        for index, path in enumerate(self._paths):
            seconds = index / FRAMES_PER_SECOND
            verdict = want(seconds)
            if verdict is Verdict.STOP:
                return
            if verdict is Verdict.TAKE:
                yield Frame(fit(_read(path, max_pixels=self._limits.max_pixels), self._picture), seconds)


def picture_paths(folder: Path) -> list[Path]:
    """The pictures of a folder by name, numbers in it by value: frame2 comes before frame10."""
    paths = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    return sorted((path for path in paths if path.is_file()), key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _read(path: Path, *, max_pixels: int) -> Pixels:
    try:
        with path.open("rb") as file:
            return decode_file(file, str(path), max_pixels=max_pixels)
    except OSError as error:
        raise UndecodablePicture(f"{path} cannot be read: {error.strerror}") from None
