"""Sampled frames of clips as pixels, decoded once and kept on disk. Knows nothing of models or labels.

A CNN that is trained sees every frame anew in every epoch: decoding must not be paid for each time, and the pixels of
a data set do not fit into memory. 8 frames a second of 224 x 224 pixels take 1.2 MB for each second of video.

Shape letters: T sampled frames, H height, W width, C colour (red, green, blue).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from vidseq.config import Limits, Picture, Sampling
from vidseq.features.hashes import content_hash, joint_hash
from vidseq.features.row_files import read_rows, write_rows
from vidseq.picture_folder import PictureReader
from vidseq.sampling import Clip, FrameSource, sample
from vidseq.video import Reader

VERSION = "1"  # of the way from bytes to pixels: a new resize must not meet old pixels


@dataclass(frozen=True, eq=False)
class ClipPixels:
    """The sampled frames of one clip, uint8, mapped from the file that holds them, and their times."""

    pixels_THWC: NDArray[np.uint8]
    seconds_T: NDArray[np.float64]

    def __post_init__(self) -> None:
        assert self.pixels_THWC.ndim == 4 and self.seconds_T.shape == self.pixels_THWC.shape[:1]

    def __repr__(self) -> str:
        return f"ClipPixels({'x'.join(map(str, self.pixels_THWC.shape))})"


class PixelCache:
    """Clips in, pixels out, each decoded at most once.

    The key of a clip's pixels is the hash of all they depend on: the clip's bytes, the picture and the sampling.

    Args:
        cache: the folder in which pixels are kept; the user's cache folder by default.
    """

    def __init__(
        self, *, picture: Picture, sampling: Sampling, cache: Path | None = None, limits: Limits | None = None
    ) -> None:
        self._picture, self._sampling = picture, sampling
        self._cache = cache or user_cache_path("vidseq") / "pixels"
        self._limits = limits or Limits()
        self._recipe = joint_hash(VERSION, picture.model_dump_json(), sampling.model_dump_json())

    def __call__(self, path: Path) -> ClipPixels:
        """The pixels of one clip, from the cache if they are there.

        Raises:
            VideoError: the clip cannot be decoded.
        """
        kept = self._cache / f"{joint_hash(content_hash(path), self._recipe)}.safetensors"
        found = read_rows(kept, "pixels_THWC", checked=False)
        if found is None:
            clips = _sampled(path, picture=self._picture, sampling=self._sampling, limits=self._limits)
            write_rows(kept, (({"pixels_THWC": clip.pixels_THWC}, clip.seconds_T) for clip in clips))
            found = read_rows(kept, "pixels_THWC", checked=False)
        assert found is not None, f"what was just written to {kept} is gone or damaged"
        return ClipPixels(found.columns["pixels_THWC"], found.seconds_T)


def open_frames(path: Path, *, picture: Picture, limits: Limits) -> AbstractContextManager[FrameSource]:
    """The frames of a video file, or of a folder of pictures.

    Entering raises VideoError: the clip cannot be decoded.
    """
    if path.is_dir():
        return nullcontext(PictureReader(path, picture=picture, limits=limits))
    return Reader(path, picture=picture, limits=limits)


def _sampled(path: Path, *, picture: Picture, sampling: Sampling, limits: Limits) -> Iterator[Clip]:
    with open_frames(path, picture=picture, limits=limits) as reader:
        yield from sample(reader, sampling)
