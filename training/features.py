"""Features of clips, computed once and kept on disk by content. Knows nothing of labels or of learning.

The key of a clip's features is the hash of everything they depend on: the clip's bytes, the encoder with its weights,
the picture and the sampling. A changed clip, backbone or rate is never taken from the cache; a renamed clip is.

Shape letters: T sampled frames, D feature size.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from platformdirs import user_cache_path
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from vidseq.config import Limits, ModelConfig
from vidseq.encoder import Encoder
from vidseq.errors import VideoError
from vidseq.pictures import PictureReader, picture_paths
from vidseq.sampling import FrameSource, sample
from vidseq.video import Reader

VERSION = "1"  # of the way from bytes to the encoder's pixels: a new resize must not meet old features


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
        kept = self._cache / f"{_hash(_content(path), self._recipe)}.safetensors"
        features = _read(kept)
        if features is None:
            features = self._compute(path)
            _write(kept, features)
        return features

    def _compute(self, path: Path) -> ClipFeatures:
        feature_chunks: list[NDArray[np.float32]] = []
        seconds_chunks: list[NDArray[np.float64]] = []
        device = self._encoder.pixel_mean.device
        with self._open(path) as reader:
            for clip in sample(reader, self._config.sampling):
                feature_TD = self._encoder(torch.from_numpy(clip.pixels_THWC).to(device))
                feature_chunks.append(feature_TD.cpu().numpy())
                seconds_chunks.append(clip.seconds_T)
        return ClipFeatures(np.concatenate(feature_chunks), np.concatenate(seconds_chunks))

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
        arrays = load_arrays(path.read_bytes())
        return ClipFeatures(arrays["feature_TD"], arrays["seconds_T"])
    except (FileNotFoundError, SafetensorError, KeyError):
        return None


def _write(path: Path, features: ClipFeatures) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_bytes(save_arrays({"feature_TD": features.feature_TD, "seconds_T": features.seconds_T}))
    fresh.replace(path)
