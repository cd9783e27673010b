"""Features of clips, computed once and kept by content (vidseq.features). Knows nothing of labels or of learning.

A clip may have several sets of features, of its views: view 0 is the clip as it is, the others have their frames
changed at random.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from platformdirs import user_cache_path
from torch import Tensor

from training.data.frame_augment import FrameAugment
from training.data.pixels import open_frames
from vidseq.config import Limits, ModelConfig
from vidseq.encoder import Encoder
from vidseq.errors import VideoError
from vidseq.features.extract import Look, keep, recipe_of
from vidseq.features.hashes import content_hash, joint_hash
from vidseq.features.store import ClipFeatures, FeatureStore, Recipe
from vidseq.motion import Motion


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
        store: the folder in which features are kept; one in the user's cache folder by default.

    Raises:
        OptionError: the folder is no store of features.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        config: ModelConfig,
        augment: FrameAugment = FrameAugment(),
        store: Path | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._encoder = encoder
        self.motion: Motion | None = encoder.motion
        self._config = config
        self._augment = augment
        self._store = FeatureStore(store or user_cache_path("vidseq") / "feature-store")
        self._limits = limits or Limits()
        plain = recipe_of(encoder, Look.of(config))
        pictures = {augment.picture(config.picture, view=view) for view in (0, 1)}  # one, or one more of a wide view
        self._recipes = {picture: replace(plain, picture=picture) for picture in pictures}

    def __call__(self, path: Path, *, view: int = 0) -> ClipFeatures:
        """The features of one clip, from the store if they are there.

        Raises:
            VideoError: the clip cannot be decoded.
        """
        recipe, key = self._recipe(view), self._key(path, view)
        found = self._store.read(recipe, key)
        if found is None:
            self._compute(path, recipe, key, view)
            found = self._store.read(recipe, key)
        assert found is not None, f"what was just kept of {path} is gone or damaged"
        return found

    def has(self, path: Path, *, view: int = 0) -> bool:
        """Whether something is kept of this clip, so that it need not be decoded."""
        return self._store.has(self._recipe(view), self._key(path, view))

    def _recipe(self, view: int) -> Recipe:
        return self._recipes[self._augment.picture(self._config.picture, view=view)]

    def _key(self, path: Path, view: int) -> str:
        """The clip's hash; where a view's frames are changed, the chance by which they are stands behind it."""
        clip = content_hash(path).hex()
        return f"{clip}-{joint_hash(repr(self._augment), str(view))[:16]}" if self._changed(view) else clip

    def _changed(self, view: int) -> bool:
        """Whether a view's frames are changed at random: a wide view has the features of a model that sees it so."""
        return view > 0 and not self._augment.is_wide(view)

    def _compute(self, path: Path, recipe: Recipe, key: str, view: int) -> None:
        def change(pixels_THWC: Tensor) -> Tensor:
            return self._augment(pixels_THWC, key=(key,)) if self._changed(view) else pixels_THWC

        with open_frames(path, picture=recipe.picture, limits=self._limits) as reader:
            keep(self._store, recipe, key, reader, self._encoder, change=change)


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
