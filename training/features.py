"""Features of clips, computed once and kept on disk by content. Knows nothing of labels or of learning.

The key of a clip's features is the hash of everything they depend on: the clip's bytes, the encoder with its weights,
the picture and the sampling. A changed clip, backbone or rate is never taken from the cache; a renamed clip is.

Neither making nor reading them holds all of a long clip in memory: they are written as they are computed, and what is
large is mapped, so that the system may drop what is not in use.

Shape letters: T sampled frames, D feature size.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as load_arrays

from vidseq.config import Limits, ModelConfig
from vidseq.encoder import Encoder
from vidseq.errors import VideoError
from vidseq.pictures import PictureReader, picture_paths
from vidseq.sampling import FrameSource, sample
from vidseq.video import Reader

VERSION = "1"  # of the way from bytes to the encoder's pixels: a new resize must not meet old features
MAPPED_BYTES = 2**20  # files from this size on are mapped; a process may have some 65,000 maps, so not those of clips


@dataclass(frozen=True, eq=False)
class ClipFeatures:
    """The features of one clip's sampled frames and their times. float32."""

    feature_TD: NDArray[np.float32]
    seconds_T: NDArray[np.float64]

    def __post_init__(self) -> None:
        assert self.feature_TD.ndim == 2 and self.seconds_T.shape == self.feature_TD.shape[:1]

    def __repr__(self) -> str:
        return f"ClipFeatures(feature_TD={self.feature_TD.shape})"


@dataclass(frozen=True)
class Failed:
    """A clip that could not be decoded, and why."""

    path: Path
    error: VideoError


class FeatureExtractor:
    """Clips in, features out, each computed at most once.

    Args:
        encoder: with its weights loaded.
        config: picture and sampling of the model that will be trained.
        cache: the folder in which features are kept; the user's cache folder by default.
    """

    def __init__(
        self, encoder: Encoder, *, config: ModelConfig, cache: Path | None = None, limits: Limits | None = None
    ) -> None:
        self._encoder = encoder
        self._config = config
        self._cache = cache or user_cache_path("vidseq") / "features"
        self._limits = limits or Limits()
        parts = (config.picture, config.sampling, encoder.config)
        self._recipe = _hash(VERSION, encoder.to_bytes(), *(part.model_dump_json() for part in parts))

    def __call__(self, path: Path) -> ClipFeatures:
        """The features of one clip, from the cache if they are there.

        Raises:
            VideoError: the clip cannot be decoded.
        """
        kept = self._kept(path)
        features = _read(kept)
        if features is None:
            self._compute(path, kept)
            features = _read(kept)
        assert features is not None, f"what was just written to {kept} is gone or damaged"
        return features

    def has(self, path: Path) -> bool:
        """Whether something is kept of this clip, so that it need not be decoded."""
        return self._kept(path).is_file()

    def _kept(self, path: Path) -> Path:
        return self._cache / f"{_hash(_content(path), self._recipe)}.safetensors"

    def _compute(self, path: Path, kept: Path) -> None:
        """One chunk of frames after the other goes into a nameless file, and from there to `kept`."""
        kept.parent.mkdir(parents=True, exist_ok=True)
        seconds: list[float] = []
        device = self._encoder.pixel_mean.device
        with self._open(path) as reader, SpooledTemporaryFile(MAPPED_BYTES, dir=str(kept.parent)) as rows:
            for clip in sample(reader, self._config.sampling):
                feature_TD = self._encoder(torch.from_numpy(clip.pixels_THWC).to(device))
                rows.write(feature_TD.cpu().numpy().tobytes())
                seconds += clip.seconds_T.tolist()
            rows.seek(0)
            _write(kept, rows, np.array(seconds), feature_size=self._encoder.feature_size)

    def _open(self, path: Path) -> AbstractContextManager[FrameSource]:
        if path.is_dir():
            return nullcontext(PictureReader(path, picture=self._config.picture, limits=self._limits))
        return Reader(path, picture=self._config.picture, limits=self._limits)


def extract_all(
    extractor: FeatureExtractor, paths: Sequence[Path], *, on_clip: Callable[[Path], None]
) -> Iterator[ClipFeatures | Failed]:
    """Features or the reason why there are none, in the order of `paths`; `on_clip` is told of each."""
    for path in paths:
        try:
            yield extractor(path)
        except VideoError as error:
            yield Failed(path, error)
        on_clip(path)


def _content(path: Path) -> bytes:
    """The hash of a clip's bytes; of names and bytes where the clip is a folder of frames."""
    files = picture_paths(path) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() if path.is_dir() else b"")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.digest()


def _hash(*parts: bytes | str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _read(path: Path) -> ClipFeatures | None:
    """What was kept; a damaged file counts as nothing kept and is computed again."""
    try:
        if path.stat().st_size < MAPPED_BYTES:
            arrays = load_arrays(path.read_bytes())
            return ClipFeatures(arrays["feature_TD"], arrays["seconds_T"])
        with safe_open(path, framework="pt") as file:  # for torch its tensors are maps, for numpy they would be copies
            feature_TD, seconds_T = (file.get_tensor(name).numpy() for name in ("feature_TD", "seconds_T"))
        return ClipFeatures(feature_TD, seconds_T)
    except (FileNotFoundError, SafetensorError, KeyError):
        return None


def _write(path: Path, rows: IO[bytes], seconds_T: NDArray[np.float64], *, feature_size: int) -> None:
    """A safetensors file, written here because the library writes only what it is given as a whole.

    Its form: the length of a JSON text, 8 bytes; that text, which says where each tensor lies; the tensors.
    """
    num_frames, split = len(seconds_T), seconds_T.nbytes
    end = split + 4 * num_frames * feature_size
    header = {
        "seconds_T": {"dtype": "F64", "shape": [num_frames], "data_offsets": [0, split]},
        "feature_TD": {"dtype": "F32", "shape": [num_frames, feature_size], "data_offsets": [split, end]},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors are read where they lie, so they begin at a multiple of 8
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text + seconds_T.tobytes())
            shutil.copyfileobj(rows, file)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
