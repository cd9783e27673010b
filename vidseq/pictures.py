"""Pictures from their bytes. Knows no video files, and no folders.

Shape letters: H height, W width, C channels (red, green, blue).
"""

import io
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from vidseq.decoder import Pixels
from vidseq.errors import OptionError, TooManyPixels, UndecodablePicture, VideoError

FORMATS = ("JPEG", "PNG", "WEBP")  # the only parsers that outside bytes reach

DecodePicture = Callable[[bytes], Pixels]
"""`decode_picture` under limits that are known, in this process or in another."""


def decode_picture(data: bytes, *, max_pixels: int) -> Pixels:
    """The picture in the bytes of a JPEG, PNG or WebP: upright, [H, W, C] in blue, green, red, as `fit` takes it.

    Of an animation the first frame; of 16 bits the upper 8; grey becomes three equal channels. Transparency is left
    out: the colours are what is stored under it. Raises UndecodablePicture, and TooManyPixels before it decodes.
    """
    return decode_file(io.BytesIO(data), "the picture", max_pixels=max_pixels)


def raw_picture(data: bytes, *, width: int, height: int) -> Pixels:
    """[H, W, C] in blue, green, red from the bytes of rows of red, green, blue. Raises OptionError."""
    if width < 1 or height < 1:
        raise OptionError(f"a picture of {width} x {height} pixels has no pixel")
    if len(data) != width * height * 3:
        expected = f"{width} x {height} pixels of red, green and blue are {width * height * 3:,} bytes"
        raise OptionError(f"{expected}; {len(data):,} came")
    return np.frombuffer(data, dtype=np.uint8).reshape(height, width, 3)[:, :, ::-1]


def decode_file(file: IO[bytes], name: str, *, max_pixels: int) -> Pixels:
    """The same from a file that is called so in errors."""
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


def load_parsers() -> None:
    """All that is loaded when a picture of a format is first decoded, for a process that can open nothing later on."""
    for form in FORMATS:
        encoded = io.BytesIO()
        with suppress(KeyError, OSError):  # a Pillow that was built without it decodes none, either
            Image.new("RGB", (16, 16)).save(encoded, form)
            decode_picture(encoded.getvalue(), max_pixels=256)
