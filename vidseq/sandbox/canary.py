"""A clip of our own whose frames are known, to see whether a decoder works here, and under these limits.

A limit that is too tight makes FFmpeg give no frames and no error; so every frame of this one is counted and looked at.
It was written by `write_frames` of tests/toy_videos.py from `COLOURS`: H.264, 640 x 360 pixels, 10 frames a second.
"""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidseq.config import Picture
from vidseq.decoder import Decoder, Pixels

CLIP = Path(__file__).with_name("canary.mp4")
FRAMES_PER_SECOND = 10
# Of each frame: red, green, blue.
COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40), (40, 200, 200), (200, 40, 200), (120, 120, 120))
_PICTURE = Picture(size=64)
_TOLERANCE = 12  # H.264 does not keep colours exactly


def what_is_wrong(pictures: Sequence[tuple[Pixels, float]]) -> str | None:
    """With what was decoded of the clip: squares [H, W, C] of red, green, blue, and their seconds. None: nothing."""
    if len(pictures) != len(COLOURS):
        return f"{len(pictures)} of its {len(COLOURS)} frames were decoded"
    for index, ((pixels_HWC, seconds), colour) in enumerate(zip(pictures, COLOURS, strict=True)):
        if abs(seconds - index / FRAMES_PER_SECOND) > 0.001:
            return f"frame {index} is at {seconds:.3f} s"
        if np.abs(pixels_HWC.astype(int) - colour).max() > _TOLERANCE:
            return f"frame {index} has the colour {tuple(pixels_HWC.mean(axis=(0, 1)).round())}"
    return None


def decode_here() -> None:
    """In this process, from standard input, which is empty afterwards: what is loaded at the first use is loaded.

    The memory that it took is given back, so that a child's limit is not met by what is left over from here.
    """
    with CLIP.open("rb") as clip:
        os.dup2(clip.fileno(), 0)
    decoder = Decoder.of_standard_input()
    while decoder.grab(None, None):
        decoder.picture(_PICTURE, None)
    decoder.close()
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    del decoder
    ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
