"""Pictures: from the bytes of one, and a folder of them as a video without times of its own. Knows no video files.

Shape letters: H height, W width, C channels (red, green, blue).
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from vidseq.config import Limits, Picture
from vidseq.decoder import Pixels, fit
from vidseq.errors import EmptyVideo, OptionError, TooManyFrames, TooManyPixels, UndecodablePicture, VideoError
from vidseq.video import Frame, Verdict

SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
FORMATS = ("JPEG", "PNG", "WEBP")  # the only parsers that outside bytes reach
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


def decode_picture(data: bytes, *, max_pixels: int) -> Pixels:
    """The picture in the bytes of a JPEG, PNG or WebP: upright, [H, W, C] in blue, green, red, as `fit` takes it.

    Of an animation the first frame; of 16 bits the upper 8; grey becomes three equal channels. Transparency is left
    out: the colours are what is stored under it. Raises UndecodablePicture, and TooManyPixels before it decodes.
    """
    return _decode(io.BytesIO(data), "the picture", max_pixels=max_pixels)


def raw_picture(data: bytes, *, width: int, height: int) -> Pixels:
    """[H, W, C] in blue, green, red from the bytes of rows of red, green, blue. Raises OptionError."""
    if width < 1 or height < 1:
        raise OptionError(f"a picture of {width} x {height} pixels has no pixel")
    if len(data) != width * height * 3:
        expected = f"{width} x {height} pixels of red, green and blue are {width * height * 3:,} bytes"
        raise OptionError(f"{expected}; {len(data):,} came")
    return np.frombuffer(data, dtype=np.uint8).reshape(height, width, 3)[:, :, ::-1]


def _read(path: Path, *, max_pixels: int) -> Pixels:
    try:
        with path.open("rb") as file:
            return _decode(file, str(path), max_pixels=max_pixels)
    except OSError as error:
        raise UndecodablePicture(f"{path} cannot be read: {error.strerror}") from None


def _decode(file: IO[bytes], name: str, *, max_pixels: int) -> Pixels:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is said below
            picture = Image.open(file, formats=FORMATS)
        with picture:
            if picture.width * picture.height > max_pixels:
                raise TooManyPixels(picture.width * picture.height, max_pixels)
            upright = ImageOps.exif_transpose(picture)
            if upright.mode.startswith("I"):  # grey of 16 bits, which convert() would clip at 255
                grey_HW = (np.asarray(upright) >> 8).astype(np.uint8)
                return np.repeat(grey_HW[:, :, None], 3, axis=2)
            return np.asarray(upright.convert("RGB"), dtype=np.uint8)[:, :, ::-1]
    except VideoError:
        raise
    except Exception as error:  # what Pillow's parsers meet in hostile bytes is of any type
        raise UndecodablePicture(f"{name} is not a JPEG, PNG or WebP that can be read") from error
