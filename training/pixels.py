"""Sampled frames of clips as pixels, decoded once and kept on disk as memory maps. Knows nothing of models or labels.

A CNN that is trained sees every frame anew in every epoch: decoding must not be paid for each time, and the pixels of
a data set do not fit into memory. 8 frames a second of 224 x 224 pixels take 1.2 MB for each second of video.

Shape letters: T sampled frames, H height, W width, C colour (red, green, blue).
"""

import hashlib
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from vidseq.config import Limits, Picture, Sampling
from vidseq.pictures import PictureReader, picture_paths
from vidseq.sampling import Clip, FrameSource, sample
from vidseq.video import Reader

VERSION = "1"  # of the way from bytes to pixels: a new resize must not meet old pixels


@dataclass(frozen=True, eq=False)
class ClipPixels:
    """The sampled frames of one clip, uint8, as a memory map of the file that holds them, and their times."""

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
        key = joint_hash(content_hash(path), self._recipe)
        pixels_file, seconds_file = self._cache / f"{key}.pixels.npy", self._cache / f"{key}.seconds.npy"
        kept = _read(pixels_file, seconds_file)
        if kept is None:
            self._decode(path, pixels_file, seconds_file)
            kept = _read(pixels_file, seconds_file)
            assert kept is not None, f"{pixels_file} was just written"
        return kept

    def _decode(self, path: Path, pixels_file: Path, seconds_file: Path) -> None:
        """Chunk by chunk, so that a long video needs no more memory than a short one."""
        self._cache.mkdir(parents=True, exist_ok=True)
        fresh = pixels_file.with_name(f".{pixels_file.name}.{os.getpid()}")
        chunks: list[NDArray[np.float64]] = []
        try:
            with fresh.open("wb") as file, open_clip(path, picture=self._picture, limits=self._limits) as source:
                for clip in sample(source, self._sampling):
                    _append(file, clip, num_frames_before=sum(map(len, chunks)))
                    chunks.append(clip.seconds_T)
            seconds_fresh = fresh.with_suffix(".seconds")
            with seconds_fresh.open("wb") as file:
                np.save(file, np.concatenate(chunks))
            seconds_fresh.replace(seconds_file)
            fresh.replace(pixels_file)
        finally:
            fresh.unlink(missing_ok=True)


def open_clip(path: Path, *, picture: Picture, limits: Limits) -> AbstractContextManager[FrameSource]:
    """The frames of a video file, or of a folder of pictures."""
    if path.is_dir():
        return nullcontext(PictureReader(path, picture=picture, limits=limits))
    return Reader(path, picture=picture, limits=limits)


def content_hash(path: Path) -> bytes:
    """The hash of a clip's bytes; of names and bytes where the clip is a folder of frames."""
    files = picture_paths(path) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() if path.is_dir() else b"")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.digest()


def joint_hash(*parts: bytes | str) -> str:
    """One hash of several parts, in which no part can lend a byte to its neighbour."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _append(file: BinaryIO, clip: Clip, *, num_frames_before: int) -> None:
    """Let an .npy file grow along T: its header has room for any number of frames and is written anew."""
    num_frames = num_frames_before + len(clip)
    file.seek(0)
    header = {"descr": "|u1", "fortran_order": False, "shape": (num_frames, *clip.pixels_THWC.shape[1:])}
    np.lib.format.write_array_header_1_0(file, header)
    file.seek(0, os.SEEK_END)
    file.write(clip.pixels_THWC.data)


def _read(pixels_file: Path, seconds_file: Path) -> ClipPixels | None:
    """What was kept; a file that is cut short counts as nothing kept and is decoded again."""
    try:
        pixels_THWC = np.load(
            pixels_file, mmap_mode="c"
        )  # torch takes no read-only arrays; what is written stays in memory
        seconds_T = np.load(seconds_file)
        return ClipPixels(pixels_THWC, seconds_T) if len(pixels_THWC) == len(seconds_T) else None
    except (FileNotFoundError, ValueError, EOFError):
        return None
