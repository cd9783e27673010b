"""Features of clips, computed once and kept on disk by content. Knows nothing of labels or of learning.

The key of a clip's features is the hash of everything they depend on: the clip's bytes, the encoder with its weights,
the picture and the sampling. A changed clip, backbone or rate is never taken from the cache; a renamed clip is.

A clip may have several sets of features, of its views: view 0 is the clip as it is, the others have their frames
changed at random. Neither making nor reading them holds all of a long clip in memory (training.data.row_files).

Shape letters: T sampled frames, E encoded size, D feature size, M size of a frame's maps.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from platformdirs import user_cache_path

from training.data.frame_augment import FrameAugment
from training.data.pixels import sampled_clips
from training.data.row_files import Rows, content_hash, joint_hash, read_rows, write_rows
from vidseq.config import Limits, ModelConfig, Picture
from vidseq.encoder import Encoder
from vidseq.errors import VideoError
from vidseq.motion import Motion
from vidseq.state import State

VERSION = "1"  # of the way from bytes to the encoder's pixels: a new resize must not meet old features


@dataclass(frozen=True, eq=False)
class ClipFeatures:
    """The features of one clip's sampled frames and their times. float32.

    Where they tell of motion, `map_TM` is what they follow from, beside the pooled features: the frames' maps, reduced.
    """

    feature_TD: NDArray[np.float32]
    seconds_T: NDArray[np.float64]
    map_TM: NDArray[np.float16] | None = None

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
        augment: how the frames of the views from 1 on are changed.
        cache: the folder in which features are kept; the user's cache folder by default.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        config: ModelConfig,
        augment: FrameAugment = FrameAugment(),
        cache: Path | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._encoder = encoder
        self.motion: Motion | None = encoder.motion
        self._config = config
        self._augment = augment
        self._cache = cache or user_cache_path("vidseq") / "features"
        self._limits = limits or Limits()
        weights = encoder.to_bytes()

        def recipe(picture: Picture) -> str:
            parts = (picture, config.sampling, encoder.config)
            return joint_hash(VERSION, weights, *(part.model_dump_json() for part in parts))

        pictures = {augment.picture(config.picture, view=view) for view in (0, 1)}  # one, or one more of a wide view
        self._recipes = {picture: recipe(picture) for picture in pictures}

    def __call__(self, path: Path, *, view: int = 0) -> ClipFeatures:
        """The features of one clip, from the cache if they are there.

        Raises:
            VideoError: the clip cannot be decoded.
        """
        key = self._key(path, view)
        kept = self._kept(key)
        found = self._read(kept)
        if found is None:
            write_rows(kept, self._compute(path, key, view))
            found = self._read(kept)
        assert found is not None, f"what was just written to {kept} is gone or damaged"
        return found

    def has(self, path: Path, *, view: int = 0) -> bool:
        """Whether something is kept of this clip, so that it need not be decoded."""
        return self._kept(self._key(path, view)).is_file()

    def _read(self, kept: Path) -> ClipFeatures | None:
        features, maps = read_rows(kept, "feature_TD"), read_rows(kept, "map_TM") if self.motion else None
        if features is None or (self.motion and maps is None):
            return None
        return ClipFeatures(*features, None if maps is None else maps[0])

    def _key(self, path: Path, view: int) -> str:
        """What a view's features follow from, and the chance by which its frames are changed."""
        recipe = self._recipes[self._augment.picture(self._config.picture, view=view)]
        seen = (repr(self._augment), str(view)) if self._changed(view) else ()
        return joint_hash(content_hash(path), recipe, *seen)

    def _changed(self, view: int) -> bool:
        """Whether a view's frames are changed at random: a wide view has the features of a model that sees it so."""
        return view > 0 and not self._augment.is_wide(view)

    def _kept(self, key: str) -> Path:
        return self._cache / f"{key}.safetensors"

    def _compute(self, path: Path, key: str, view: int) -> Iterator[tuple[dict[str, Rows], NDArray[np.float64]]]:
        """Chunk after chunk, with the state that carries from one to the next what moved."""
        state: State | None = None
        picture, sampling = self._augment.picture(self._config.picture, view=view), self._config.sampling
        device = self._encoder.pixel_mean.device
        for clip in sampled_clips(path, picture=picture, sampling=sampling, limits=self._limits):
            pixels_THWC = torch.from_numpy(clip.pixels_THWC)
            if self._changed(view):
                pixels_THWC = self._augment(pixels_THWC, key=(key,))
            encoded_TE = self._encoder(pixels_THWC.to(device))
            feature_BTD, state = self._encoder.features(encoded_TE[None], state)
            rows: dict[str, Rows] = {"feature_TD": feature_BTD[0].cpu().numpy()}
            if self.motion is not None:
                rows["map_TM"] = encoded_TE[:, self.motion.pooled_size :].half().cpu().numpy()
            yield rows, clip.seconds_T


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
